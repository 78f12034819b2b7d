"""The protocol's datatypes, and what each is in numpy, in JSON and in ONNX."""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

# Arrays by tensor name: what a graph takes and gives.
Arrays = dict[str, NDArray[Any]]


class Datatype(msgspec.Struct, frozen=True):
    """One datatype: its name on the wire, its numpy dtype, its JSON element and onnxruntime's name."""

    name: str
    dtype: np.dtype[np.generic]
    element: type
    onnx: str


DATATYPES: Mapping[str, Datatype] = {
    name: Datatype(name, np.dtype(dtype), element, f"tensor({onnx})")
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
