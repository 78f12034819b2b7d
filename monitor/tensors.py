"""The V2 tensors of an answer, as the fold needs them: columns of inputs, predictions of outputs."""

import math
import struct
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from monitor.version_profile import VersionProfile

_BYTES = "BYTES"
_LENGTH = struct.Struct("<I")
_BITS = {"8": 1, "16": 2, "32": 4, "64": 8}
_PACKED = {
    "BOOL": np.dtype("?"),
    **{
        f"{name}{bits}": np.dtype(f"<{kind}{size}")
        for name, kind in (("UINT", "u"), ("INT", "i"))
        for bits, size in _BITS.items()
    },
    **{f"FP{bits}": np.dtype(f"<f{_BITS[bits]}") for bits in ("16", "32", "64")},
}


class TensorRecord(msgspec.Struct, gc=False):
    """A tensor in JSON: ``data`` is flat or nested, row-major, null where missing.

    One that came or left in binary has ``base64`` instead: its bytes, little-endian and row-major;
    strings are each a length of 32 bits and UTF-8.
    """

    name: str
    datatype: str
    data: list[Any] = []
    base64: bytes | None = None


_decoder = msgspec.json.Decoder(list[TensorRecord])


def _tensors(raw: bytes | memoryview) -> list[TensorRecord]:
    """Returns the tensors of an event, each with its data.

    Raises:
        ValueError: no tensors, msgspec.DecodeError included.
        RecursionError: data nested too deeply.
    """
    tensors = _decoder.decode(raw)
    for tensor in tensors:
        if tensor.base64 is not None:
            tensor.data = _unpacked(tensor.base64, tensor.datatype)
    return tensors


def _unpacked(packed: bytes, datatype: str) -> list[Any]:
    """Returns what a packed tensor holds as JSON would have it: flat, None for what is not finite."""
    if datatype == _BYTES:
        return _strings(packed)
    if datatype not in _PACKED:
        raise ValueError(f"expected a datatype of the protocol, got {datatype!r}")
    array = np.frombuffer(packed, dtype=_PACKED[datatype])
    values: list[Any] = array.tolist()
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return [value if math.isfinite(value) else None for value in values]
    return values


def _strings(data: bytes) -> list[str]:
    values = []
    start = 0
    while start < len(data):
        if start + _LENGTH.size > len(data):
            raise ValueError("expected a string's length of 4 bytes, got fewer")
        end = start + _LENGTH.size + _LENGTH.unpack_from(data, start)[0]
        if end > len(data):
            raise ValueError("expected a string within its tensor, got a length beyond it")
        values.append(data[start + _LENGTH.size : end].decode())
        start = end
    return values


class Predictions(NamedTuple):
    """What a version said of each row.

    ``predicted`` are places of classes, -1 where the answer names none; empty for a regression.
    ``numbers`` are the class probabilities row after row, or a regression's values; NaN where null.
    ``scores`` are as the baseline counts them. ``rows`` is 0 when the outputs needed are not there.
    """

    rows: int
    predicted: list[int]
    numbers: list[float]
    scores: list[float]


NO_PREDICTIONS = Predictions(0, [], [], [])


def input_columns(
    raw: bytes | memoryview, profile: VersionProfile, rows: int, hidden: Collection[str] = ()
) -> list[list[Any]] | None:
    """Returns the values of the signature's columns that are not hidden, in order, or None where inputs do not fit.

    Args:
        raw: a JSON array of V2 tensors.
        profile: the version that was asked.
        rows: how many rows the answer has.
        hidden: columns that the event does not tell; tensors of their names are passed over. With any, a matrix
            is told column by column.
    """
    try:
        tensors = _tensors(raw)
    except (ValueError, RecursionError):
        return None
    names, category_cells = profile.names, profile.category_cells
    if hidden:
        seen = [place for place, name in enumerate(names) if name not in hidden]
        names, category_cells = [names[place] for place in seen], [category_cells[place] for place in seen]
        tensors = [tensor for tensor in tensors if tensor.name not in hidden]
    elif profile.manifest.signature.layout == "matrix":
        return _matrix_columns(tensors, len(names), rows)
    if [tensor.name for tensor in tensors] != names:
        by_name = {tensor.name: tensor for tensor in tensors}
        if len(tensors) != len(names) or any(name not in by_name for name in names):
            return None
        tensors = [by_name[name] for name in names]
    columns = []
    for tensor, cells in zip(tensors, category_cells, strict=True):
        data = tensor.data
        if len(data) != rows or (data and type(data[0]) is list):
            data = flatten(data)
            if len(data) != rows:
                return None
        if (tensor.datatype == _BYTES) != (cells is not None):
            return None
        columns.append(data)
    return columns


def _matrix_columns(tensors: list[TensorRecord], width: int, rows: int) -> list[list[Any]] | None:
    if len(tensors) != 1:
        return None
    data = flatten(tensors[0].data)
    if len(data) != rows * width:
        return None
    return [data[place::width] for place in range(width)]


def flatten(data: list[Any]) -> list[Any]:
    """Returns nested data row-major and flat.

    >>> flatten([[1, 2], [3, None]])
    [1, 2, 3, None]
    """
    while any(type(item) is list for item in data):
        data = [value for item in data for value in (item if type(item) is list else [item])]
    return data


def predictions(raw: bytes | memoryview, profile: VersionProfile, rows: int) -> Predictions:
    """Returns what the outputs predict for each row; ``NO_PREDICTIONS`` where they do not fit the manifest.

    A client may ask for some outputs only: the predicted class is then the likeliest one, and
    probabilities that are not there are NaN.
    """
    try:
        outputs = {tensor.name: flatten(tensor.data) for tensor in _tensors(raw)}
        if profile.classes:
            return _class_predictions(outputs, profile, rows)
        values = _numbers(outputs.get(profile.value_output or "", []))
    except (RecursionError, TypeError, ValueError, OverflowError):
        return NO_PREDICTIONS
    return Predictions(rows, [], values, values) if rows and len(values) == rows else NO_PREDICTIONS


def _class_predictions(outputs: dict[str, list[Any]], profile: VersionProfile, rows: int) -> Predictions:
    classes = profile.classes
    labels = outputs.get(profile.label_output or "")
    chances = outputs.get(profile.probabilities_output or "")
    if not rows or (labels is None and chances is None):
        return NO_PREDICTIONS
    if any(values is not None and len(values) != rows * width for values, width in ((labels, 1), (chances, classes))):
        return NO_PREDICTIONS
    numbers = [math.nan] * (rows * classes) if chances is None else _numbers(chances)
    if classes == 2:
        scores = numbers[1::2]
    else:
        scores = [max(numbers[start : start + classes]) for start in range(0, rows * classes, classes)]
    if labels is not None:
        predicted = [profile.class_place(value) for value in labels]
    else:
        predicted = [_likeliest(numbers[start : start + classes]) for start in range(0, rows * classes, classes)]
    return Predictions(rows, predicted, numbers, scores)


def _likeliest(chances: Sequence[float]) -> int:
    return max(range(len(chances)), key=lambda place: (chances[place] == chances[place], chances[place]))


def _numbers(values: list[Any]) -> list[float]:
    return [math.nan if value is None else float(value) for value in values]
