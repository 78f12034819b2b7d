"""A real server as the tests see it: its process, a client, and its log."""

import contextlib
import sqlite3
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec

from server.contract.events import Event, decode_event
from tests.patience import until

DEADLINE_S = 20.0


def url_of(process: subprocess.Popen[str]) -> str:
    """Returns where a `tiltyard serve` answers, once it says so; fails the test when it ends before."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        if "ready at " in line:
            return line.split("ready at ")[1].strip()
        said.append(line)
    raise AssertionError("the server did not start: " + "".join(said))


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Returns once the condition holds; fails the test when it does not in time."""
    until(condition, what, DEADLINE_S)


@dataclass
class Running:
    """A server in a process of its own, a client of it, and its log."""

    process: subprocess.Popen[str]
    client: httpx.Client
    outbox: Path

    def events(self) -> list[Event]:
        """Returns everything logged, once nothing waits for its commit."""
        wait_for(lambda: self.metric("tiltyard_event_backlog") == 0, "the backlog")
        return read_events(self.outbox)

    def metric(self, series: str) -> float:
        """Returns a series of /metrics, 0 where it is absent."""
        for line in self.client.get("/metrics").text.splitlines():
            if line.startswith(series + " "):
                return float(line.rsplit(" ", 1)[1])
        return 0.0


def read_events(outbox: Path) -> list[Event]:
    """Returns all events of a log, having checked that offsets have no gaps."""
    with contextlib.closing(sqlite3.connect(f"file:{outbox}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT first_offset, count, payload FROM chunks ORDER BY first_offset").fetchall()
    lines: list[bytes] = []
    for first, count, payload in rows:
        assert payload.endswith(b"\n")
        found = payload.splitlines()
        assert (first, count) == (len(lines), len(found))
        lines += found
    return [decode_event(line) for line in lines]


def tensors(**changes: object) -> dict[str, object]:
    """Returns a valid V2 request of one row to `flight`, its members changed."""
    request: dict[str, object] = {
        "inputs": [
            {"name": "carrier", "shape": [1], "datatype": "BYTES", "data": ["UA"]},
            {"name": "temp", "shape": [1, 1], "datatype": "FP32", "data": [12.5]},
            {"name": "hour", "shape": [1], "datatype": "INT64", "data": [17]},
            {"name": "distance", "shape": [1], "datatype": "FP32", "data": [900]},
        ]
    }
    return {**request, **changes}


def body(value: object) -> bytes:
    return msgspec.json.encode(value)
