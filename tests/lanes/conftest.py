"""Two servers over the same bundles with the same settings: one answers in ASGI, one has the fast lane."""

import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.lanes.models import write_models
from tests.lanes.pair import Lane, Pair
from tests.server.conftest import one_thread as one_thread
from tests.server.conftest import packed as packed
from tests.server.live_server import Running, url_of

LANES = {"asgi": "false", "fast": "true"}


@pytest.fixture(scope="session")
def models(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(packed, tmp_path_factory.mktemp("lanes") / "models")


@pytest.fixture(scope="session")
def pair(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both with the settings that they have by themselves, for whoever needs no others."""
    with started(models, tmp_path_factory.mktemp("pair"), {}) as both:
        yield both
        both.compare_all()


@pytest.fixture
def start(models: Path, tmp_path: Path) -> Iterator[Callable[..., Pair]]:
    """Starts both with settings, once, over some of the bundles, and ends them with the test."""
    with ExitStack() as stack:

        def start(
            *,
            trust: Path | None = None,
            token: str | None = None,
            file_blocks: str = "unlimited",
            **settings: str,
        ) -> Pair:
            few = tmp_path / "few"  # a server starts the sooner
            for name in ("delay", "echo", "flight", "grid"):
                shutil.copytree(models / name, few / name)
            return stack.enter_context(
                started(few, tmp_path, settings, trust=trust, token=token, file_blocks=file_blocks)
            )

        yield start


@contextmanager
def started(
    models: Path,
    folder: Path,
    settings: dict[str, str],
    *,
    trust: Path | None = None,
    token: str | None = None,
    file_blocks: str = "unlimited",
) -> Iterator[Pair]:
    """Runs both servers with TILTYARD_* settings and ends them.

    Args:
        models: their bundles; each serves a copy of its own.
        folder: for copies and logs.
        settings: by their names in small letters.
        trust: the authority of their certificate, where they speak TLS.
        token: with which their metrics are read.
        file_blocks: how large their files may become, in blocks of 512 bytes.
    """
    environment = {f"TILTYARD_{name.upper()}": value for name, value in settings.items()}
    environment["PYTHONHASHSEED"] = "0"  # Starlette lists the methods of a path in the order of a set
    environment.setdefault("TILTYARD_EVENTS__COMMIT_INTERVAL_MS", "1")  # what is logged is waited for
    with ExitStack() as stack:
        processes = []
        for name, fast in LANES.items():
            own = shutil.copytree(models, folder / f"{name}-models")  # a guard that opens changes a route
            command = ["sh", "-c", f'ulimit -f {file_blocks}; exec "$@"', "sh"]
            command += [sys.executable, "-m", "server.cli", "serve", "--port", "0", "--models", str(own)]
            process = subprocess.Popen(
                [*command, "--outbox", str(folder / f"{name}.db")],
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **environment, "TILTYARD_FAST_LANE": fast},
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            processes.append(process)
        lanes = []
        for name, process in zip(LANES, processes, strict=True):
            client = httpx.Client(base_url=url_of(process), timeout=30, verify=_context(trust))
            stack.enter_context(client)
            if token is not None:
                client.headers["authorization"] = f"Bearer {token}"
            lanes.append(Lane(Running(process, client, folder / f"{name}.db"), trust))
        yield Pair(*lanes)


def _context(trust: Path | None) -> ssl.SSLContext | bool:
    return True if trust is None else ssl.create_default_context(cafile=str(trust))
