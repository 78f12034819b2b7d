import gc
import hashlib
import shutil
import weakref
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest

from server.errors import BundleError, ExecutionError, InvalidRequestError
from server.execution.session import Version, load_version
from server.packing.onnx_bundle import pack_onnx
from server.packing.options import OnnxOptions
from server.protocol.datatypes import DATATYPES
from tests.server.failing_graph import replace_files
from tests.server.graphs import ONNX_TYPES, graph, identity, node, saved, tensor, text_encoder


def pack(model: onnx.ModelProto, folder: Path) -> Path:
    return pack_onnx(saved(model, folder / "m.onnx"), OnnxOptions(model="m", out=folder / "models"))


def loaded(model: onnx.ModelProto, folder: Path) -> Version:
    return load_version(pack(model, folder))


VALUES = {"BYTES": ["", "Ærø", "x"] * 10, "BOOL": [True, False, False] * 10}


@pytest.mark.parametrize("shape", [[], [3], [0], [5, 0], [1, 5, 3], [1, 2, 1, 5, 3]])
@pytest.mark.parametrize("datatype", ONNX_TYPES)
def test_every_datatype_and_rank_runs(tmp_path: Path, datatype: str, shape: list[int]) -> None:
    """Scalars and tensors without elements included: an array of the signature's dtype comes out as it went in."""
    version = loaded(identity(datatype, [None] * len(shape)), tmp_path)
    dtype = DATATYPES[datatype].dtype
    values = np.array(VALUES.get(datatype, list(range(30))), dtype=dtype)
    given = values[: int(np.prod(shape))].reshape(shape)

    same = version.run({"given": given})["same"]

    assert (dtype, tuple(shape), given.tolist()) == (same.dtype, same.shape, same.tolist())


def test_several_outputs_come_by_name_in_the_signatures_order(tmp_path: Path) -> None:
    """Two inputs of common sizes that differ from request to request."""
    version = loaded(text_encoder(), tmp_path)

    outputs = version.run({"mask": np.ones((3, 11), np.bool_), "ids": np.full((3, 11), 4)})

    assert [("embedding", (3, 5)), ("hidden", (3, 11, 5))] == [(name, one.shape) for name, one in outputs.items()]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"ids": np.full((2, 3), 4321)}, r"'mask' \[2, 3\], which its Gather node 'look_up' refuses: indices element"),
        ({"mask": np.ones((2, 4), np.bool_)}, r"'mask' \[2, 4\], which its Mul node refuses$"),
    ],
)
def test_tensors_that_the_graph_cannot_take_are_the_clients_fault(
    tmp_path: Path, changed: dict[str, Any], sentence: str
) -> None:
    """No signature tells every size and every index in advance; the answer is a sentence without the values."""
    version = loaded(text_encoder(), tmp_path)
    good = {"ids": np.full((2, 3), 4), "mask": np.ones((2, 3), np.bool_)}

    with pytest.raises(InvalidRequestError, match=sentence) as caught:
        version.run({**good, **changed})

    assert "4321" not in str(caught.value)
    assert (2, 5) == version.run(good)["embedding"].shape


def test_a_graphs_own_failure_stays_an_execution_error(tmp_path: Path) -> None:
    """Here there is no memory for what the graph would make of a small request."""
    version = loaded(
        graph(
            [node("Expand", "one size", "y")],
            [tensor("size", "INT64", [1])],
            [tensor("y", "FP32", ["n"])],
            one=[np.float32(1)],
        ),
        tmp_path,
    )

    with pytest.raises(ExecutionError, match="model 'm' version '1' failed while scoring"):
        version.run({"size": np.array([10**13])})


def test_dropping_the_last_reference_frees_the_graph_at_once(tmp_path: Path) -> None:
    """Nothing goes round in a circle, after a refused request neither: memory does not wait for a collection."""
    gc.disable()
    try:
        version = loaded(text_encoder(), tmp_path)
        with pytest.raises(InvalidRequestError):
            version.run({"ids": np.full((1, 1), 99), "mask": np.ones((1, 1), np.bool_)})
        session = weakref.ref(version._graph._session)

        del version

        assert session() is None
    finally:
        gc.enable()


def change_example(folder: Path, place: str, **changes: Any) -> None:
    """Changes the first input or output of examples.json, and the manifest's digest of it."""
    examples = msgspec.json.decode((folder / "examples.json").read_bytes())
    examples[place][0] |= changes
    data = msgspec.json.encode(examples)
    (folder / "examples.json").write_bytes(data)
    manifest = msgspec.json.decode((folder / "bundle.json").read_bytes())
    manifest["files"]["examples.json"] = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    (folder / "bundle.json").write_bytes(msgspec.json.encode(manifest))


