"""Real bundles and a real server, shared by the server's tests."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits

from server.packing.bundle_writer import pack_bundle
from server.packing.options import PackOptions
from tests.server.live_server import Running, url_of


def table() -> pd.DataFrame:
    """Returns 600 rows: a string, a number that may be missing, an integer, a class and a value."""
    rng = np.random.default_rng(3)
    rows = pd.DataFrame(
        {
            "carrier": rng.choice(["AA", "UA", "DL"], 600),
            "temp": np.where(rng.random(600) < 0.1, np.nan, rng.normal(10, 5, 600)),
            "hour": rng.integers(0, 24, 600),
            "distance": rng.normal(1000, 200, 600),
        }
    )
    rows["late"] = (rows["hour"] + rng.normal(0, 4, 600) > 14).astype(int)
    rows["delay"] = rows["hour"] * 2.0 + rng.normal(0, 1, 600)
    return rows


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine scikit-learn's threads wait for each other longer than they work."""
    with threadpool_limits(limits=1, user_api="openmp"):
        yield


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository: `flight` 1 and 2 (columns), `grid` 1 (matrix), `delay` 1 (regression). Copy it to change it."""
    out = tmp_path_factory.mktemp("packed")
    rows = table()
    features = ["carrier", "temp", "hour", "distance"]
    columns = ColumnTransformer(
        [
            ("strings", OneHotEncoder(handle_unknown="ignore"), ["carrier"]),
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["temp", "hour", "distance"]),
        ]
    )
    for version, c in (("1", 1.0), ("2", 0.01)):
        model = make_pipeline(columns, LogisticRegression(C=c)).fit(rows[features], rows["late"])
        pack_bundle(
            model, rows, PackOptions(model="flight", version=version, out=out, target="late", features=features)
        )
    numbers = ["hour", "distance"]
    grid = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows[numbers].to_numpy(np.float32), rows["late"])
    pack_bundle(
        grid, rows, PackOptions(model="grid", version="1", out=out, target="late", features=numbers, layout="matrix")
    )
    delay = LinearRegression().fit(rows[numbers], rows["delay"])
    pack_bundle(delay, rows, PackOptions(model="delay", version="1", out=out, target="delay", features=numbers))
    (out / "flight" / "route.json").write_text(
        '{"champion": "1", "challengers": [{"version": "2", "mode": "shadow"}], "revision": 4}'
    )
    return out


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts `tiltyard serve` on a free port and ends it with the test."""
    with _servers(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def serve_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Running]]:
    """As serve, for servers that last as long as the tests of a module."""
    with _servers(tmp_path_factory.mktemp("servers")) as start:
        yield start


@contextlib.contextmanager
def _servers(folder: Path) -> Iterator[Callable[..., Running]]:
    with contextlib.ExitStack() as stack:

        def start(models: Path, outbox: Path | None = None, **env: str) -> Running:
            outbox = outbox or folder / "outbox.db"
            command = [sys.executable, "-m", "server.cli", "serve", "--port", "0"]
            process = stack.enter_context(
                subprocess.Popen(
                    [*command, "--models", str(models), "--outbox", str(outbox)],
                    stderr=subprocess.PIPE,
                    text=True,
                    env={**os.environ, **env},
                )
            )
            stack.callback(process.kill)
            client = stack.enter_context(httpx.Client(base_url=url_of(process), timeout=30))
            return Running(process, client, outbox)

        yield start


@pytest.fixture(scope="module")
def server(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for the tests of a module that only ask and read."""
    outbox = tmp_path_factory.mktemp("log") / "outbox.db"
    command = [sys.executable, "-m", "server.cli", "serve", "--port", "0", "--models", str(packed)]
    with subprocess.Popen([*command, "--outbox", str(outbox)], stderr=subprocess.PIPE, text=True) as process:
        with httpx.Client(base_url=url_of(process), timeout=30) as client:
            yield Running(process, client, outbox)
        process.terminate()
        assert process.wait(20) == 0
