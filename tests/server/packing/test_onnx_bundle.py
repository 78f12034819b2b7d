import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from server.contract.manifest import Examples, Manifest, Tensor, decode_examples, decode_manifest
from server.execution.session import load_version
from server.packing.errors import ExamplesError, GraphError, PlacementError
from server.packing.onnx_bundle import pack_onnx
from server.packing.options import OnnxOptions
from server.protocol.json_codec import decode_request
from server.protocol.tensors import TensorLimits, decode_inputs, select_outputs
from tests.server.graphs import (
    ONNX_TYPES,
    graph,
    identity,
    image_classifier,
    node,
    saved,
    tensor,
    text_encoder,
)


def packed(model: onnx.ModelProto, folder: Path, **options: Any) -> Path:
    """Returns the folder of the bundle of a model, which lies in a file as from any exporter."""
    path = saved(model, folder / "exported.onnx")
    return pack_onnx(path, OnnxOptions(model="m", out=folder / "models", **options))


def contents(folder: Path) -> tuple[Manifest, Examples]:
    return (
        decode_manifest((folder / "bundle.json").read_bytes()),
        decode_examples((folder / "examples.json").read_bytes()),
    )


def test_an_image_classifier_is_packed_as_it_is(tmp_path: Path) -> None:
    """The graph is the file's own bytes, the signature is read from it, and there is no baseline."""
    folder = packed(image_classifier(), tmp_path)

    manifest, examples = contents(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "bundle.json", "examples.json", "model.onnx"]
    assert (folder / "model.onnx").read_bytes() == (tmp_path / "exported.onnx").read_bytes()
    assert (manifest.model, manifest.version, manifest.task, manifest.signature.layout) == (
        "m", "1", "tensors", "tensors",
    )  # fmt: skip
    assert manifest.estimator == "ONNX graph by exporter 2.1 (opset 17)"
    assert manifest.signature.inputs == [
        Tensor(name="image", datatype="FP32", shape=[-1, 3, -1, -1], symbols=["batch", "", "height", "width"])
    ]
    assert manifest.signature.outputs == [
        Tensor(name="probabilities", datatype="FP32", shape=[-1, 4], symbols=["batch", ""])
    ]
    assert (manifest.signature.columns, manifest.data, manifest.target, manifest.metrics) == ([], None, "", {})
    assert ([2, 3, 8, 8], [2, 4]) == (examples.inputs[0].shape, examples.outputs[0].shape)
    assert 1e-7 <= examples.tolerance <= 1e-4


def test_what_was_packed_takes_other_sizes_than_its_examples(tmp_path: Path) -> None:
    """The server loads it, and images of another number and size are answered; none are none."""
    version = load_version(packed(image_classifier(), tmp_path))

    five = version.run({"image": np.ones((5, 3, 20, 31), np.float32)})["probabilities"]
    none = version.run({"image": np.ones((0, 3, 20, 31), np.float32)})["probabilities"]

    assert ((5, 4), (0, 4)) == (five.shape, none.shape)
    assert five.sum(axis=1) == pytest.approx(np.ones(5), abs=1e-5)


def test_dimensions_of_one_name_have_one_size_in_the_examples(tmp_path: Path) -> None:
    """Two inputs share batch and sequence, the outputs keep their order, and the version runs."""
    folder = packed(text_encoder(), tmp_path)

    manifest, examples = contents(folder)
    assert [[2, 8], [2, 8]] == [one.shape for one in examples.inputs]
    assert ["batch", "sequence"] == manifest.signature.inputs[1].symbols
    assert [("embedding", [2, 5]), ("hidden", [2, 8, 5])] == [(one.name, one.shape) for one in examples.outputs]
    assert set(examples.inputs[0].data) == {0, 1}
    assert set(examples.inputs[1].data) == {False, True}
    assert load_version(folder).signature == manifest.signature


