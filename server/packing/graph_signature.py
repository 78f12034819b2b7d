"""What a graph takes and gives, read from the graph itself."""

from typing import Any

import onnx
from onnx import TensorProto

from server.contract.manifest import Signature, Tensor
from server.packing.errors import GraphError

_DATATYPES = {
    TensorProto.BOOL: "BOOL",
    TensorProto.UINT8: "UINT8",
    TensorProto.UINT16: "UINT16",
    TensorProto.UINT32: "UINT32",
    TensorProto.UINT64: "UINT64",
    TensorProto.INT8: "INT8",
    TensorProto.INT16: "INT16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.FLOAT16: "FP16",
    TensorProto.FLOAT: "FP32",
    TensorProto.DOUBLE: "FP64",
    TensorProto.STRING: "BYTES",
}


def graph_signature(model: onnx.ModelProto) -> Signature:
    """Returns the signature of a graph, of layout ``tensors``.

    An input that has an initializer is one only to whoever would override it, and is left out.

    Raises:
        GraphError: an input or output that is no tensor, or of a type or rank that no request
            could have; or a graph without inputs.
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {tensor.values.name for tensor in graph.sparse_initializer}
    inputs = [_tensor("input", entry, model) for entry in graph.input if entry.name not in constants]
    if not inputs:
        raise GraphError("expected a graph with at least one input, got one that always answers the same")
    outputs = [_tensor("output", entry, model) for entry in graph.output]
    return Signature(layout="tensors", inputs=inputs, outputs=outputs)


def _tensor(kind: str, entry: Any, model: onnx.ModelProto) -> Tensor:
    where = f"{kind} {entry.name!r}"
    made = entry.type.WhichOneof("value")
    if made != "tensor_type":
        got = made.removesuffix("_type").replace("_", " ") if made else "none"
        raise GraphError(f"{where}: expected the type tensor, got {got}{_advice(model)}")
    tensor = entry.type.tensor_type
    if tensor.elem_type not in _DATATYPES:
        got = TensorProto.DataType.Name(tensor.elem_type)
        raise GraphError(f"{where}: expected elements of type {', '.join(_DATATYPES.values())}, got {got}")
    if not tensor.HasField("shape"):
        raise GraphError(f"{where}: expected a shape with a known number of dimensions, got none in the graph")
    shape = [_size(dimension) for dimension in tensor.shape.dim]
    symbols = [dimension.dim_param for dimension in tensor.shape.dim]
    return Tensor(
        name=entry.name,
        datatype=_DATATYPES[tensor.elem_type],
        shape=shape,
        symbols=symbols if any(symbols) else [],
    )


def _size(dimension: Any) -> int:
    # Some exporters write a free dimension as a negative one.
    fixed = dimension.WhichOneof("value") == "dim_value" and dimension.dim_value >= 0
    return int(dimension.dim_value) if fixed else -1


def _advice(model: onnx.ModelProto) -> str:
    if any(node.op_type == "ZipMap" for node in model.graph.node):
        return "; convert the estimator again with zipmap=False among the converter's options"
    return ""
