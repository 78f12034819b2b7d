"""What a graph takes and gives, as its signature has it."""

from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from server.contract.manifest import Tensor
from server.packing.graph_signature import graph_signature
from tests.server.graphs import graph, identity, node, tensor


@pytest.mark.parametrize(
    ("shape", "expected", "symbols"),
    [
        ([2, 3], [2, 3], []),
        ([-2, 3], [-1, 3], []),
        ([None, 3], [-1, 3], []),
        ([0], [0], []),
        (["n", 3, None], [-1, 3, -1], ["n", "", ""]),
        ([], [], []),
    ],
)
def test_a_dimension_is_fixed_or_free(shape: Any, expected: list[int], symbols: list[str]) -> None:
    """A negative one, as some exporters write it, is free; one of 0 is not; only names are symbols."""
    signature = graph_signature(identity("FP32", shape))

    assert signature.inputs == [Tensor(name="given", datatype="FP32", shape=expected, symbols=symbols)]


def test_a_sparse_constant_among_the_inputs_is_no_input() -> None:
    """As a dense one is none."""
    model = graph(
        [node("Add", "x weight", "y")],
        [tensor("x", "FP32", [3]), tensor("weight", "FP32", [3])],
        [tensor("y", "FP32", [3])],
    )
    values = numpy_helper.from_array(np.ones(1, np.float32), "weight")
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([1]), "places"), [3])
    )

    assert ["x"] == [one.name for one in graph_signature(model).inputs]