@pytest.mark.parametrize("shape", [[], [None, 3], [1], ["a", "b", "a", 2, None]])
@pytest.mark.parametrize("datatype", ONNX_TYPES)
def test_every_datatype_and_rank_is_packed_and_verified(tmp_path: Path, datatype: str, shape: Any) -> None:
    """From a scalar to five dimensions: what the examples say is what the loaded version answers."""
    folder = packed(identity(datatype, shape), tmp_path)

    manifest, examples = contents(folder)
    [given], [same] = manifest.signature.inputs, manifest.signature.outputs
    assert (given.datatype, given.shape) == (datatype, [size if type(size) is int else -1 for size in shape])
    assert (same.datatype, len(examples.outputs[0].shape)) == (datatype, len(shape))
    assert examples.inputs[0].data == examples.outputs[0].data
    load_version(folder)


def test_the_same_seed_makes_the_same_examples(tmp_path: Path) -> None:
    """And another seed others."""
    first, again = (packed(text_encoder(), tmp_path, version=version) for version in ("1", "2"))
    other = packed(text_encoder(), tmp_path, version="3", seed=5)

    assert (first / "examples.json").read_bytes() == (again / "examples.json").read_bytes()
    assert contents(first)[1].inputs != contents(other)[1].inputs


def test_a_classifier_of_skl2onnx_without_its_zipmap_is_a_graph_like_any_other(tmp_path: Path) -> None:
    """With the ZipMap the sentence says how to convert again."""
    rows = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    estimator = LogisticRegression().fit(rows, rows[:, 0] > 0)
    plain = to_onnx(estimator, rows[:1], options={"zipmap": False}, target_opset=17)
    mapped = to_onnx(estimator, rows[:1], target_opset=17)

    folder = packed(plain, tmp_path)
    with pytest.raises(GraphError, match=r"'output_probability': expected the type tensor, .* zipmap=False"):
        packed(mapped, tmp_path)

    outputs = load_version(folder).run({"X": rows})
    assert outputs["probabilities"] == pytest.approx(estimator.predict_proba(rows), abs=1e-5)


def test_an_initializer_among_the_inputs_is_no_input(tmp_path: Path) -> None:
    """Old exporters list the weights there."""
    model = graph(
        [node("Add", "x weight", "y")],
        [tensor("x", "FP32", ["n"]), tensor("weight", "FP32", [1])],
        [tensor("y", "FP32", ["n"])],
        weight=np.ones(1, np.float32),
    )

    manifest, _ = contents(packed(model, tmp_path))

    assert ["x"] == [one.name for one in manifest.signature.inputs]


def test_an_output_whose_shape_the_graph_leaves_open_is_inferred(tmp_path: Path) -> None:
    """ONNX's own shape inference says it."""
    model = graph([node("Relu", "x", "y")], [tensor("x", "FP32", ["n", 3])], [tensor("y", "FP32", None)])

    manifest, _ = contents(packed(model, tmp_path))

    assert [-1, 3] == manifest.signature.outputs[0].shape


