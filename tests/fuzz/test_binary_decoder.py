"""The binary decoder under a coverage-guided fuzzer, for a bounded time."""

import importlib.util
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from server.protocol.binary_codec import to_bytes
from server.protocol.datatypes import DATATYPES
from tests.required import missing
from tests.server.protocol.requests import as_binary, as_json, body_of

ROOT = Path(__file__).parents[2]
SECONDS = int(os.environ.get("TILTYARD_FUZZ_SECONDS", "10"))


@pytest.fixture
def atheris() -> None:
    if importlib.util.find_spec("atheris") is None:
        missing("no atheris to fuzz the binary decoder with")


def write_seeds(folder: Path) -> None:
    """Writes valid bodies of every datatype: one alone, as nothing but elements, and all together, in both codecs."""
    arrays = {
        name: np.array([["a", "Zü"]], object) if kind.element is str else np.array([[1, 0]], kind.dtype)
        for name, kind in DATATYPES.items()
    }
    folder.mkdir()
    for name, array in arrays.items():
        column = array.reshape(-1, 1)
        _write(folder / f"{name}-alone", *body_of(as_binary("x", name, column)))
        _write(folder / f"{name}-raw", bytes(to_bytes(column, DATATYPES[name])), 0)
    for form in (as_binary, as_json):
        inputs = [(as_binary if name == "FP16" else form)(name, name, array) for name, array in arrays.items()]
        parameters = {"binary_data_output": True}
        _write(folder / f"all-{form.__name__}", *body_of(*inputs, outputs=[{"name": "y"}], parameters=parameters))


def _write(path: Path, body: bytes, header_length: int) -> None:
    path.write_bytes(struct.pack("<H", header_length) + body)


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz.binary_decoder", *options, f"-artifact_prefix={folder}/found-"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS + 60,
        check=False,
    )


@pytest.mark.usefixtures("atheris")
def test_no_bytes_crash_or_hang_the_binary_decoder(tmp_path: Path) -> None:
    """Mutations of valid bodies end in arrays or in a refusal, within a second and 1 GiB each."""
    write_seeds(tmp_path / "seeds")
    (tmp_path / "corpus").mkdir()

    ended = run(
        tmp_path,
        str(tmp_path / "corpus"),
        str(tmp_path / "seeds"),
        f"-max_total_time={SECONDS}",
        "-timeout=1",
        "-rss_limit_mb=1024",
        "-max_len=4096",
        "-seed=7",
    )

    found = {path.name: path.read_bytes()[:500] for path in tmp_path.glob("found-*")}
    assert (ended.returncode, found) == (0, {}), ended.stderr[-3000:]
    assert "DONE" in ended.stderr or "Done" in ended.stderr
    assert any((tmp_path / "corpus").iterdir())
