"""ONNX graphs beyond tables, and what onnxruntime answers for chosen inputs of a bundle."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

# Every datatype of the protocol: its name there, ONNX's, and values at its edges.
DATATYPES: dict[str, tuple[int, Any]] = {
    "BOOL": (TensorProto.BOOL, np.array([[True, False, True]])),
    "UINT8": (TensorProto.UINT8, np.array([[0, 1, 2**8 - 1]], np.uint8)),
    "UINT16": (TensorProto.UINT16, np.array([[0, 1, 2**16 - 1]], np.uint16)),
    "UINT32": (TensorProto.UINT32, np.array([[0, 1, 2**32 - 1]], np.uint32)),
    "UINT64": (TensorProto.UINT64, np.array([[0, 1, 2**64 - 1]], np.uint64)),
    "INT8": (TensorProto.INT8, np.array([[-(2**7), -1, 2**7 - 1]], np.int8)),
    "INT16": (TensorProto.INT16, np.array([[-(2**15), -1, 2**15 - 1]], np.int16)),
    "INT32": (TensorProto.INT32, np.array([[-(2**31), -1, 2**31 - 1]], np.int32)),
    "INT64": (TensorProto.INT64, np.array([[-(2**63), -1, 2**63 - 1]], np.int64)),
    "FP16": (TensorProto.FLOAT16, np.array([[-1.5, 6e-8, 65504]], np.float16)),
    "FP32": (TensorProto.FLOAT, np.array([[-1.5, 1e-45, 3.4028235e38]], np.float32)),
    "FP64": (TensorProto.DOUBLE, np.array([[-0.1, 5e-324, 1.7976931348623157e308]], np.float64)),
    "BYTES": (TensorProto.STRING, np.array([["", "Zürich", '"quoted"\n']], object)),
}


def write_echo(path: Path, datatypes: Iterable[str]) -> None:
    """Writes a graph that gives back a matrix of each datatype: `fp32` as `fp32_out`."""
    named = {datatype.lower(): DATATYPES[datatype][0] for datatype in datatypes}
    sizes = ["rows", "columns"]
    _write(
        path,
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in named],
        [helper.make_tensor_value_info(name, kind, sizes) for name, kind in named.items()],
        [helper.make_tensor_value_info(f"{name}_out", kind, sizes) for name, kind in named.items()],
    )


def write_image(path: Path) -> None:
    """Writes a graph over images (n, height, width, 3): the mean of each colour, weighted, and the planes alone."""
    _write(
        path,
        [
            helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("ReduceMean", ["planes"], ["means"], axes=[2, 3], keepdims=0),
            helper.make_node("Mul", ["means", "weights"], ["colours"]),
        ],
        [
            helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", "height", "width", 3]),
            helper.make_tensor_value_info("weights", TensorProto.FLOAT, [3]),
        ],
        [
            helper.make_tensor_value_info("colours", TensorProto.FLOAT, ["n", 3]),
            helper.make_tensor_value_info("planes", TensorProto.FLOAT, ["n", 3, "height", "width"]),
        ],
    )


def write_known(path: Path, bundle: Path, inputs: dict[str, Any]) -> None:
    """Writes inputs and what onnxruntime itself answers for them, as suites/known.py reads them."""
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, inputs), strict=True))
    members = {f"inputs:{name}": array for name, array in inputs.items()}
    members |= {f"outputs:{name}": array for name, array in outputs.items()}
    # Without pickle, which no suite should have to trust, numpy keeps strings at a fixed width.
    np.savez(path, **{name: array.astype("U") if array.dtype == object else array for name, array in members.items()})


def _write(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any]) -> None:
    graph = helper.make_graph(nodes, path.stem, inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
