"""A request's tensors as arrays, and arrays as an answer's tensors, each in JSON or in binary as the client chose."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from numpy.typing import NDArray

from server.contract.manifest import Column, Signature, Tensor
from server.errors import InvalidRequestError
from server.protocol.binary_codec import from_bytes, strings_from_bytes, to_bytes
from server.protocol.datatypes import DATATYPES, Arrays, converts
from server.protocol.elements import check_missing, convert
from server.protocol.json_body import check_nesting, decode_json
from server.protocol.json_codec import decode_data, encode_tensor, join_array
from server.protocol.messages import (
    BinaryTensor,
    InferenceRequest,
    InferenceResponse,
    InputTensor,
    PackedTensor,
    Parameters,
)

_inputs_decoder = msgspec.json.Decoder(list[InputTensor])
_items_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_encoder = msgspec.json.Encoder()
_NULL = b"null"
# What a sentence shows at most of what a client sent.
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class TensorLimits:
    """What one request may be: elements and rows of all inputs, depth of parameters and of data."""

    elements: int
    rows: int
    nesting: int

    def check_elements(self, elements: int) -> None:
        """Raises InvalidRequestError for more elements than may be."""
        if elements > self.elements:
            raise InvalidRequestError(f"expected at most {self.elements} elements in all inputs, got more")

    def check_rows(self, rows: int) -> None:
        """Raises InvalidRequestError for more rows than may be."""
        if rows > self.rows:
            raise InvalidRequestError(f"expected at most {self.rows} rows, got more")


class DecodedInputs(msgspec.Struct, frozen=True):
    """What the graph takes, how many rows it is, and the JSON array of tensors that the event keeps."""

    arrays: Arrays
    rows: int
    logged: msgspec.Raw


class SelectedOutput(msgspec.Struct, frozen=True):
    """An output that the client wants, and whether in binary."""

    name: str
    binary: bool


@dataclass(frozen=True, slots=True)
class EncodedAnswer:
    """An answer's body; ``header_length`` of its bytes are JSON, None for all of them."""

    body: bytes
    header_length: int | None


def decode_inputs(
    inputs: msgspec.Raw, tail: memoryview | None, signature: Signature, limits: TensorLimits
) -> DecodedInputs:
    """Returns a request's inputs as the graph takes them.

    Args:
        inputs: the request's ``inputs`` member as it came.
        tail: what followed the JSON, None in a request without binary data.
        signature: what the version takes; a column may come as (rows,) or (rows, 1).
        limits: what the request may be.

    Raises:
        InvalidRequestError: an input is missing, unknown, given twice, of another datatype or
            shape than the signature's, larger than a limit, or holds a value that its type cannot.
    """
    tensors = decode_json(_inputs_decoder, inputs)
    given = {tensor.name: tensor for tensor in tensors}
    if len(given) != len(tensors) or given.keys() != {spec.name for spec in signature.inputs}:
        _refuse_names("input", [tensor.name for tensor in tensors], [spec.name for spec in signature.inputs])
    shapes = [_checked_shape(given[spec.name], spec, limits) for spec in signature.inputs]
    rows = _checked_rows(shapes, signature, limits)
    parts = _binary_parts(tensors, tail, limits)
    arrays: Arrays = {}
    for place, (spec, shape) in enumerate(zip(signature.inputs, shapes, strict=True)):
        columns = signature.columns if signature.layout == "matrix" else signature.columns[place : place + 1]
        tensor = given[spec.name]
        arrays[spec.name] = _elements(tensor, parts.get(spec.name), spec, columns).reshape(shape)
    return DecodedInputs(arrays, rows, _packed(inputs, tensors, parts) if parts else inputs)


