"""The protocol's JSON: from a body's bytes to typed arrays, and from arrays to bytes.

Decoding is in two steps, because the types are the signature's and the signature is known only
once the route has chosen a version: first the envelope, then the tensors.
"""

import json
import math
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from server.contract.manifest import Column, Signature, Tensor
from server.errors import InvalidRequestError
from server.protocol.datatypes import DATATYPES, Arrays
from server.protocol.messages import EncodedTensor, InferenceRequest, InputTensor, RowsRequest

T = TypeVar("T")

_request_decoder = msgspec.json.Decoder(InferenceRequest)
_inputs_decoder = msgspec.json.Decoder(list[InputTensor])
_rows_decoder = msgspec.json.Decoder(RowsRequest)
_any_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()
_flat_decoders: dict[type, msgspec.json.Decoder[list[Any]]] = {
    element: msgspec.json.Decoder(list[element])  # type: ignore[valid-type]  # one decoder a JSON type
    for element in (bool, int, float, str)
}


def decode_request(body: bytes) -> InferenceRequest:
    """Returns the envelope of an inference request, or raises InvalidRequestError."""
    return _decode(_request_decoder, body)


def decode_rows_request(body: bytes) -> RowsRequest:
    """Returns the body of a request of rows, or raises InvalidRequestError."""
    return _decode(_rows_decoder, body)


def decode_inputs(inputs: msgspec.Raw, signature: Signature, max_elements: int) -> tuple[Arrays, int]:
    """Returns the arrays the graph takes, by input name, and how many rows they have.

    Args:
        inputs: the request's ``inputs`` member as it came.
        signature: what the version takes; a column may come as (rows,) or (rows, 1).
        max_elements: how many elements all tensors together may have.

    Raises:
        InvalidRequestError: an input is missing, unknown, given twice, of another datatype or
            shape than the signature's, or holds a value that its type cannot.
    """
    tensors = _decode(_inputs_decoder, inputs)
    given = {tensor.name: tensor for tensor in tensors}
    if len(given) != len(tensors) or given.keys() != {spec.name for spec in signature.inputs}:
        _refuse_names([tensor.name for tensor in tensors], [spec.name for spec in signature.inputs])
    arrays: Arrays = {}
    rows = -1
    elements = 0
    for place, spec in enumerate(signature.inputs):
        tensor = given[spec.name]
        shape = _checked_shape(tensor, spec)
        elements += math.prod(shape)
        if elements > max_elements:
            raise InvalidRequestError(f"expected at most {max_elements} elements in all inputs, got more")
        if rows not in (-1, shape[0]):
            raise InvalidRequestError(
                f"input {spec.name!r}: expected {rows} rows like the inputs before it, got {shape[0]}"
            )
        rows = shape[0]
        columns = signature.columns if signature.layout == "matrix" else signature.columns[place : place + 1]
        arrays[spec.name] = _decode_tensor(tensor, spec, shape, columns)
    return arrays, rows


def rows_to_arrays(rows: Sequence[dict[str, Any]], signature: Signature) -> Arrays:
    """Returns the arrays the graph takes for rows of named values; an absent column is missing.

    Raises:
        InvalidRequestError: an unknown column, a missing value where none is allowed, or a value
            of another type than the column's.
    """
    names = {column.name for column in signature.columns}
    for place, row in enumerate(rows):
        if not row.keys() <= names:
            unknown = sorted(row.keys() - names)
            raise InvalidRequestError(
                f"row {place}: expected columns among {sorted(names)}, got unknown {', '.join(map(repr, unknown))}"
            )
    columns = []
    for column in signature.columns:
        values = [row.get(column.name) for row in rows]
        columns.append(_column_array(values, column.datatype, [column], f"column {column.name!r}"))
    if signature.layout == "matrix":
        return {signature.inputs[0].name: np.stack(columns, axis=1)}
    return {column.name: array.reshape(-1, 1) for column, array in zip(signature.columns, columns, strict=True)}


