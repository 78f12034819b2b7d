from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from server.execution.refusals import input_refusal, reason_of
from tests.server.graphs import graph, node, tensor

FLOATS = ["n", "k"]


def refused(model: onnx.ModelProto, arrays: dict[str, Any]) -> Exception:
    """Returns what onnxruntime raises when it runs a model on inputs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    with pytest.raises(Exception) as caught:  # onnxruntime's errors share no class but this
        session.run(None, arrays)
    return caught.value


def one(operator: str, **attributes: Any) -> onnx.ModelProto:
    """Returns a graph of one node of two matrices."""
    return graph(
        [node(operator, "a b", "y", **attributes)],
        [tensor("a", "FP32", ["n", "k"]), tensor("b", "FP32", ["p", "q"])],
        [tensor("y", "FP32", ["r", "s"])],
    )


def lookup() -> onnx.ModelProto:
    return graph(
        [node("Gather", "table place", "y", name="look_up")],
        [tensor("place", "INT64", ["n"])],
        [tensor("y", "FP32", ["n"])],
        table=np.ones(4, np.float32),
    )


MATRICES = {"a": np.ones((2, 3), np.float32), "b": np.ones((4, 5), np.float32)}
SHAPES = "expected inputs that fit the graph, got shapes 'a' [2, 3], 'b' [4, 5], which its"


@pytest.mark.parametrize(
    ("model", "arrays", "sentence"),
    [
        (one("MatMul"), MATRICES, f"{SHAPES} MatMul node refuses: Compute MatMul dimension mismatch"),
        (one("Gemm"), MATRICES, f"{SHAPES} Gemm node refuses: GEMM: Dimension mismatch, W"),
        (one("Add"), MATRICES, f"{SHAPES} Add node refuses"),
        (
            lookup(),
            {"place": np.array([987654])},
            "expected inputs that fit the graph, got shapes 'place' [1], which its Gather node 'look_up' refuses: "
            "indices element out of data bounds",
        ),
    ],
)
def test_inputs_that_a_graph_refuses_are_told_by_shapes_and_node(
    model: onnx.ModelProto, arrays: dict[str, Any], sentence: str
) -> None:
    """The node's own words end before the first value: a payload is never echoed, nor a place in a source."""
    assert sentence == input_refusal(refused(model, arrays), arrays)


def test_of_strings_a_nodes_words_are_left_out() -> None:
    """A string among them could not be told from the node's own."""
    model = graph(
        [node("Concat", "a b", "y", axis=0)],
        [tensor("a", "BYTES", ["n", "k"]), tensor("b", "BYTES", ["p", "q"])],
        [tensor("y", "BYTES", ["r", "s"])],
    )
    arrays = {"a": np.full((1, 2), "one", object), "b": np.full((1, 3), "two", object)}

    sentence = "expected inputs that fit the graph, got shapes 'a' [1, 2], 'b' [1, 3], which its Concat node refuses"
    assert sentence == input_refusal(refused(model, arrays), arrays)


def test_memory_that_is_not_there_and_a_graphs_own_exceptions_are_not_the_inputs_fault() -> None:
    """The first is the server's, of the second nothing is known."""
    large = graph(
        [node("Expand", "one size", "y")],
        [tensor("size", "INT64", [1])],
        [tensor("y", "FP32", ["n"])],
        one=[np.float32(1)],
    )
    read = graph(
        [node("Cast", "s", "y", to=TensorProto.FLOAT)], [tensor("s", "BYTES", ["n"])], [tensor("y", "FP32", ["n"])]
    )
    size, words = {"size": np.array([10**13])}, {"s": np.array(["ten"], object)}

    assert input_refusal(refused(large, size), size) is None
    assert input_refusal(refused(read, words), words) is None
    assert input_refusal(ValueError("no such input"), {}) is None


def test_a_reason_has_neither_code_nor_place_in_a_source() -> None:
    """It is for whoever packs, on the machine whose data it is: the values stay."""
    error = refused(lookup(), {"place": np.array([9])})
    reshaped = graph(
        [node("Reshape", "a shape", "y")], [tensor("a", "FP32", FLOATS)], [tensor("y", "FP32", [-1, 6])], shape=[-1, 6]
    )

    assert reason_of(error).startswith("its Gather node 'look_up' says: indices element out of data bounds, idx=9 must")
    said = "its Reshape node says: The input tensor cannot be reshaped to the requested shape. Input shape:{2,3}"
    assert reason_of(refused(reshaped, {"a": MATRICES["a"][:, :2]})).startswith(said.replace("{2,3}", "{2,2}"))
