"""The protocol's JSON: a request's envelope, the data of its tensors, and tensors on their way out.

Decoding is in two steps, because the types are the signature's and the signature is known only
once the route has chosen a version: first the envelope, then the tensors.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import msgspec
from numpy.typing import NDArray

from server.contract.manifest import Column, Tensor
from server.errors import InvalidRequestError
from server.protocol.datatypes import Arrays, Datatype
from server.protocol.elements import each_value, shown, typed_array, values_array
from server.protocol.json_body import check_nesting, decode_json, on_one_line
from server.protocol.messages import EncodedTensor, InferenceRequest

_request_decoder = msgspec.json.Decoder(InferenceRequest)
_any_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()
_flat_decoders: dict[type, msgspec.json.Decoder[list[Any]]] = {
    element: msgspec.json.Decoder(list[element])  # type: ignore[valid-type]  # one decoder a JSON type
    for element in (bool, int, float, str)
}


def decode_request(body: bytes, nesting: int) -> InferenceRequest:
    """Returns the envelope of an inference request.

    Args:
        body: its JSON.
        nesting: how deep parameters may be nested.

    Raises:
        InvalidRequestError: it is no inference request.
    """
    request = decode_json(_request_decoder, on_one_line(body))
    check_nesting(request.parameters, nesting, "parameters")
    for output in request.outputs or ():
        check_nesting(output.parameters, nesting, "parameters of an output")
    return request


def decode_data(
    data: msgspec.Raw, shape: Sequence[int], given: Datatype, wanted: Datatype, columns: Sequence[Column], where: str
) -> NDArray[Any]:
    """Returns a tensor's data, flat or nested as its shape says, as a flat array.

    Args:
        data: JSON.
        shape: as the client declared it.
        given: the datatype that the client declared.
        wanted: the datatype of the array, one that ``given`` converts to.
        columns: of the table, which repeat along the elements; without any, none may be missing.
        where: what the data belongs to, for errors.

    Raises:
        InvalidRequestError: another number of elements than the shape has, another nesting, or a
            value that the datatype does not have.
    """
    try:
        values = _flat_decoders[given.element].decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        values = _flatten(decode_json(_any_decoder, data), shape, where)
        _check_count(values, shape, where)
        return values_array(values, given, wanted, columns, where)
    _check_count(values, shape, where)
    array = typed_array(values, given, wanted, where)
    if array is None:
        # What the typed decoder made a float may have been an integer that is none.
        return each_value(decode_json(_any_decoder, data), given, wanted, columns, where)
    return array


def encode_tensor(name: str, datatype: str, array: NDArray[Any]) -> bytes:
    """Returns a tensor as V2 JSON, its data flat; what is not finite becomes null."""
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


def _check_count(values: list[Any], shape: Sequence[int], where: str) -> None:
    wanted = math.prod(shape)
    if len(values) != wanted:
        raise InvalidRequestError(f"{where}: expected {wanted} elements for shape {shape}, got {len(values)}")


def _flatten(data: Any, shape: Sequence[int], where: str) -> list[Any]:
    """Returns nested data flat in row-major order, having checked every level against the shape."""
    if not isinstance(data, list):
        raise InvalidRequestError(f"{where}: expected data as an array, got {shown(data)}")
    if list not in set(map(type, data)):
        return data
    level = [data]
    for depth, size in enumerate(shape):
        for items in level:
            if not isinstance(items, list) or len(items) != size:
                got = len(items) if isinstance(items, list) else "a single value"
                raise InvalidRequestError(f"{where}: expected {size} elements at depth {depth}, got {got}")
        level = list(itertools.chain.from_iterable(level))
    if list in set(map(type, level)):
        raise InvalidRequestError(f"{where}: expected data nested {len(shape)} deep, got deeper")
    return level
