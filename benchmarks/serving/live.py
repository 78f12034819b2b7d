"""A contestant while it runs: started on its core, asked once and held against the graph, then open to load."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks.load import Script, post
from benchmarks.machine import pinned
from benchmarks.serving import forms, process_tree
from benchmarks.serving.contestant import Contestant, Launch

SERVER_CORE = 0
START_S = 180.0
STOP_S = 20.0
LOG_CHARS = 300


class ContestantFailedError(Exception):
    """A contestant did not start, or answered something else than the graph does."""


@dataclass(frozen=True)
class Live:
    """A running contestant: where it is, its process, and the folder of its own."""

    contestant: Contestant
    launch: Launch
    url: str
    process: subprocess.Popen[bytes]
    folder: Path

    def script(self, form: forms.Form, x: NDArray[np.float32]) -> Script:
        """Returns what wrk posts."""
        body, headers = form.body(x)
        return post(self.folder, self.contestant.path, body, {**headers, **self.launch.headers})

    def check(self, form: forms.Form, x: NDArray[np.float32], expected: forms.Values) -> None:
        """Asks once and compares all outputs.

        Raises:
            ContestantFailedError: the answer is another than the expected one.
        """
        response = _ask(self.url, self.contestant, self.launch, form, x)
        if response.status_code != 200:
            raise ContestantFailedError(f"expected 200, got {response.status_code}: {response.text[:LOG_CHARS]}")
        if not self.contestant.checked:
            return
        if wrong := forms.differs(form.outputs(response.content, response.headers), expected):
            raise ContestantFailedError(f"another answer than the graph's: {wrong}")


@contextmanager
def running(contestant: Contestant, launch: Launch, port: int, folder: Path, x: NDArray[np.float32]) -> Iterator[Live]:
    """Runs a contestant while the body runs, from its first good answer on, and ends it and all its children.

    Raises:
        ContestantFailedError: it ended, or gave no good answer in time; the message has the end of its log.
    """
    log = folder / "contestant.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            pinned(SERVER_CORE, launch.command),
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **launch.environment},
        )
    live = Live(contestant, launch, f"http://127.0.0.1:{port}", process, folder)
    try:
        _wait(live, x, log)
        yield live
    finally:
        _end(process)


def _wait(live: Live, x: NDArray[np.float32], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            if _ask(live.url, live.contestant, live.launch, live.contestant.forms[0], x).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if live.process.poll() is not None or time.monotonic() > deadline:
            ended = "ended" if live.process.poll() is not None else f"gave no good answer within {START_S:.0f} s"
            said = " ".join(log.read_text(errors="replace").split())[-LOG_CHARS:]
            raise ContestantFailedError(f"it {ended}: …{said}")
        time.sleep(0.05)


def _ask(url: str, contestant: Contestant, launch: Launch, form: forms.Form, x: NDArray[np.float32]) -> httpx.Response:
    body, headers = form.body(x)
    everything: dict[str, Any] = {"Content-Type": "application/json", **headers, **launch.headers}
    return httpx.post(f"{url}{contestant.path}", content=body, headers=everything, timeout=30)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process politely, and then whatever its descendants left running."""
    family = process_tree.tree(process.pid)
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process_tree.kill(family[1:])