def decode_raw(body: bytes, signature: Signature, limits: TensorLimits) -> DecodedInputs:
    """Returns a body that is nothing but the elements of a model's one input, as the graph takes them.

    Args:
        body: rows after each other, in the datatype of the signature; none is no row.
        signature: of one input, whose dimensions but the first are fixed.
        limits: what the request may be.

    Raises:
        InvalidRequestError: the signature is another one, the body no whole number of rows, larger
            than a limit, or a value is not its type's.
    """
    if len(signature.inputs) != 1:
        raise InvalidRequestError(f"expected JSON for {len(signature.inputs)} inputs, got a body without any")
    spec = signature.inputs[0]
    where = f"input {spec.name!r}"
    fixed = spec.shape[1:] if spec.shape[:1] == [-1] else spec.shape
    row_elements = math.prod(fixed)
    if -1 in fixed or row_elements == 0:
        raise InvalidRequestError(f"{where}: expected JSON that gives the shape {spec.shape}, got a body without any")
    datatype = DATATYPES[spec.datatype]
    data = memoryview(body)
    if datatype.element is str:
        array = strings_from_bytes(data, where, limits.elements)
        elements = len(array)
    else:
        elements, rest = divmod(len(data), datatype.dtype.itemsize)
        limits.check_elements(elements)
        if rest:
            raise InvalidRequestError(
                f"{where}: expected elements of {datatype.dtype.itemsize} bytes, got {len(data)} bytes"
            )
        array = from_bytes(data, datatype, elements, where)
    rows, rest = divmod(elements, row_elements)
    if rest or (fixed is spec.shape and rows != 1):
        raise InvalidRequestError(f"{where}: expected shape {spec.shape}, got {elements} elements")
    shape = spec.shape if fixed is spec.shape else [rows, *fixed]
    limits.check_rows(rows)
    if datatype.element is float:
        check_missing(array, signature.columns, where)
    packed = PackedTensor(name=spec.name, shape=shape, datatype=spec.datatype, base64=data)
    return DecodedInputs({spec.name: array.reshape(shape)}, rows, join_array([_encoder.encode(packed)]))


def select_outputs(request: InferenceRequest | None, signature: Signature) -> list[SelectedOutput]:
    """Returns the outputs that a request wants, in its order; all of the signature's without a word about them.

    Args:
        request: its envelope, None for a body of raw elements, which is answered in JSON.
        signature: what the version gives.

    Raises:
        InvalidRequestError: an output is unknown or selected twice, FP16 in JSON, or wanted in a
            form that the server does not have.
    """
    specs = {spec.name: spec for spec in signature.outputs}
    binary = request is not None and _flag(request.parameters, "binary_data_output", "parameters") is True
    if request is None or not request.outputs:
        return [_selected(spec, binary) for spec in signature.outputs]
    names = [output.name for output in request.outputs]
    if len(set(names)) != len(names) or not specs.keys() >= set(names):
        _refuse_names("output", names, list(specs), all_expected=False)
    selected = []
    for output in request.outputs:
        where = f"output {output.name!r}"
        _refuse_extensions(output.parameters, where)
        own = _flag(output.parameters, "binary_data", where)
        selected.append(_selected(specs[output.name], binary if own is None else own))
    return selected


def encode_outputs(outputs: Arrays, specs: Sequence[Tensor], packed: frozenset[str]) -> list[bytes]:
    """Returns each output once, in the signature's order, as the event has it.

    Args:
        outputs: by name.
        specs: the signature's.
        packed: the names of those whose bytes are kept as they are, in base64, since they leave in binary.
    """
    return [_event_tensor(spec, outputs[spec.name], spec.name in packed) for spec in specs]


def encode_answer(
    model: str,
    version: str,
    request_id: str,
    outputs: Arrays,
    tensors: Sequence[bytes],
    specs: Sequence[Tensor],
    selected: Sequence[SelectedOutput],
) -> EncodedAnswer:
    """Returns the protocol's answer.

    Args:
        model: its name.
        version: of the model that answers.
        request_id: the client's, or the one made for it.
        outputs: by name.
        tensors: each output as V2 JSON in the order of ``specs``; those selected in binary are not used.
        specs: the signature's outputs.
        selected: what the client wants, in its order.
    """
    places = {spec.name: place for place, spec in enumerate(specs)}
    items: list[msgspec.Raw] = []
    tails: list[memoryview] = []
    for output in selected:
        place = places[output.name]
        if output.binary:
            tails.append(to_bytes(outputs[output.name], DATATYPES[specs[place].datatype]))
            items.append(msgspec.Raw(_binary_tensor(specs[place], outputs[output.name], len(tails[-1]))))
        else:
            items.append(msgspec.Raw(tensors[place]))
    head = _encoder.encode(InferenceResponse(model_name=model, model_version=version, id=request_id, outputs=items))
    return EncodedAnswer(b"".join([head, *tails]), len(head)) if tails else EncodedAnswer(head, None)