def test_weights_in_files_beside_the_graph_are_embedded(tmp_path: Path) -> None:
    """A bundle is one graph, and answers without those files; one that is missing is named."""
    path = tmp_path / "exported.onnx"
    onnx.save_model(image_classifier(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)

    folder = pack_onnx(path, OnnxOptions(model="m", out=tmp_path / "models"))
    (tmp_path / "weights.bin").unlink()

    assert b"weights.bin" not in (folder / "model.onnx").read_bytes()
    load_version(folder)
    with pytest.raises(GraphError, match=r"its weights in files beside it cannot be read: .*weights\.bin"):
        pack_onnx(path, OnnxOptions(model="m", out=tmp_path / "models"))


def test_weights_outside_the_graphs_folder_are_not_read(tmp_path: Path) -> None:
    """Nor do more of them than a bundle can hold: that is known before one is read."""
    (tmp_path / "secret").write_bytes(bytes(648))
    (tmp_path / "inside").mkdir()
    path = tmp_path / "inside" / "exported.onnx"
    onnx.save_model(image_classifier(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    model = onnx.load_model(path, load_external_data=False)
    options = OnnxOptions(model="m", out=tmp_path / "models")

    _place(model)["location"].value = "../secret"
    with pytest.raises(GraphError, match="points outside"):
        pack_onnx(saved(model, path), options)
    _place(model)["length"].value = str(2**31)
    with pytest.raises(GraphError, match="expected a graph below 2 GiB with its weights"):
        pack_onnx(saved(model, path), options)


def _place(model: onnx.ModelProto) -> dict[str, Any]:
    return {entry.key: entry for entry in model.graph.initializer[0].external_data}


def sequence() -> onnx.ModelProto:
    made = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, ["n"])
    return graph([node("SequenceConstruct", "x", "y")], [tensor("x", "FP32", ["n"])], [made])


def of_type(elements: int) -> onnx.ModelProto:
    return graph(
        [node("Identity", "x", "y")],
        [helper.make_tensor_value_info("x", elements, ["n"])],
        [helper.make_tensor_value_info("y", elements, ["n"])],
    )


def custom() -> onnx.ModelProto:
    model = graph(
        [node("Whirl", "x", "y", domain="my.operators")], [tensor("x", "FP32", ["n"])], [tensor("y", "FP32", ["n"])]
    )
    model.opset_import.append(helper.make_opsetid("my.operators", 1))
    return model


def of_the_future(**numbers: int) -> onnx.ModelProto:
    model = identity("FP32", ["n"])
    model.ir_version = numbers.get("ir", model.ir_version)
    model.opset_import[0].version = numbers.get("opset", 17)
    return model


def optional() -> onnx.ModelProto:
    of_floats = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ["n"]))
    return graph(
        [node("OptionalGetElement", "x", "y")], [helper.make_value_info("x", of_floats)], [tensor("y", "FP32", ["n"])]
    )


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (sequence(), "output 'y': expected the type tensor, got sequence"),
        (optional(), "input 'x': expected the type tensor, got optional"),
        (of_type(TensorProto.BFLOAT16), "input 'x': expected elements of type BOOL, .*, got BFLOAT16"),
        (of_type(TensorProto.COMPLEX64), "input 'x': expected elements of type BOOL, .*, got COMPLEX64"),
        (identity("FP32", None), "input 'given': expected a shape with a known number of dimensions, got none"),
        (graph([node("Identity", "k", "y")], [], [tensor("y", "FP32", [1])], k=np.ones(1, np.float32)), "one input"),
        (custom(), r"onnxruntime [\d.]+ refuses the graph: .*my.operators:Whirl.* is not a registered function/op"),
        (of_the_future(ir=99), "expected a valid ONNX graph: .*ir_version 99 is higher"),
        (of_the_future(opset=99), r"onnxruntime [\d.]+ refuses the graph: .*Opset 99 is under development"),
        (graph([node("Relu", "gone", "y")], [tensor("x", "FP32", [1])], [tensor("y", "FP32", [1])]), "valid ONNX"),
    ],
)  # fmt: skip
def test_a_graph_that_no_server_could_serve_is_refused_in_a_sentence(
    tmp_path: Path, model: onnx.ModelProto, sentence: str
) -> None:
    """It names the input or output and its type, or gives the reason of those who would run it; nothing is written."""
    with pytest.raises(GraphError, match=sentence):
        packed(model, tmp_path)

    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("content", [b"not a graph", b"", image_classifier().SerializeToString()[:-9]])
def test_a_file_that_is_no_graph_is_refused(tmp_path: Path, content: bytes) -> None:
    """Another file, an empty one, or a copy that broke off."""
    path = tmp_path / "m.onnx"
    path.write_bytes(content)

    with pytest.raises(GraphError, match=r"m\.onnx: expected a"):
        pack_onnx(path, OnnxOptions(model="m", out=tmp_path / "models"))
    with pytest.raises(GraphError, match=r"cannot read .*: Is a directory"):
        pack_onnx(tmp_path, OnnxOptions(model="m", out=tmp_path / "models"))


def random_noise() -> onnx.ModelProto:
    return graph(
        [node("RandomNormalLike", "x", "noise"), node("Add", "x noise", "y"), node("Neg", "x", "z")],
        [tensor("x", "FP32", ["n"])],
        [tensor("z", "FP32", ["n"]), tensor("y", "FP32", ["n"])],
    )


