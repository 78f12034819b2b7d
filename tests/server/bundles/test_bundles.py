"""A bundle is served only when it is what its manifest says."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from server.bundles.repository import Repository, version_key
from server.errors import BundleError, NotReadyError, UnknownModelError
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


def newer(manifest: dict[str, Any]) -> None:
    manifest["format"] = 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda manifest: manifest.update(model="other"), "expected model 'grid' as its folder, got 'other'"),
        (lambda manifest: manifest.update(version="7"), "expected version '1' as its folder, got '7'"),
        (drop_digest, "expected the digest of model.onnx"),
        (escape, "expected a plain file name in files, got '../../secret'"),
        (wrong_type, "input 'input': expected FP64, the graph has tensor"),
        (wrong_output, "expected output 'other', the graph has"),
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


def test_a_graph_that_is_none_is_refused(folder: Path) -> None:
    """A file with the right digest that onnxruntime cannot read."""
    (folder / "model.onnx").write_bytes(b"no graph")
    digest = {"sha256": hashlib.sha256(b"no graph").hexdigest(), "size_bytes": 8}
    edit(folder, "bundle.json", lambda manifest: manifest["files"].update({"model.onnx": digest}))

    with pytest.raises(BundleError, match="expected a graph onnxruntime can run"):
        load_version(folder)


def test_the_repository_keeps_the_reason_of_a_refusal(folder: Path) -> None:
    """A refused version is known but does not serve; an unknown one is another error."""
    broken = shutil.copytree(folder, folder.parent / "2")
    (broken / "bundle.json").unlink()
    repository: Repository[Version] = Repository(folder.parents[1], load_version)
    repository.load_all()

    assert (repository.versions("grid"), repository.known("grid")) == (["1"], ["1", "2"])
    with pytest.raises(NotReadyError, match="version '2' does not serve"):
        repository.get("grid", "2")
    with pytest.raises(UnknownModelError, match="no version '3'"):
        repository.get("grid", "3")


def test_versions_are_ordered_as_numbers_then_names() -> None:
    """10 comes after 9, and names after numbers."""
    assert sorted(["beta", "10", "9", "alpha"], key=version_key) == ["9", "10", "alpha", "beta"]
