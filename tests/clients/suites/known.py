"""Inputs with the outputs that onnxruntime itself gave for them, and how close an answer must come."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, Any]

# A batch of another size, or JSON's digits, may round a float32 otherwise.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Known:
    """Tensors by name; those of strings hold ``str`` objects."""

    inputs: Arrays
    outputs: Arrays


def read_known(path: Path) -> Known:
    """Returns the tensors of a file whose members are named "inputs:NAME" and "outputs:NAME"."""
    with np.load(path) as members:
        arrays = {name: _with_objects(members[name]) for name in members.files}
    return Known(_of("inputs:", arrays), _of("outputs:", arrays))


def assert_same(expected: np.ndarray, got: np.ndarray) -> None:
    """Fails unless type, shape and values agree: floats to rounding, everything else exactly."""
    assert expected.shape == got.shape
    if expected.dtype == object:
        assert [_text(each) for each in expected.ravel()] == [_text(each) for each in got.ravel()]
        return
    assert expected.dtype == got.dtype
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE)
    else:
        np.testing.assert_array_equal(got, expected)


def _of(prefix: str, arrays: Arrays) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _with_objects(array: np.ndarray) -> np.ndarray:
    return array.astype(object) if array.dtype.kind == "U" else array


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
