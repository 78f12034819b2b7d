"""The protocol's binary extension: bodies of JSON and raw tensors, elements from and to little-endian bytes."""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.errors import InvalidRequestError
from server.protocol.datatypes import Datatype

_LENGTH = struct.Struct("<I")


def split_body(body: bytes, header_length: int) -> tuple[bytes, memoryview]:
    """Returns a body's JSON and the bytes after it.

    Args:
        body: as it came.
        header_length: how many of its bytes are JSON.

    Raises:
        InvalidRequestError: the length is negative, or more than there is.
    """
    if not 0 <= header_length <= len(body):
        raise InvalidRequestError(
            f"Inference-Header-Content-Length: expected 0 to {len(body)}, the body's size, got {header_length}"
        )
    return body[:header_length], memoryview(body)[header_length:]


def from_bytes(data: memoryview, datatype: Datatype, count: int, where: str) -> NDArray[Any]:
    """Returns the elements in a tensor's bytes as a flat array, without a copy where they can be used as they are.

    Args:
        data: all of the tensor's bytes.
        datatype: of the elements.
        count: how many there must be.
        where: what they belong to, for errors.

    Raises:
        InvalidRequestError: another number of elements, a BOOL beyond 0 and 1, or BYTES that are no UTF-8.
    """
    if datatype.element is str:
        array = strings_from_bytes(data, where, count)
        if len(array) != count:
            raise InvalidRequestError(f"{where}: expected {count} elements in its bytes, got {len(array)}")
        return array
    size = count * datatype.dtype.itemsize
    if len(data) != size:
        raise InvalidRequestError(f"{where}: expected {size} bytes for {count} elements, got {len(data)}")
    if datatype.element is bool:
        octets = np.frombuffer(data, dtype=np.uint8)
        if octets.max(initial=0) > 1:
            place = int(np.argmax(octets > 1))
            raise InvalidRequestError(f"{where}: expected 0 or 1 at element {place}, got {octets[place]}")
        return octets.view(np.bool_)
    array = np.frombuffer(data, dtype=datatype.wire).astype(datatype.dtype, copy=False)
    # The JSON before a tensor has any length, so its numbers may start at any address.
    return array if array.flags.aligned else array.copy()


def strings_from_bytes(data: memoryview, where: str, most: int) -> NDArray[Any]:
    """Returns the strings in a tensor's bytes, each a length of 32 bits and so many bytes of UTF-8.

    Args:
        data: all of the tensor's bytes.
        where: what they belong to, for errors.
        most: how many strings there may be.

    Raises:
        InvalidRequestError: more strings, a length beyond the bytes there are, or no UTF-8.
    """
    values: list[str] = []
    start, size = 0, len(data)
    while start < size:
        if len(values) == most:
            raise InvalidRequestError(f"{where}: expected at most {most} elements in its bytes, got more")
        after_length = start + _LENGTH.size
        length = _LENGTH.unpack_from(data, start)[0] if after_length <= size else size
        if length > size - after_length:
            raise InvalidRequestError(
                f"{where}: expected element {len(values)} to end within its {size} bytes, got a length beyond them"
            )
        start = after_length + length
        try:
            values.append(str(data[after_length:start], "utf-8"))
        except UnicodeDecodeError as error:
            raise InvalidRequestError(
                f"{where}: expected UTF-8 at element {len(values)}, got bytes that are not: {error.reason}"
            ) from error
    return np.array(values, dtype=np.object_)


def to_bytes(array: NDArray[Any], datatype: Datatype) -> memoryview:
    """Returns an array's elements in row-major order as the extension has them, without a copy where possible."""
    if datatype.element is str:
        parts: list[bytes] = []
        for value in array.ravel().tolist():
            encoded = value.encode()
            parts += (_LENGTH.pack(len(encoded)), encoded)
        return memoryview(b"".join(parts))
    flat = np.ascontiguousarray(array, dtype=datatype.wire).reshape(-1)
    return flat.view(np.uint8).data
