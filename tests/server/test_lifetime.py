"""Starting, stopping, and being killed."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from server.contract.events import Prediction
from tests.server.live_server import Running, read_events, tensors, wait_for

SERVE = [sys.executable, "-m", "server.cli", "serve", "--port", "0"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_and_ends_with_status_0(serve: Callable[..., Running], packed: Path, number: int) -> None:
    """Every request that was answered is in the log, and the process ends by itself."""
    running = serve(packed)
    for i in range(50):
        running.client.post("/v2/models/flight/infer", json=tensors(id=f"r{i}")).raise_for_status()

    running.process.send_signal(number)

    assert running.process.wait(20) == 0
    assert "Traceback" not in str(running.process.stderr and running.process.stderr.read())
    events = read_events(running.outbox)
    assert {e.subject for e in events if isinstance(e, Prediction)} == {f"r{i}" for i in range(50)}
    assert len(events) == 100  # a shadow each


def test_a_kill_loses_no_committed_group_and_no_label(serve: Callable[..., Running], packed: Path) -> None:
    """Killed under load, the log opens again, its offsets go on, and every accepted label is in it."""
    running = serve(packed)
    accepted: list[str] = []
    stop = threading.Event()

    def load() -> None:
        with httpx.Client(base_url=running.client.base_url) as client:
            while not stop.is_set():
                try:
                    client.post("/v2/models/flight/infer", json=tensors())
                    name = f"label-{len(accepted)}"
                    if client.post("/v1/feedback", json={"id": name, "label": 1}).status_code == 202:
                        accepted.append(name)
                except httpx.TransportError:
                    return

    thread = threading.Thread(target=load)
    thread.start()
    wait_for(lambda: len(accepted) > 20, "labels")
    running.process.kill()
    thread.join()
    stop.set()
    before = read_events(running.outbox)

    again = serve(packed, running.outbox)
    again.client.post("/v2/models/flight/infer", json=tensors(id="after")).raise_for_status()

    after = again.events()
    assert set(accepted) <= {event.subject for event in before}
    assert [event.id for event in after[: len(before)]] == [event.id for event in before]
    assert after[len(before)].subject == "after"


@pytest.mark.parametrize("when_full", ["shed", "block"])
def test_a_full_disk_is_told_and_nothing_is_lost_in_silence(
    serve: Callable[..., Running], packed: Path, tmp_path: Path, when_full: str
) -> None:
    """The file may not grow: labels are answered 503, readiness says why; then the setting decides."""
    outbox = tmp_path / "full.db"
    limited = f"""
import resource, sys, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
from server.cli import main
sys.argv = ["tiltyard", "serve", "--port", "0", "--models", {str(packed)!r}, "--outbox", {str(outbox)!r}]
main()
"""
    env = {**os.environ, "TILTYARD_EVENTS__WHEN_FULL": when_full, "TILTYARD_EVENTS__QUEUE_BYTES": str(1024 * 1024)}
    with subprocess.Popen([sys.executable, "-c", limited], stderr=subprocess.PIPE, text=True, env=env) as process:
        assert process.stderr is not None
        url = next(line.split("ready at ")[1].strip() for line in process.stderr if "ready at " in line)
        statuses = []
        with httpx.Client(base_url=url, timeout=30) as client:
            running = Running(process, client, outbox)
            while running.metric('tiltyard_events_total{outcome="dropped"}') == 0 and 503 not in statuses[-1:]:
                rows = {"rows": [{"hour": 1, "distance": 2.0}] * 400}
                statuses.append(client.post("/v1/models/grid/predict", json=rows).status_code)
                assert len(statuses) < 2000

            ready = client.get("/v2/health/ready")
            label = client.post("/v1/feedback", json={"id": "r", "label": 1})
        process.kill()

    assert (ready.status_code, "cannot commit" in ready.json()["error"]) == (503, True)
    assert label.status_code == 503
    assert set(statuses) == ({200} if when_full == "shed" else {200, 503})
    read_events(outbox)


def refused(*arguments: str, **env: str) -> str:
    """Returns the one sentence with which a start is refused."""
    run = subprocess.run([*SERVE, *arguments], capture_output=True, text=True, timeout=30, env={**os.environ, **env})
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    return run.stderr.strip().splitlines()[-1]


def test_starts_that_are_refused(serve: Callable[..., Running], packed: Path, tmp_path: Path) -> None:
    """Each in one sentence that names what and where."""
    free = ("--models", str(packed), "--outbox", str(tmp_path / "other.db"))
    foreign, text, newer = tmp_path / "foreign.db", tmp_path / "text.db", tmp_path / "newer.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE t (x)")
    text.write_text("this is no database" * 100)
    running = serve(packed)
    port = str(running.client.base_url.port)

    assert "Address already in use" in refused("--port", port, *free)
    assert "only writer" in refused("--models", str(packed), "--outbox", str(running.outbox))
    assert "expected a folder of bundles, found none" in refused("--models", str(tmp_path / "none"))
    assert "another program's SQLite file" in refused("--models", str(packed), "--outbox", str(foreign))
    assert "text.db" in refused("--models", str(packed), "--outbox", str(text))
    assert "expected a folder that can be written" in refused("--models", str(packed), "--outbox", "/proc/x/outbox.db")
    assert "expected a TOML file, found none" in refused(*free, "--config", str(tmp_path / "none.toml"))
    assert "events.queue_bytes: " in refused(*free, TILTYARD_EVENTS__QUEUE_BYTES="few")
    running.client.post("/v1/feedback", json={"id": "r", "label": 1})
    running.process.terminate()
    running.process.wait(20)
    shutil.copy(running.outbox, newer)
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert "expected schema 1 or older, got 99" in refused("--models", str(packed), "--outbox", str(newer))
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 1")
        connection.execute("UPDATE chunks SET payload = zeroblob(length(payload))")
    assert "is corrupt: its checksum does not match" in refused("--models", str(packed), "--outbox", str(newer))
