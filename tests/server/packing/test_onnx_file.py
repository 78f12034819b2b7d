"""Graphs read from files: their size with the weights beside them, their shapes, and who made them."""

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from server.packing import onnx_file
from server.packing.errors import GraphError
from server.packing.onnx_file import describe_graph, read_graph
from tests.server.graphs import graph, image_classifier, node, saved, tensor


def with_weights_beside(path: Path) -> onnx.ModelProto:
    """Returns the classifier as it is in a file now, its weights in ``weights.bin`` beside it."""
    onnx.save_model(image_classifier(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return onnx.load_model(path, load_external_data=False)


def places(model: onnx.ModelProto) -> list[dict[str, Any]]:
    """Returns where each weight lies, entry by key."""
    return [{entry.key: entry for entry in weight.external_data} for weight in model.graph.initializer]


def test_a_graph_may_be_as_large_as_protobuf_can_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit it is read; a byte beyond it is refused."""
    path = saved(image_classifier(), tmp_path / "m.onnx")
    monkeypatch.setattr(onnx_file, "_MAX_BYTES", path.stat().st_size)
    _, content = read_graph(path)
    monkeypatch.setattr(onnx_file, "_MAX_BYTES", path.stat().st_size - 1)

    assert content == path.read_bytes()
    with pytest.raises(GraphError, match=r"m\.onnx: expected a graph below 2 GiB with its weights, got a larger one"):
        read_graph(path)


@pytest.mark.parametrize("told", ["length", "size"])
def test_weights_beside_the_graph_count_as_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    """By the length that the graph gives, or without one by the size of the file."""
    path = tmp_path / "m.onnx"
    model = with_weights_beside(path)
    weights_bytes = sum(int(place["length"].value) for place in places(model))
    if told == "size":
        del model.graph.initializer[1:]
        model.graph.initializer[0].external_data.remove(places(model)[0]["length"])
        weights_bytes = (tmp_path / "weights.bin").stat().st_size
    size_bytes = saved(model, path).stat().st_size
    monkeypatch.setattr(onnx_file, "_MAX_BYTES", size_bytes + weights_bytes)
    _, content = read_graph(path)
    monkeypatch.setattr(onnx_file, "_MAX_BYTES", size_bytes + weights_bytes - 1)

    assert b"weights.bin" not in content
    with pytest.raises(GraphError, match="expected a graph below 2 GiB with its weights"):
        read_graph(path)


def test_weights_at_a_place_that_is_no_number_are_refused(tmp_path: Path) -> None:
    """The sentence names the file."""
    path = tmp_path / "m.onnx"
    model = with_weights_beside(path)
    places(model)[0]["offset"].value = "here"

    with pytest.raises(GraphError, match=r"m\.onnx: its weights in files beside it cannot be embedded: "):
        read_graph(saved(model, path))


def test_one_output_without_a_shape_is_enough_to_infer_it(tmp_path: Path) -> None:
    """The other has one already, and keeps it."""
    model = graph(
        [node("Relu", "x", "y"), node("Neg", "x", "z")],
        [tensor("x", "FP32", ["n", 3])],
        [tensor("y", "FP32", ["m", 3]), tensor("z", "FP32", None)],
    )

    read, _ = read_graph(saved(model, tmp_path / "m.onnx"))

    shapes = [[dim.dim_param or dim.dim_value for dim in out.type.tensor_type.shape.dim] for out in read.graph.output]
    assert shapes == [["m", 3], ["n", 3]]


def test_shapes_that_cannot_be_inferred_stay_open(tmp_path: Path) -> None:
    """Here because no opset says what the node means, which is for the graph's check to complain of."""
    model = graph([node("Relu", "x", "y")], [tensor("x", "FP32", ["n", 3])], [tensor("y", "FP32", None)])
    del model.opset_import[:]

    read, _ = read_graph(saved(model, tmp_path / "m.onnx"))

    assert not read.graph.output[0].type.tensor_type.HasField("shape")


def test_a_graph_is_described_by_its_maker_and_its_dialects() -> None:
    """ONNX's own first, the others by name; blanks in a name are one."""
    model = graph([node("Relu", "x", "y")], [tensor("x", "FP32", ["n"])], [tensor("y", "FP32", ["n"])])
    model.producer_name, model.producer_version = " some  exporter", ""
    for domain, version in (("com.microsoft", 1), ("ai.onnx.ml", 3)):
        model.opset_import.append(helper.make_opsetid(domain, version))
    named = describe_graph(model)
    model.producer_name = ""
    del model.opset_import[0]

    assert named == "ONNX graph by some exporter (opset 17, ai.onnx.ml 3, com.microsoft 1)"
    assert describe_graph(model) == "ONNX graph (ai.onnx.ml 3, com.microsoft 1)"
