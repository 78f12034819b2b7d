"""The inputs that an event keeps where some columns must not be read by those who read the log.

A redactor is made once for a version. It takes a request's inputs and gives them back without what the
hidden columns held; what is not hidden stays the bytes it came as. It works on the decoded arrays, so
a value is the same in JSON, in binary and in rows.
"""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from server.contract.manifest import Column, Signature
from server.protocol.datatypes import DATATYPES, Arrays
from server.protocol.json_codec import encode_tensor, join_array
from server.protocol.messages import EncodedTensor

How = Literal["mask", "hash", "drop"]

HASH_CHARACTERS = 16
"""Of a hash as it is logged, 4 bits each: among a million values two share one with probability 3e-8."""


class _Named(msgspec.Struct, frozen=True):
    """Of a tensor in JSON no more than its name."""

    name: str


_NAMES = {datatype.dtype: name for name, datatype in DATATYPES.items()}
_names_decoder = msgspec.json.Decoder(list[_Named])
_items_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Redactor:
    """What a version's events must not hold.

    ``columns`` says what becomes of each hidden column, ``key`` is that of the hashes. ``nullable`` are the
    columns of strings in which "" is a missing value.
    """

    columns: Mapping[str, How]
    key: bytes
    matrix: tuple[Column, ...]
    nullable: frozenset[str]

    def redact(self, inputs: msgspec.Raw, arrays: Arrays) -> msgspec.Raw:
        """Returns a JSON array of tensors without what the hidden columns hold.

        Args:
            inputs: a JSON array of V2 tensors, as the event would have it.
            arrays: what they were decoded into, by name.
        """
        if self.matrix:
            (array,) = arrays.values()
            items = []
            for place, column in enumerate(self.matrix):
                values = array[:, place : place + 1]
                how = self.columns.get(column.name)
                if how is None:
                    items.append(encode_tensor(column.name, column.datatype, values))
                elif how != "drop":
                    items.append(self._hidden(column.name, how, column.datatype, values))
            return join_array(items)
        items = []
        for named, item in zip(_names_decoder.decode(inputs), _items_decoder.decode(inputs), strict=True):
            how = self.columns.get(named.name)
            if how is None:
                items.append(bytes(item))
            elif how != "drop":
                array = arrays[named.name]
                items.append(self._hidden(named.name, how, _NAMES[array.dtype], array))
        return join_array(items)

    def _hidden(self, name: str, how: How, datatype: str, array: NDArray[Any]) -> bytes:
        data: list[str | None]
        if how == "mask":
            data = [None] * array.size
        else:
            datatype, data = "BYTES", self._hashes(name, array)
        return _encoder.encode(EncodedTensor(name=name, shape=array.shape, datatype=datatype, data=data))

    def _hashes(self, name: str, array: NDArray[Any]) -> list[str | None]:
        """Returns each value's hash, None where it is missing."""
        known: dict[str | None, str | None] = {None: None}
        if name in self.nullable:
            known[""] = None
        found = []
        for text in texts_of(array):
            if text not in known:
                known[text] = hash_of(text or "", self.key)
            found.append(known[text])
        return found


def redactor_of(model: str, signature: Signature, columns: Mapping[str, How], key: bytes) -> Redactor | None:
    """Returns what hides a version's columns, None where none is to be hidden.

    Args:
        model: its name.
        signature: of the version; a graph of tensors has its inputs for columns.
        columns: what becomes of a column, by ``column`` or ``model/column``, of which the latter wins.
        key: of the hashes; not used where nothing is hashed.
    """
    hidden: dict[str, How] = {}
    for name in column_names(signature):
        how = columns.get(f"{model}/{name}") or columns.get(name)
        if how is not None:
            hidden[name] = how
    if not hidden:
        return None
    return Redactor(
        columns=hidden,
        key=key,
        matrix=tuple(signature.columns) if signature.layout == "matrix" else (),
        nullable=frozenset(
            column.name for column in signature.columns if column.nullable and column.datatype == "BYTES"
        ),
    )


def column_names(signature: Signature) -> Sequence[str]:
    """Returns the names of what a version reads: the table's columns, or the inputs of a graph of tensors."""
    return [each.name for each in signature.columns or signature.inputs]


def texts_of(array: NDArray[Any]) -> list[str | None]:
    """Returns values as the hash takes them, the same whatever datatype they came in; None for NaN.

    A number is in the shortest decimal form that gives it back, a whole one without a point.

    >>> texts_of(np.array([3.0, 0.1, np.nan], dtype=np.float32)), texts_of(np.array([3])), texts_of(np.array([True]))
    (['3', '0.1', None], ['3'], ['true'])
    """
    flat = array.ravel()
    if flat.dtype.kind == "f":
        # numpy's own elements know how few digits their type needs; Python's floats are doubles.
        return [None if np.isnan(value) else str(int(value) if value.is_integer() else value) for value in flat]
    if flat.dtype.kind == "b":
        return ["true" if value else "false" for value in flat.tolist()]
    return [str(value) for value in flat.tolist()]


def hash_of(text: str, key: bytes) -> str:
    """Returns the first 16 hexadecimal digits of HMAC-SHA-256 of a value's text in UTF-8.

    >>> hash_of("N14228", b"sixteen bytes or more")
    '1dfc0de3d374bb39'
    """
    return hmac.digest(key, text.encode(), "sha256").hex()[:HASH_CHARACTERS]