def _refuse_names(kind: str, given: list[str], expected: list[str], all_expected: bool = True) -> None:
    for name in expected if all_expected else ():
        if name not in given:
            raise InvalidRequestError(f"{kind} {name!r} is missing: expected {expected}, got {_cut(given)}")
    for name in given:
        if name not in expected:
            raise InvalidRequestError(f"{kind} {_cut(name)} is unknown: expected {expected}, got {_cut(given)}")
    seen: set[str] = set()
    twice = next(name for name in given if name in seen or seen.add(name))  # type: ignore[func-returns-value]  # adds, and goes on
    raise InvalidRequestError(f"{kind} {twice!r} is given twice: expected {expected}, got {_cut(given)}")


def _cut(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def _checked_shape(tensor: InputTensor, spec: Tensor, limits: TensorLimits) -> list[int]:
    """Returns the shape as the graph wants it, so a column that came as (rows,) is (rows, 1)."""
    where = f"input {spec.name!r}"
    if not converts(tensor.datatype, spec.datatype):
        raise InvalidRequestError(f"{where}: expected datatype {spec.datatype}, got {_cut(tensor.datatype)}")
    shape = tensor.shape
    if len(shape) > limits.nesting:
        raise InvalidRequestError(f"{where}: expected at most {limits.nesting} dimensions, got {len(shape)}")
    if len(shape) == 1 and spec.shape == [-1, 1]:
        shape = [shape[0], 1]
    fits = len(shape) == len(spec.shape) and all(
        got >= 0 and want in (-1, got) for got, want in zip(shape, spec.shape, strict=True)
    )
    if not fits:
        raise InvalidRequestError(f"{where}: expected shape {spec.shape}, got {_cut(tensor.shape)}")
    return shape


def _checked_rows(shapes: list[list[int]], signature: Signature, limits: TensorLimits) -> int:
    """Returns how many rows inputs of these shapes have, having compared them with the limits and each other."""
    elements = 0
    for shape in shapes:
        elements += math.prod(shape)
        # A dimension counts beside another of 0 too: numpy has no array of any shape.
        limits.check_elements(max(elements, *shape, 0))
    if signature.layout == "tensors":
        _check_symbols(shapes, signature.inputs)
        first = signature.inputs[0].shape[:1]
        rows = shapes[0][0] if first == [-1] else 1
    else:
        rows = shapes[0][0]
        for spec, shape in zip(signature.inputs, shapes, strict=True):
            if shape[0] != rows:
                raise InvalidRequestError(
                    f"input {spec.name!r}: expected {rows} rows like the inputs before it, got {shape[0]}"
                )
    limits.check_rows(rows)
    return rows


def _check_symbols(shapes: list[list[int]], specs: Sequence[Tensor]) -> None:
    """Refuses dimensions of one name but of several sizes."""
    sizes: dict[str, tuple[int, str]] = {}
    for spec, shape in zip(specs, shapes, strict=True):
        for symbol, size in zip(spec.symbols, shape, strict=False):
            expected, first = sizes.setdefault(symbol, (size, spec.name))
            if symbol and size != expected:
                raise InvalidRequestError(
                    f"input {spec.name!r}: expected dimension {symbol!r} of size {expected} as in input {first!r}, "
                    f"got {size}"
                )


def _binary_parts(tensors: list[InputTensor], tail: memoryview | None, limits: TensorLimits) -> dict[str, memoryview]:
    """Returns each binary input's bytes: they follow the JSON in the request's order, and nothing else does."""
    parts: dict[str, memoryview] = {}
    start = 0
    for tensor in tensors:
        size = _binary_size(tensor, limits)
        if size is None:
            continue
        if tail is None and size == 0:  # kserve sends no rows so, and no header
            parts[tensor.name] = memoryview(b"")
            continue
        if tail is None:
            raise InvalidRequestError(
                f"input {tensor.name!r}: expected the header Inference-Header-Content-Length with binary data, got none"
            )
        if size > len(tail) - start:
            raise InvalidRequestError(
                f"input {tensor.name!r}: expected {size} bytes of binary data, got {len(tail) - start}"
            )
        parts[tensor.name] = tail[start : start + size]
        start += size
    if tail is not None and start != len(tail):
        raise InvalidRequestError(f"expected {start} bytes of binary data after the JSON, got {len(tail)}")
    return parts


def _binary_size(tensor: InputTensor, limits: TensorLimits) -> int | None:
    """Returns how many bytes of binary data an input has, None for one in JSON."""
    where = f"input {tensor.name!r}"
    data = tensor.data
    in_json = data is not msgspec.UNSET and not (len(data) == len(_NULL) and bytes(data) == _NULL)
    size = None
    if tensor.parameters is not None:
        check_nesting(tensor.parameters, limits.nesting, f"{where}: parameters")
        _refuse_extensions(tensor.parameters, where)
        size = tensor.parameters.get("binary_data_size")
    if size is None:
        if not in_json:
            raise InvalidRequestError(f"{where}: expected data, got none")
        return None
    if type(size) is not int or size < 0:
        raise InvalidRequestError(f"{where}: expected binary_data_size as an integer of 0 or more, got another value")
    if in_json:
        raise InvalidRequestError(f"{where}: expected data in JSON or in binary, got both")
    return size


def _elements(tensor: InputTensor, part: memoryview | None, spec: Tensor, columns: Sequence[Column]) -> NDArray[Any]:
    where = f"input {spec.name!r}"
    given, wanted = DATATYPES[tensor.datatype], DATATYPES[spec.datatype]
    if part is not None:
        array = from_bytes(part, given, math.prod(tensor.shape), where)
        if given.element is float:
            check_missing(array, columns, where)
        return convert(array, given, wanted, where)
    if given.name == "FP16":
        raise InvalidRequestError(f"{where}: FP16 is for binary data only, expected FP32 in JSON")
    assert tensor.data is not msgspec.UNSET
    return decode_data(tensor.data, tensor.shape, given, wanted, columns, where)


def _packed(inputs: msgspec.Raw, tensors: list[InputTensor], parts: Mapping[str, memoryview]) -> msgspec.Raw:
    """Returns the inputs with those in binary packed, the others as they came."""
    items = []
    for tensor, item in zip(tensors, _items_decoder.decode(inputs), strict=True):
        if tensor.name in parts:
            packed = PackedTensor(
                name=tensor.name, shape=tensor.shape, datatype=tensor.datatype, base64=parts[tensor.name]
            )
            items.append(_encoder.encode(packed))
        else:
            items.append(bytes(item))
    return join_array(items)


def _flag(parameters: Parameters | None, name: str, where: str) -> bool | None:
    value = (parameters or {}).get(name)
    if value is not None and type(value) is not bool:
        raise InvalidRequestError(f"{where}: expected {name} as true or false, got another value")
    return value


def _refuse_extensions(parameters: Parameters | None, where: str) -> None:
    for name in parameters or ():
        if name.startswith("shared_memory") or name == "classification":
            raise InvalidRequestError(f"{where}: the extension of parameter {name[:40]!r} is not supported")


def _selected(spec: Tensor, binary: bool) -> SelectedOutput:
    if spec.datatype == "FP16" and not binary:
        raise InvalidRequestError(
            f"output {spec.name!r}: FP16 is for binary data only; ask for it with binary_data, or select other outputs"
        )
    return SelectedOutput(spec.name, binary)


def _event_tensor(spec: Tensor, array: NDArray[Any], packed: bool) -> bytes:
    if not packed:
        return encode_tensor(spec.name, spec.datatype, array)
    data = to_bytes(array, DATATYPES[spec.datatype])
    return _encoder.encode(PackedTensor(name=spec.name, shape=array.shape, datatype=spec.datatype, base64=data))


def _binary_tensor(spec: Tensor, array: NDArray[Any], size: int) -> bytes:
    parameters = {"binary_data_size": size}
    return _encoder.encode(
        BinaryTensor(name=spec.name, shape=array.shape, datatype=spec.datatype, parameters=parameters)
    )
