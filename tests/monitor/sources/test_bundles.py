import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from monitor.errors import BundleError
from monitor.sources.bundles import BundleFolder, read_profile
from monitor.version_profile import VersionKey
from server.contract.manifest import Manifest, Signature, Tensor


def test_versions_are_found_by_their_folders(models: Path) -> None:
    """Every MODELS/<model>/<version>/ with a manifest is loaded."""
    folder = BundleFolder(models)

    folder.load_all()

    assert [("delay", "1"), ("delay", "2")] == sorted(folder.profiles)
    assert {} == folder.failures


def test_a_version_packed_later_is_loaded_on_demand(models: Path, bundle_writer: Callable[..., Path]) -> None:
    """A version that an event names is looked for again, and only where versions are."""
    folder = BundleFolder(models)
    assert folder.load(VersionKey("delay", "3")) is None
    bundle_writer(models, version="3")

    profile = folder.load(VersionKey("delay", "3"))

    assert profile is folder.profiles[VersionKey("delay", "3")]
    assert folder.load(VersionKey("..", "models")) is None
    assert folder.load(VersionKey("delay", "../delay/1")) is None


def write_tensors(models: Path, version: str) -> None:
    """Writes what the monitor reads of a graph packed by itself: a manifest, and no baseline."""
    image = Tensor(name="image", datatype="UINT8", shape=[-1, -1, 3])
    manifest = Manifest(
        model="eye",
        version=version,
        created_at=datetime(2026, 1, 5, tzinfo=UTC),
        task="tensors",
        signature=Signature(layout="tensors", inputs=[image], outputs=[image]),
        estimator="ONNX graph",
        packages={},
        files={},
    )
    folder = models / "eye" / version
    folder.mkdir(parents=True)
    (folder / "bundle.json").write_bytes(msgspec.json.encode(manifest))


def test_a_bundle_of_tensors_is_passed_over_and_said_once(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It has no baseline by nature: neither a failure nor a warning, however often its events come."""
    caplog.set_level(logging.INFO)
    write_tensors(models, "1")
    folder = BundleFolder(models)
    folder.load_all()
    write_tensors(models, "2")

    found = [folder.load(VersionKey("eye", version)) for version in ("1", "2", "2")]

    assert [None, None, None] == found
    assert ({}, {("eye", "1"), ("eye", "2")}) == (folder.failures, folder.unwatched)
    assert [
        ("INFO", f"not watching eye version {version}: a bundle of tensors has no baseline") for version in ("1", "2")
    ] == [(record.levelname, record.message) for record in caplog.records if "eye" in record.message]
    assert [("delay", "1"), ("delay", "2")] == sorted(folder.profiles)


def _replace(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


@pytest.mark.parametrize(
    ("damage", "file", "sentence"),
    [
        (lambda f: (f / "baseline.json").unlink(), "baseline.json", "No such file"),
        (lambda f: (f / "baseline.json").write_bytes(b"{"), "baseline.json", "expected SHA-256"),
        (lambda f: (f / "bundle.json").write_bytes(b"{"), "bundle.json", "truncated"),
        (lambda f: (f / "bundle.json").write_bytes(b"\xff"), "bundle.json", "malformed"),
        (lambda f: _replace(f / "bundle.json", b'"task":"binary"', b'"task":"art"'), "bundle.json", r"\$\.task"),
        (lambda f: _replace(f / "bundle.json", b'"version":"1"', b'"version":"8"'), "bundle.json", "version 8"),
        (lambda f: _replace(f / "bundle.json", b'"baseline.json"', b'"other.json"'), "bundle.json", "no digest"),
        (lambda f: _replace(f / "bundle.json", b'"classes":[0,1]', b'"classes":[0,1,2]'), "baseline.json", "3 class"),
        (lambda f: _replace(f / "bundle.json", b'"name":"wind"', b'"name":"gust"'), "bundle.json", "gust"),
    ],
)
def test_a_bundle_that_cannot_be_read_is_refused_by_file_and_place(
    models: Path, damage: Callable[[Path], Any], file: str, sentence: str
) -> None:
    """Whatever is wrong with a version's files, the sentence names the file, and the others are loaded."""
    damage(models / "delay" / "1")

    with pytest.raises(BundleError, match=sentence) as caught:
        read_profile(models / "delay" / "1")
    assert str(models / "delay" / "1" / file) in str(caught.value)
    folder = BundleFolder(models)
    folder.load_all()
    assert [VersionKey("delay", "2")] == list(folder.profiles)
    assert {VersionKey("delay", "1"): str(caught.value)} == folder.failures