def one_by_zero() -> onnx.ModelProto:
    return graph(
        [node("Sub", "x x", "zero"), node("Reciprocal", "zero", "y")],
        [tensor("x", "FP32", ["n"])],
        [tensor("y", "FP32", ["n"])],
    )


def wrong_shape() -> onnx.ModelProto:
    return graph([node("Neg", "x", "y")], [tensor("x", "FP32", ["n"])], [tensor("y", "FP32", ["n", 3])])


def in_pairs() -> onnx.ModelProto:
    """A graph that takes an even number only, and of 9 rows an odd one."""
    return graph(
        [node("Reshape", "x pairs", "y")],
        [tensor("x", "FP32", ["n", 3])],
        [tensor("y", "FP32", [-1, 9])],
        pairs=[-1, 9],
    )


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (random_noise(), "output 'y': expected the same answer to the same inputs, got different ones from run to run"),
        (one_by_zero(), "output 'y': expected finite numbers, got one that is not; .* --examples"),
        (wrong_shape(), r"output 'y': expected shape \[-1, 3\] as the graph states, got \[2\]"),
        (in_pairs(), r"fails on inputs of shapes {'x': \[2, 3\]}: its Reshape node says: .*; .* --examples"),
    ],
)
def test_a_graph_without_a_steady_answer_to_made_up_inputs_is_refused(
    tmp_path: Path, model: onnx.ModelProto, sentence: str
) -> None:
    """The sentence names the output, and says how to give inputs that suit the graph."""
    with pytest.raises(ExamplesError, match=sentence):
        packed(model, tmp_path)

    assert not (tmp_path / "models").exists()


def test_inputs_that_suit_the_graph_can_be_given_in_json_and_in_npz(tmp_path: Path) -> None:
    """Both are checked like a request, converted as one, and recorded as given."""
    numbers = np.arange(9.0).reshape(3, 3)
    request = {"inputs": [{"name": "x", "shape": [3, 3], "datatype": "FP64", "data": numbers.tolist()}]}
    (tmp_path / "given.json").write_text(json.dumps(request))
    np.savez(tmp_path / "given.npz", x=numbers)
    (tmp_path / "given.NPZ").write_bytes((tmp_path / "given.npz").read_bytes())

    for name in ("given.json", "given.npz", "given.NPZ"):
        folder = packed(in_pairs(), tmp_path, examples=tmp_path / name)

        _, examples = contents(folder)
        assert ([3, 3], "FP32", numbers.ravel().tolist()) == (
            examples.inputs[0].shape, examples.inputs[0].datatype, examples.inputs[0].data,
        )  # fmt: skip
        load_version(folder)


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("INT64", np.array([2**63 - 1, -(2**63), 2**53 + 1])),
        ("UINT64", np.array([2**64 - 1, 0, 2**53 + 1], dtype=np.uint64)),
        ("FP16", np.array([65504, 6e-8, -0.333], dtype=np.float16)),
        ("FP64", np.array([1.7976931348623157e308, 5e-324, 0.1])),
        ("FP32", np.array([3.4028235e38, 1e-45, 0.1], dtype=np.float32)),
        ("INT64", np.array([2**63 - 1, -(2**63), 1], dtype=">i8")),
        ("FP32", np.array([3.4028235e38, 1e-45, 0.1], dtype=">f4")),
        ("BOOL", np.array([True, False, True])),
        ("BYTES", np.array(["", "Ærø", "a\u0000b\n\"'"])),
    ],
)
def test_extreme_values_survive_examples_json_to_the_last_bit(tmp_path: Path, datatype: str, values: Any) -> None:
    """No integer becomes a float on the way, no string loses a character, and the order of bytes does not matter."""
    np.savez(tmp_path / "given.npz", given=values)

    folder = packed(identity(datatype, ["n"]), tmp_path, examples=tmp_path / "given.npz")

    _, examples = contents(folder)
    assert values.tolist() == examples.inputs[0].data == examples.outputs[0].data
    load_version(folder)


