"""A bundle is served only when it is what its manifest says."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from server.bundles.folder_store import FolderStore
from server.bundles.repository import Repository, Status, version_key
from server.errors import BundleError, NotReadyError, SettingsError, UnknownModelError
from server.execution.session import Version, load_version


@pytest.fixture
def folder(packed: Path, tmp_path: Path) -> Path:
    """A copy of `grid` version 1 that a test may spoil."""
    return Path(shutil.copytree(packed / "grid" / "1", tmp_path / "models" / "grid" / "1"))


def edit(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes a JSON file of a bundle, and its digest in the manifest with it."""
    document = msgspec.json.decode((folder / name).read_bytes())
    change(document)
    data = msgspec.json.encode(document)
    (folder / name).write_bytes(data)
    if name != "bundle.json":
        digest = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
        edit(folder, "bundle.json", lambda manifest: manifest["files"].update({name: digest}))


def test_a_sound_bundle_loads(folder: Path) -> None:
    """The copy, unspoiled, is served: what the tests below refuse, they refuse for its fault."""
    assert load_version(folder).manifest.model == "grid"


def drop_digest(manifest: dict[str, Any]) -> None:
    del manifest["files"]["model.onnx"]


def escape(manifest: dict[str, Any]) -> None:
    manifest["files"]["../../secret"] = {"sha256": "0", "size_bytes": 1}


def wrong_type(manifest: dict[str, Any]) -> None:
    manifest["signature"]["inputs"][0]["datatype"] = "FP64"


def wrong_output(manifest: dict[str, Any]) -> None:
    manifest["signature"]["outputs"][0]["name"] = "other"


def null_byte(manifest: dict[str, Any]) -> None:
    manifest["files"]["a\0b"] = {"sha256": "0", "size_bytes": 1}


def parent(manifest: dict[str, Any]) -> None:
    manifest["files"][".."] = {"sha256": "0", "size_bytes": 1}


def absolute(manifest: dict[str, Any]) -> None:
    manifest["files"]["/etc/hostname"] = {"sha256": "0", "size_bytes": 1}


def wider(manifest: dict[str, Any]) -> None:
    manifest["signature"]["inputs"][0]["shape"] = [-1, 3]


def flatter(manifest: dict[str, Any]) -> None:
    manifest["signature"]["outputs"][1]["shape"] = [-1]


def one_class(manifest: dict[str, Any]) -> None:
    manifest["classes"] = [0]


def two_inputs(manifest: dict[str, Any]) -> None:
    manifest["signature"]["inputs"] *= 2


def unknown_type(manifest: dict[str, Any]) -> None:
    manifest["signature"]["inputs"][0]["datatype"] = "FP99"


def newer(manifest: dict[str, Any]) -> None:
    manifest["format"] = 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda manifest: manifest.update(model="other"), "expected model 'grid' as its folder, got 'other'"),
        (lambda manifest: manifest.update(version="7"), "expected version '1' as its folder, got '7'"),
        (drop_digest, "expected the digest of model.onnx"),
        (escape, "expected a plain file name in files, got '../../secret'"),
        (wrong_type, "columns of datatype FP64 as the matrix"),
        (wrong_output, "expected output 'other', the graph has"),
        (null_byte, "expected a readable file, got a name that no file has"),
        (parent, "expected a readable file"),
        (absolute, "expected a plain file name in files, got '/etc/hostname'"),
        (wider, r"one input of shape \[-1, 2\], got shapes \[\[-1, 3\]\]"),
        (flatter, r"output 'probabilities': expected shape \[-1\], the graph has"),
        (one_class, "at least two classes"),
        (two_inputs, "names that differ"),
        (unknown_type, "columns of datatype FP99 as the matrix"),
        (newer, r"\$.format"),
        (lambda manifest: manifest.pop("signature"), "signature"),
    ],
)
def test_a_manifest_that_lies_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], object], sentence: str
) -> None:
    """Names, digests and signature are held against folder and graph."""
    edit(folder, "bundle.json", change)

    with pytest.raises(BundleError, match=sentence):
        load_version(folder)


@pytest.mark.parametrize("name", ["model.onnx", "baseline.json", "examples.json", "README.md"])
def test_a_damaged_or_missing_file_is_named(folder: Path, name: str) -> None:
    """One changed byte, or no file at all."""
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name}: expected SHA-256"):
        load_version(folder)

    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: expected a readable file"):
        load_version(folder)


