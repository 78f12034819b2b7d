"""A server for the clients: every kind of model, two tokens, and the answers that onnxruntime itself gives."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.clients.graphs import DATATYPES, write_echo, write_image, write_known
from tests.server.live_server import url_of

TOKEN, READER = "all-of-it", "infer-only"
ROWS = 12


@dataclass(frozen=True)
class Live:
    """Where the server listens, a token for everything and one for inference, and the folder of known answers."""

    host: str
    token: str
    reader: str
    known: Path


def prepare(tables: Path, folder: Path) -> None:
    """Makes the folders `models` and `known`, and `tokens.toml`.

    Args:
        tables: the repository with `flight`, `grid` and `delay`.
        folder: an empty one.
    """
    models, known = folder / "models", folder / "known"
    shutil.copytree(tables, models)
    known.mkdir()
    for name, datatypes in (("echo", list(DATATYPES)), ("spare", ["FP32"]), ("text", ["BYTES"])):
        write_echo(folder / f"{name}.onnx", datatypes)
        _pack(models, folder / f"{name}.onnx")
    write_image(folder / "image.onnx")
    _pack(models, folder / "image.onnx")
    for answer, (version, inputs) in _asked().items():
        write_known(known / f"{answer}.npz", models / version, inputs)
    (folder / "tokens.toml").write_text(
        _entry(TOKEN, "infer", "feedback", "admin", "metrics") + _entry(READER, "infer")
    )


@contextmanager
def serve(folder: Path) -> Iterator[Live]:
    """Serves what ``prepare`` has made, on a free port."""
    command = [sys.executable, "-m", "server.cli", "serve", "--port", "0", "--models", str(folder / "models")]
    options = ["--outbox", str(folder / "outbox.db"), "--tokens", str(folder / "tokens.toml")]
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True) as process:
        yield Live(url_of(process).removeprefix("http://"), TOKEN, READER, folder / "known")
        process.terminate()
        assert process.wait(20) == 0


def _pack(models: Path, graph: Path) -> None:
    command = [sys.executable, "-m", "server.cli", "pack", "--onnx", str(graph), "--model", graph.stem]
    subprocess.run([*command, "--version", "1", "--out", str(models)], check=True, capture_output=True)


def _asked() -> dict[str, tuple[str, dict[str, Any]]]:
    """Returns the bundle and the inputs of each known answer, by its name."""
    rng = np.random.default_rng(5)
    flight = {
        "carrier": rng.choice(["AA", "UA", "DL", "Zürich"], (ROWS, 1)).astype(object),
        "temp": rng.normal(10, 5, (ROWS, 1)).astype(np.float32),
        "hour": rng.integers(0, 24, (ROWS, 1)),
        "distance": rng.normal(1000, 200, (ROWS, 1)).astype(np.float32),
    }
    missing = np.where(np.arange(ROWS)[:, None] % 3 == 0, np.float32("nan"), flight["temp"])
    numbers = {"hour": flight["hour"], "distance": flight["distance"]}
    every = {datatype.lower(): values for datatype, (_, values) in DATATYPES.items()}
    weights = np.array([0.5, 1, 2], np.float32)
    return {
        "flight-1": ("flight/1", flight),
        "flight-2": ("flight/2", flight),
        "flight-missing": ("flight/1", {**flight, "temp": missing}),
        "grid-1": ("grid/1", {"input": np.hstack([*numbers.values()]).astype(np.float32)}),
        "delay-1": ("delay/1", numbers),
        "echo-1": ("echo/1", every),
        "spare-1": ("spare/1", {"fp32": every["fp32"]}),
        "image-small": ("image/1", {"pixels": _pixels(rng, 2, 5, 4), "weights": weights}),
        "image-wide": ("image/1", {"pixels": _pixels(rng, 1, 16, 33), "weights": weights}),
    }


def _pixels(rng: np.random.Generator, images: int, height: int, width: int) -> Any:
    return rng.integers(0, 256, (images, height, width, 3), np.uint8)


def _entry(token: str, *scopes: str) -> str:
    digest = hashlib.sha256(token.encode()).hexdigest()
    return f'[[token]]\nname = "{token}"\nsha256 = "{digest}"\nscopes = {list(scopes)}\n'