def encode_tensor(name: str, datatype: str, array: NDArray[Any]) -> bytes:
    """Returns a tensor as V2 JSON, its data flat; NaN becomes null."""
    return _encoder.encode(
        EncodedTensor(name=name, shape=array.shape, datatype=datatype, data=_json_values(array.ravel()))
    )


def encode_arrays(arrays: Arrays, tensors: Sequence[Tensor]) -> list[bytes]:
    """Returns each array as V2 JSON, in the signature's order."""
    return [encode_tensor(tensor.name, tensor.datatype, arrays[tensor.name]) for tensor in tensors]


def join_array(items: Sequence[bytes]) -> msgspec.Raw:
    """Returns a JSON array of items that are encoded already."""
    return msgspec.Raw(b"[" + b",".join(items) + b"]")


def _json_values(flat: NDArray[Any]) -> list[Any]:
    return flat.tolist()  # type: ignore[no-any-return]  # numpy types the elements, not the list


def _decode(decoder: msgspec.json.Decoder[T], body: bytes | msgspec.Raw) -> T:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"invalid request: {error}") from error
    except msgspec.DecodeError as error:
        if b"NaN" in bytes(body) or b"Infinity" in bytes(body):
            return _decode(decoder, _without_constants(bytes(body)))
        raise InvalidRequestError(f"expected JSON, got a body that is not: {error}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"expected JSON in UTF-8, got a body that is not: {error.reason}") from error
    except RecursionError as error:
        raise InvalidRequestError("expected JSON of modest depth, got a body nested too deeply") from error


def _without_constants(body: bytes) -> bytes:
    """Returns the body with bare NaN, which is not JSON but which clients send, as null."""

    def constant(name: str) -> None:
        if name != "NaN":
            raise InvalidRequestError(f"expected finite numbers, got {name}; send null for a missing value")

    def number(text: str) -> float:
        value = float(text)
        if math.isinf(value):
            raise InvalidRequestError(f"expected finite numbers, got {text[:40]}; send null for a missing value")
        return value

    try:
        return _encoder.encode(json.loads(body, parse_constant=constant, parse_float=number))
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"expected JSON, got a body that is not: {error}") from error


def _refuse_names(given: list[str], expected: list[str]) -> None:
    for name in expected:
        if name not in given:
            raise InvalidRequestError(f"input {name!r} is missing: expected {expected}, got {given}")
    for name in given:
        if name not in expected:
            raise InvalidRequestError(f"input {name!r} is unknown: expected {expected}, got {given}")
    twice = next(name for name in given if given.count(name) > 1)
    raise InvalidRequestError(f"input {twice!r} is given twice: expected {expected}, got {given}")


def _checked_shape(tensor: InputTensor, spec: Tensor) -> list[int]:
    """Returns the shape as the graph wants it, so a column that came as (rows,) is (rows, 1)."""
    if tensor.datatype != spec.datatype and not _converts(tensor.datatype, spec.datatype):
        raise InvalidRequestError(f"input {spec.name!r}: expected datatype {spec.datatype}, got {tensor.datatype!r}")
    shape = tensor.shape
    if len(shape) == 1 and spec.shape == [-1, 1]:
        shape = [shape[0], 1]
    fits = len(shape) == len(spec.shape) and all(
        got >= 0 and want in (-1, got) for got, want in zip(shape, spec.shape, strict=True)
    )
    if not fits:
        raise InvalidRequestError(f"input {spec.name!r}: expected shape {spec.shape}, got {tensor.shape}")
    return shape


def _converts(given: str, wanted: str) -> bool:
    """Says whether JSON data declared as one datatype may be read as another: numbers into floats."""
    if given not in DATATYPES:
        return False
    return DATATYPES[wanted].element is float and DATATYPES[given].element in (int, float)