def test_a_manifest_that_is_missing_or_no_json_is_named(folder: Path) -> None:
    """The manifest itself has no digest."""
    (folder / "bundle.json").write_bytes(b"{")
    with pytest.raises(BundleError, match=r"bundle\.json: Input data was truncated"):
        load_version(folder)
    (folder / "bundle.json").unlink()
    with pytest.raises(BundleError, match=r"bundle\.json: expected a readable file"):
        load_version(folder)


def test_an_answer_unlike_the_packed_one_is_refused(folder: Path) -> None:
    """Replaying the examples finds a graph that answers differently, and says where."""
    edit(folder, "examples.json", lambda examples: examples["outputs"][1]["data"].__setitem__(0, 0.123))

    with pytest.raises(BundleError, match=r"output 'probabilities' at \(0, 0\): expected 0.123"):
        load_version(folder)


@pytest.mark.parametrize(
    ("member", "tensor", "sentence"),
    [
        ("outputs", {"data": []}, "output 'label': expected data of its datatype and shape"),
        ("outputs", {"datatype": "FP99"}, "output 'label': expected data of its datatype and shape"),
        ("outputs", {"data": [2**70] * 20}, "output 'label': expected data of its datatype and shape"),
        ("outputs", {"data": ["x"] * 20}, "output 'label': expected data of its datatype and shape"),
        ("outputs", {"shape": [1]}, "output 'label': expected shape \\[1\\], got"),
        ("outputs", {"name": "other"}, "expected output 'other', the graph has"),
        ("inputs", {"data": []}, "expected the model to run on them"),
        ("inputs", {"datatype": "FP99"}, "expected the model to run on them"),
        ("inputs", {"datatype": "INT64", "data": [2**70] * 40}, "expected the model to run on them"),
        ("inputs", {"name": "other"}, "expected the model to run on them"),
    ],
)
def test_examples_that_are_no_tensors_are_refused(
    folder: Path, member: str, tensor: dict[str, Any], sentence: str
) -> None:
    """Whatever the file holds, the bundle is refused and the server goes on."""
    edit(folder, "examples.json", lambda examples: examples[member][0].update(tensor))

    with pytest.raises(BundleError, match=sentence):
        load_version(folder)


def test_a_file_nested_too_deeply_is_refused(folder: Path) -> None:
    """100,000 arrays in a member that nobody reads."""
    deep = b'{"novel": ' + b"[" * 100_000 + b"]" * 100_000 + b","
    manifest = (folder / "bundle.json").read_bytes()
    (folder / "bundle.json").write_bytes(manifest.replace(b"{", deep, 1))

    with pytest.raises(BundleError, match=r"bundle\.json: expected JSON of modest depth"):
        load_version(folder)


def test_a_folder_without_bundles_is_empty_and_one_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """Files, hidden folders and a model without versions are no bundles."""
    (tmp_path / "README").write_text("x")
    (tmp_path / ".git" / "objects").mkdir(parents=True)
    (tmp_path / "empty").mkdir()

    assert FolderStore(tmp_path).versions() == {}
    with pytest.raises(SettingsError, match="expected a folder of bundles, found none"):
        FolderStore(tmp_path / "none")


def test_a_graph_that_is_none_is_refused(folder: Path) -> None:
    """A file with the right digest that onnxruntime cannot read."""
    (folder / "model.onnx").write_bytes(b"no graph")
    digest = {"sha256": hashlib.sha256(b"no graph").hexdigest(), "size_bytes": 8}
    edit(folder, "bundle.json", lambda manifest: manifest["files"].update({"model.onnx": digest}))

    with pytest.raises(BundleError, match="expected a graph onnxruntime can run"):
        load_version(folder)


def test_the_repository_keeps_the_reason_of_a_refusal(folder: Path) -> None:
    """A refused version is known but does not serve; an unknown one is another error."""
    repository: Repository[Version] = Repository()
    repository.put("grid", "1", load_version(folder))
    repository.refuse("grid", "2", BundleError("the reason"))

    assert (repository.versions("grid"), repository.known("grid")) == (["1"], ["1", "2"])
    assert repository.status("grid", "2") == Status("UNAVAILABLE", "the reason")
    with pytest.raises(NotReadyError, match="version '2' does not serve"):
        repository.get("grid", "2")
    with pytest.raises(UnknownModelError, match="no version '3'"):
        repository.get("grid", "3")


def test_versions_are_ordered_as_numbers_then_names() -> None:
    """10 comes after 9, and names after numbers."""
    assert sorted(["beta", "10", "9", "alpha"], key=version_key) == ["9", "10", "alpha", "beta"]