def test_an_integer_beyond_what_a_float_holds_is_compared_exactly(tmp_path: Path) -> None:
    """2^53 and 2^53 + 1 are one double."""
    folder = pack(identity("INT64", [1]), tmp_path)
    change_example(folder, "inputs", data=[2**53 + 1])
    change_example(folder, "outputs", data=[2**53 + 1])
    load_version(folder)
    change_example(folder, "outputs", data=[2**53])

    with pytest.raises(BundleError, match=rf"expected {2**53} within .*, got {2**53 + 1}"):
        load_version(folder)


def test_halves_are_compared_within_the_tolerance(tmp_path: Path) -> None:
    """Far apart they differ by more than a half can hold."""
    folder = pack(identity("FP16", [1]), tmp_path)
    change_example(folder, "inputs", data=[65504.0])
    change_example(folder, "outputs", data=[65504.0])
    load_version(folder)
    change_example(folder, "outputs", data=[-65504.0])

    with pytest.raises(BundleError, match=r"expected -65504\.0 within .*, got 65504\.0"):
        load_version(folder)


def test_examples_that_the_graph_refuses_refuse_the_bundle(tmp_path: Path) -> None:
    """Nobody is asking yet, so it is no client's fault."""
    folder = pack(text_encoder(), tmp_path)
    change_example(folder, "inputs", data=[999] * 16)

    with pytest.raises(BundleError, match="expected the model to run on them, got: expected inputs that fit the graph"):
        load_version(folder)


@pytest.mark.parametrize("model", ["flight", "grid", "delay"])
def test_requests_of_a_packed_table_share_runs(packed: Path, model: str) -> None:
    """Columns as well as a matrix, of classes as well as of numbers."""
    assert load_version(packed / model / "1").lane.together


def table_of(packed: Path, folder: Path, first: str | int, axis: int, rows: int) -> Path:
    """Returns a bundle in which a softmax of this axis takes the place of the matrix's classifier.

    Args:
        packed: the repository with `grid`.
        folder: where the bundle is written.
        first: the graph's first dimension.
        axis: 0 mixes the rows.
        rows: of the examples.
    """
    target = folder / "grid" / "1"
    shutil.copytree(packed / "grid" / "1", target)
    model = graph(
        [
            node("Softmax", "input", "probabilities", axis=axis),
            node("ArgMax", "probabilities", "label", axis=1, keepdims=0),
        ],
        [tensor("input", "FP32", [first, 2])],
        [tensor("label", "INT64", [first]), tensor("probabilities", "FP32", [first, 2])],
    ).SerializeToString()
    given = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2) ** 2 / 10
    outputs = onnxruntime.InferenceSession(model).run(["label", "probabilities"], {"input": given})
    examples = msgspec.json.decode((target / "examples.json").read_bytes())
    arrays = {"input": given, "label": outputs[0], "probabilities": outputs[1]}
    for written in examples["inputs"] + examples["outputs"]:
        array = arrays[written["name"]]
        written |= {"shape": array.shape, "data": array.ravel().tolist()}
    replace_files(target, {"model.onnx": model, "examples.json": msgspec.json.encode(examples)})
    return target


@pytest.mark.parametrize(
    ("first", "axis", "rows", "expected"),
    [("rows", 1, 4, True), ("rows", 1, 1, True), ("rows", 0, 4, False), ("rows", 0, 1, False), (1, 1, 1, False)],
    ids=["usual", "one example", "mixes its rows", "mixes, one example", "one row at a time"],
)
def test_requests_share_runs_only_of_a_graph_that_proves_to_keep_rows_apart(
    packed: Path, tmp_path: Path, first: str | int, axis: int, rows: int, expected: bool
) -> None:
    """The signature promises it, the examples show it; a version that breaks it serves all the same."""
    version = load_version(table_of(packed, tmp_path, first, axis, rows))

    assert expected == version.lane.together
    assert (1, 2) == version.run({"input": np.ones((1, 2), np.float32)})["probabilities"].shape


@pytest.mark.parametrize("model", [text_encoder(), identity("FP32", [None, 2])], ids=["several", "one"])
def test_requests_of_tensors_never_share_a_run(tmp_path: Path, model: onnx.ModelProto) -> None:
    """Nothing says that their first dimension is rows."""
    assert not loaded(model, tmp_path).lane.together