def given_request(**changes: Any) -> bytes:
    one = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3], **changes}
    return json.dumps({"inputs": [one]}).encode()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("e.json", b"{", r"e\.json: expected JSON"),
        ("e.json", given_request(name="z"), r"e\.json: input 'x' is missing"),
        ("e.json", given_request(shape=[3]), r"e\.json: input 'x': expected shape \[-1, 3\], got \[3\]"),
        ("e.json", given_request(data=[1, None, 3]), r"e\.json: input 'x': expected a value at element 1, got null"),
        (
            "e.json",
            given_request(),
            r"the graph fails on inputs of shapes {'x': \[1, 3\]}: its Reshape node says: [^;]*$",
        ),
        ("e.npz", b"{", r"e\.npz: expected arrays of numbers"),
        ("gone.npz", None, r"cannot read .*gone\.npz: No such file"),
        ("gone.json", None, r"cannot read .*gone\.json: No such file"),
    ],
)
def test_inputs_that_do_not_fit_the_graph_are_refused(
    tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    """By the sentence that a request would get, with the file's name."""
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(ExamplesError, match=sentence):
        packed(in_pairs(), tmp_path, examples=tmp_path / name)


@pytest.mark.parametrize("value", [np.array([[{}]]), np.array(["2020"], dtype="datetime64[Y]")])
def test_an_npz_of_objects_or_times_is_refused(tmp_path: Path, value: Any) -> None:
    """Objects are pickles, which run code when they are read."""
    np.savez(tmp_path / "e.npz", x=value)

    with pytest.raises(ExamplesError, match=r"e\.npz: .*expected .*numbers, booleans or strings"):
        packed(in_pairs(), tmp_path, examples=tmp_path / "e.npz")


def test_a_version_that_exists_is_left_alone(tmp_path: Path) -> None:
    """As with estimators: bundles never change."""
    packed(identity("FP32", ["n"]), tmp_path)

    with pytest.raises(PlacementError, match="exists already"):
        packed(identity("FP32", ["n"]), tmp_path, version="1")
    assert packed(identity("FP32", ["n"]), tmp_path).name == "2"


@pytest.mark.parametrize(
    "model", [text_encoder(), identity("FP16", ["n", 2]), identity("BYTES", []), image_classifier()], ids=str
)
def test_the_call_on_the_card_is_a_valid_request(tmp_path: Path, model: onnx.ModelProto) -> None:
    """Small inputs stand in it; of large ones examples.json is the request."""
    folder = packed(model, tmp_path)
    manifest, _ = contents(folder)

    [call] = [line for line in (folder / "README.md").read_text().splitlines() if line.startswith("curl ")]

    url, _, body = call.removeprefix("curl ").partition(" -d ")
    assert url == "http://localhost:8080/v2/models/m/versions/1/infer"
    sent = (folder / body[1:]).read_bytes() if body[0] == "@" else body.split("'")[1].encode()
    request = decode_request(sent, 64)
    decode_inputs(request.inputs, None, manifest.signature, TensorLimits(10_000, 10_000, 64))
    assert [one.name for one in manifest.signature.outputs] == [
        one.name for one in select_outputs(request, manifest.signature)
    ]


def test_the_card_has_a_table_of_inputs_and_outputs(tmp_path: Path) -> None:
    """With the graph's own names of its dimensions, and a word on what is not known."""
    card = (packed(text_encoder(), tmp_path) / "README.md").read_text()

    assert "| `mask` | BOOL | [batch, sequence] |" in card
    assert "| `embedding` | FP32 | [batch, 5] |" in card
    assert "the monitor does not watch this version" in card


def test_large_halves_have_no_call_that_json_could_not_make(tmp_path: Path) -> None:
    """FP16 travels in binary, and the card says so."""
    card = (packed(identity("FP16", ["n", 80]), tmp_path) / "README.md").read_text()

    assert "curl" not in card
    assert "sends binary tensors, at `http://localhost:8080/v2/models/m/versions/1/infer`" in card
