"""The edges of a graph: inputs as clients send them, outputs as the manifest promises them.

skl2onnx writes the estimator's own graph, which wants floats and strings in the shape that the
estimator was fitted with. Around it go the nodes that make one bundle like every other: a matrix is
split into columns or columns are joined to a matrix, integers and booleans become floats, the empty
string becomes the estimator's own word for "missing", and the outputs get their names and types.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from server.contract.manifest import Signature, Tensor

_ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "INT64": TensorProto.INT64,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}
# LabelEncoder reads strings and writes integers since this version of ai.onnx.ml, and nothing else changed in it.
_LABEL_ENCODER = 2
_IR_VERSION = 10  # the newest that every onnxruntime we support reads


@dataclass(frozen=True, kw_only=True)
class InnerInput:
    """An input of the estimator's own graph and the columns it takes, in order.

    ``missing`` is the word with which the estimator's graph knows a missing string, if it has one.
    """

    name: str
    datatype: str
    columns: list[str]
    missing: str | None = None


def wrap_graph(inner: onnx.ModelProto, inputs: Sequence[InnerInput], signature: Signature) -> onnx.ModelProto:
    """Returns the estimator's graph with the inputs and outputs of the signature around it.

    Args:
        inner: the graph as skl2onnx wrote it, its outputs in the order of the signature's.
        inputs: what each of its inputs takes.
        signature: how the bundle shows itself.
    """
    # Renamed inside, so that a column may be called as any of the estimator's own tensors.
    taken = [tensor.name for tensor in (*signature.inputs, *signature.outputs)]
    inside, edge = _free_prefix("estimator/", taken), _free_prefix("edge/", taken)
    model = compose.add_prefix(inner, inside)
    inputs = [replace(entry, name=inside + entry.name) for entry in inputs]
    before, after = _Nodes(f"{edge}in"), _Nodes(f"{edge}out")
    if signature.layout == "matrix":
        _feed_from_matrix(before, signature, inputs)
    else:
        _feed_from_columns(before, signature, inputs)
    for outside, given in zip(signature.outputs, model.graph.output, strict=True):
        _answer(after, given.name, outside)
    graph = helper.make_graph(
        [*before.nodes, *model.graph.node, *after.nodes],
        "tiltyard",
        [_value_info(tensor) for tensor in signature.inputs],
        [_value_info(tensor) for tensor in signature.outputs],
        initializer=[*model.graph.initializer, *before.constants, *after.constants],
    )
    opsets: dict[str, int] = {}
    for entry in model.opset_import:
        opsets[entry.domain] = max(opsets.get(entry.domain, 1), entry.version)
    if any(node.op_type == "LabelEncoder" for node in before.nodes):
        opsets["ai.onnx.ml"] = max(opsets.get("ai.onnx.ml", 1), _LABEL_ENCODER)
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in sorted(opsets.items())],
        functions=list(model.functions),
        ir_version=min(model.ir_version, _IR_VERSION),
        producer_name="tiltyard",
    )


def _free_prefix(wanted: str, taken: Sequence[str]) -> str:
    while any(name.startswith(wanted) for name in taken):
        wanted = "_" + wanted
    return wanted


@dataclass
class _Nodes:
    """Nodes and constants being written; ``add`` returns the name of what a node gives."""

    name: str
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def add(self, op: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        output = output or f"{self.name}/{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(op, inputs, [output], name=f"{self.name}/{op}{len(self.nodes)}", **attributes)
        )
        return output

    def constant(self, values: Any, dtype: type) -> str:
        name = f"{self.name}/constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(values, dtype=dtype), name))
        return name


def _feed_from_columns(nodes: _Nodes, signature: Signature, inputs: Sequence[InnerInput]) -> None:
    datatypes = {column.name: column.datatype for column in signature.columns}
    for entry in inputs:
        parts = [_converted(nodes, name, datatypes[name], entry) for name in entry.columns]
        if len(parts) == 1:
            nodes.add("Identity", parts, entry.name)
        else:
            nodes.add("Concat", parts, entry.name, axis=1)


def _feed_from_matrix(nodes: _Nodes, signature: Signature, inputs: Sequence[InnerInput]) -> None:
    matrix, order = signature.inputs[0].name, [column.name for column in signature.columns]
    for entry in inputs:
        if entry.columns == order:
            nodes.add("Identity", [matrix], entry.name)
        else:
            places = nodes.constant([order.index(name) for name in entry.columns], np.int64)
            nodes.add("Gather", [matrix, places], entry.name, axis=1)


def _converted(nodes: _Nodes, name: str, datatype: str, entry: InnerInput) -> str:
    if datatype == "BYTES" and entry.missing is not None:
        gap = nodes.add(
            "LabelEncoder", [name], domain="ai.onnx.ml", keys_strings=[""], values_int64s=[1], default_int64=0
        )
        gap = nodes.add("Cast", [gap], to=TensorProto.BOOL)
        return nodes.add("Where", [gap, nodes.constant([entry.missing], np.object_), name])
    if datatype != entry.datatype:
        return nodes.add("Cast", [name], to=_ONNX_TYPES[entry.datatype])
    return name


def _answer(nodes: _Nodes, given: str, outside: Tensor) -> None:
    # Some converters answer floats where doubles were declared, and shape a single value differently.
    if outside.role == "label":
        nodes.add("Identity", [given], outside.name)
    elif outside.role == "probabilities":
        nodes.add("Cast", [given], outside.name, to=_ONNX_TYPES[outside.datatype])
    else:
        value = nodes.add("Cast", [given], to=_ONNX_TYPES[outside.datatype])
        nodes.add("Reshape", [value, nodes.constant(outside.shape, np.int64)], outside.name)


def _value_info(tensor: Tensor) -> Any:
    shape = ["rows" if size == -1 else size for size in tensor.shape]
    return helper.make_tensor_value_info(tensor.name, _ONNX_TYPES[tensor.datatype], shape)
