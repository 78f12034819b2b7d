"""The protocol's datatypes, and what each is in numpy, in JSON, on the wire and in ONNX."""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

# Arrays by tensor name: what a graph takes and gives.
Arrays = dict[str, NDArray[Any]]


class Datatype(msgspec.Struct, frozen=True):
    """One datatype: its name on the wire, its numpy dtype, its JSON element and onnxruntime's name.

    ``least`` and ``greatest`` are a number type's bounds; ``exact`` is, of a float type, the number up to
    which it holds every integer.
    """

    name: str
    dtype: np.dtype[np.generic]
    element: type
    onnx: str
    least: float = 0
    greatest: float = 0
    exact: int = 0

    @property
    def wire(self) -> np.dtype[np.generic]:
        """The dtype of the binary extension, whose numbers are little-endian on every machine."""
        return self.dtype.newbyteorder("<")


def _datatype(name: str, dtype: Any, element: type, onnx: str) -> Datatype:
    bounds: tuple[float, ...] = ()
    if element is int:
        bounds = (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    elif element is float:
        limits = np.finfo(dtype)
        bounds = (float(limits.min), float(limits.max), 2 ** (limits.nmant + 1))
    return Datatype(name, np.dtype(dtype), element, f"tensor({onnx})", *bounds)  # type: ignore[arg-type]  # exact is an int


DATATYPES: Mapping[str, Datatype] = {
    name: _datatype(name, dtype, element, onnx)
    for name, dtype, element, onnx in (
        ("BOOL", np.bool_, bool, "bool"),
        ("UINT8", np.uint8, int, "uint8"),
        ("UINT16", np.uint16, int, "uint16"),
        ("UINT32", np.uint32, int, "uint32"),
        ("UINT64", np.uint64, int, "uint64"),
        ("INT8", np.int8, int, "int8"),
        ("INT16", np.int16, int, "int16"),
        ("INT32", np.int32, int, "int32"),
        ("INT64", np.int64, int, "int64"),
        ("FP16", np.float16, float, "float16"),
        ("FP32", np.float32, float, "float"),
        ("FP64", np.float64, float, "double"),
        ("BYTES", np.object_, str, "string"),
    )
}

BY_ONNX: Mapping[str, Datatype] = {datatype.onnx: datatype for datatype in DATATYPES.values()}


def converts(given: str, wanted: str) -> bool:
    """Says whether a tensor of one datatype may become one of another: integers numbers, floats floats."""
    if given == wanted:
        return True
    if given not in DATATYPES:
        return False
    element = DATATYPES[wanted].element
    return element in (int, float) and DATATYPES[given].element in (int, element)
