"""Graphs of doubles: the two operators that onnxruntime or skl2onnx leave in floats.

- ``Imputer`` runs on doubles in no onnxruntime: it becomes ``IsNaN`` and ``Where``.
- Tree ensembles compare with thresholds that skl2onnx writes as floats. A double that equals its
  threshold may differ from the rounded one, so trees are given the value rounded in the same way.
"""

import math
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_TREES = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")


def rewrite_doubles(model: onnx.ModelProto) -> None:
    """Rewrites in place the nodes that could not take doubles, or would take them wrongly."""
    nodes: list[Any] = []
    for place, node in enumerate(model.graph.node):
        if node.op_type == "Imputer":
            nodes += _imputer(model, node, f"double{place}")
        elif node.op_type in _TREES:
            rounded = f"double{place}/rounded"
            nodes.append(helper.make_node("Cast", [node.input[0]], [rounded], to=TensorProto.FLOAT))
            node.input[0] = rounded
            nodes.append(node)
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _imputer(model: onnx.ModelProto, node: Any, name: str) -> list[Any]:
    attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    if "imputed_value_floats" not in attributes or not math.isnan(attributes.get("replaced_value_float", math.nan)):
        return [node]  # of integers, or of a number that stands for missing: onnxruntime says what it makes of it
    fill = np.array([attributes["imputed_value_floats"]], dtype=np.float64)
    model.graph.initializer.append(numpy_helper.from_array(fill, f"{name}/fill"))
    return [
        helper.make_node("IsNaN", [node.input[0]], [f"{name}/gap"]),
        helper.make_node("Where", [f"{name}/gap", f"{name}/fill", node.input[0]], [node.output[0]]),
    ]