def _decode_tensor(tensor: InputTensor, spec: Tensor, shape: list[int], columns: Sequence[Column]) -> NDArray[Any]:
    where = f"input {spec.name!r}"
    if tensor.data is msgspec.UNSET:
        raise InvalidRequestError(f"{where}: expected data, got none")
    if tensor.datatype == "FP16":
        raise InvalidRequestError(f"{where}: FP16 is for binary data only, expected FP32 in JSON")
    wanted = math.prod(shape)
    try:
        values = _flat_decoders[DATATYPES[spec.datatype].element].decode(tensor.data)
    except msgspec.ValidationError:
        values = _flatten(_decode(_any_decoder, tensor.data), tensor.shape, where)
    if len(values) != wanted:
        raise InvalidRequestError(f"{where}: expected {wanted} elements for shape {tensor.shape}, got {len(values)}")
    return _column_array(values, spec.datatype, columns, where).reshape(shape)


def _flatten(data: Any, shape: list[int], where: str) -> list[Any]:
    """Returns nested data flat in row-major order, having checked every level against the shape."""
    if not isinstance(data, list):
        raise InvalidRequestError(f"{where}: expected data as an array, got {type(data).__name__}")
    if not any(isinstance(item, list) for item in data):
        return data
    level = [data]
    for depth, size in enumerate(shape):
        for items in level:
            if not isinstance(items, list) or len(items) != size:
                got = len(items) if isinstance(items, list) else "a single value"
                raise InvalidRequestError(f"{where}: expected {size} elements at depth {depth}, got {got}")
        level = [item for items in level for item in items]
    if any(isinstance(item, list) for item in level):
        raise InvalidRequestError(f"{where}: expected data nested {len(shape)} deep, got deeper")
    return level


def _column_array(values: list[Any], datatype: str, columns: Sequence[Column], where: str) -> NDArray[Any]:
    """Returns flat values as an array of the signature's type; columns repeat along them.

    The values are checked here in the one way that both the tensors and the rows endpoint share:
    fast when all are of the right type, one by one only to say which is not.
    """
    kind = DATATYPES[datatype]
    try:
        with np.errstate(over="ignore"):
            array = np.array(msgspec.convert(values, list[kind.element]), dtype=kind.dtype)  # type: ignore[name-defined]  # the type is data
    except (msgspec.ValidationError, OverflowError):
        return _with_missing(values, datatype, columns, where)
    if kind.element is float and not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array))[0])
        raise InvalidRequestError(f"{where}: expected a value within {datatype}, got {values[bad]} at element {bad}")
    return array


def _with_missing(values: list[Any], datatype: str, columns: Sequence[Column], where: str) -> NDArray[Any]:
    kind = DATATYPES[datatype]
    filled: list[Any] = list(values)
    for place, value in enumerate(values):
        column = columns[place % len(columns)]
        if value is None:
            if not column.nullable:
                raise InvalidRequestError(
                    f"{where}: expected a value at element {place}, got null; "
                    f"column {column.name!r} had no missing values in training"
                )
            filled[place] = "" if kind.element is str else math.nan
            continue
        try:
            typed: Any = msgspec.convert(value, kind.element)
            with np.errstate(over="ignore"):
                exact = np.array(typed, dtype=kind.dtype)
        except (msgspec.ValidationError, OverflowError) as error:
            raise InvalidRequestError(
                f"{where}: expected {datatype} at element {place}, got {_shown(value)}"
            ) from error
        if kind.element is float and not math.isfinite(exact):
            raise InvalidRequestError(f"{where}: expected a value within {datatype}, got {typed} at element {place}")
        filled[place] = typed
    return np.array(filled, dtype=kind.dtype)


def _shown(value: Any) -> str:
    """Returns a value's type and, for a number, the value: a payload is never echoed."""
    if isinstance(value, (bool, int, float)):
        return f"{type(value).__name__} {value}"
    kinds: dict[type, str] = {str: "a string", list: "an array", dict: "an object"}
    return kinds.get(type(value), type(value).__name__)
