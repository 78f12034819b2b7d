"""Starting, stopping, and being killed."""

import itertools
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import pytest

from server.contract.events import Audited, Prediction, Shadow
from tests.server.live_server import Running, read_events, tensors, url_of, wait_for

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


class Load:
    """Clients that ask without a pause until the server goes; `answered` are the ids of their answers."""

    def __init__(self, running: Running, clients: int = 4) -> None:
        self.answered: list[str] = []
        self.others: list[int] = []
        self._running = running
        self._threads = [threading.Thread(target=self._ask, args=(str(n),)) for n in range(clients)]
        for thread in self._threads:
            thread.start()
        wait_for(lambda: len(self.answered) > 100, "answers")

    def _ask(self, name: str) -> None:
        with httpx.Client(base_url=self._running.client.base_url, timeout=30) as client:
            for n in itertools.count():
                try:
                    answer = client.post("/v2/models/flight/infer", json=tensors(id=f"{name}-{n}"))
                except httpx.TransportError:
                    return
                if answer.status_code == 200:
                    self.answered.append(answer.json()["id"])
                else:
                    self.others.append(answer.status_code)

    def join(self) -> set[str]:
        """Returns the ids of all answers, once the server has gone; there must be no other answer than a 200."""
        for thread in self._threads:
            thread.join(30)
        assert self.others == []
        return set(self.answered)


class Held:
    """A request whose head the server has read and whose body it waits for."""

    def __init__(self, running: Running, request_id: str) -> None:
        self._body = msgspec.json.encode(tensors(id=request_id))
        host, port = str(running.client.base_url.host), int(running.client.base_url.port or 0)
        self._address = (host, port)
        self.socket = socket.create_connection(self._address, 20)
        head = f"POST /v2/models/flight/infer HTTP/1.1\r\nHost: h\r\nContent-Length: {len(self._body)}\r\n"
        self.socket.sendall(head.encode() + b"Expect: 100-continue\r\n\r\n")
        assert self.socket.recv(1000).startswith(b"HTTP/1.1 100 ")

    def refused(self) -> bool:
        """Says whether the server takes no more connections."""
        try:
            socket.create_connection(self._address, 1).close()
        except OSError:
            return True
        return False

    def finish(self) -> bytes:
        """Sends the body, returns all that comes back until the server closes the connection."""
        self.socket.sendall(self._body)
        answer = b""
        while part := self.socket.recv(65536):
            answer += part
        self.socket.close()
        return answer


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_under_load_loses_no_request(serve: Callable[..., Running], packed: Path, number: int) -> None:
    """What is in the log was answered and what was answered is in the log, each with its shadow; status 0."""
    running = serve(packed)
    load = Load(running)

    running.process.send_signal(number)

    assert running.process.wait(20) == 0
    answered = load.join()
    events = read_events(running.outbox)
    assert {event.subject for event in events if isinstance(event, Prediction)} == answered
    assert {event.subject for event in events if isinstance(event, Shadow)} == answered
    # The first server over these bundles also tells that it keeps their route document.
    assert len([event for event in events if not isinstance(event, Audited)]) == 2 * len(answered)
    assert "Traceback" not in str(running.process.stderr and running.process.stderr.read())


def test_a_request_that_has_begun_is_answered_after_the_signal(serve: Callable[..., Running], packed: Path) -> None:
    """The listener closes at once, the request's body still comes, its answer goes out and into the log."""
    running = serve(packed)
    held = Held(running, "held")

    running.process.send_signal(signal.SIGTERM)
    wait_for(held.refused, "the listener to close")
    answer = held.finish()

    assert running.process.wait(20) == 0
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"}")
    assert {event.subject for event in read_events(running.outbox)} == {"held"}


def test_a_request_that_never_ends_is_not_waited_for_beyond_the_drain(
    serve: Callable[..., Running], packed: Path
) -> None:
    """After `drain_s` the server goes, with status 0 and the log flushed."""
    running = serve(packed, TILTYARD_DRAIN_S="0.3")
    running.client.post("/v2/models/flight/infer", json=tensors(id="whole")).raise_for_status()
    held = Held(running, "held")

    running.process.send_signal(signal.SIGTERM)

    assert running.process.wait(8) == 0
    held.socket.close()
    assert [event.subject for event in read_events(running.outbox)] == ["whole", "whole"]


def test_a_stopping_server_is_not_ready_and_answers_for_the_delay(serve: Callable[..., Running], packed: Path) -> None:
    """A balancer has the time to leave; the second signal ends the delay."""
    running = serve(packed, TILTYARD_STOP_DELAY_S="60")
    assert running.client.get("/v2/health/ready").status_code == 200

    running.process.send_signal(signal.SIGTERM)
    wait_for(lambda: running.client.get("/v2/health/ready").status_code == 503, "not being ready")
    answer = running.client.post("/v2/models/flight/infer", json=tensors(id="late"))
    running.process.send_signal(signal.SIGTERM)

    assert answer.status_code == 200
    assert running.process.wait(8) == 0
    assert "late" in {event.subject for event in read_events(running.outbox)}


def test_what_http_itself_refuses_is_counted(serve: Callable[..., Running], packed: Path) -> None:
    """Without a model: it is not known what the request was about."""
    running = serve(packed)
    address = (str(running.client.base_url.host), int(running.client.base_url.port or 0))

    with socket.create_connection(address, 20) as malformed:
        malformed.sendall(b"GARBAGE\r\n\r\n")
        answer = malformed.recv(1000)

    assert answer.startswith(b"HTTP/1.1 400 ")
    series = 'tiltyard_requests_total{code="400",model="",role="none",version=""}'
    assert running.metric(series) == 1


def test_a_second_signal_ends_at_once_and_flushes_too(serve: Callable[..., Running], packed: Path) -> None:
    """Ctrl-C twice skips the drain, not the log."""
    running = serve(packed, TILTYARD_EVENTS__COMMIT_INTERVAL_MS="20")
    held, last = Held(running, "held"), Held(running, "last")
    running.process.send_signal(signal.SIGINT)
    wait_for(held.refused, "the listener to close")

    assert last.finish().startswith(b"HTTP/1.1 200 OK")
    running.process.send_signal(signal.SIGINT)

    assert running.process.wait(8) == 0
    held.socket.close()
    assert "last" in {event.subject for event in read_events(running.outbox)}


def test_a_kill_loses_no_answer_that_was_promised(serve: Callable[..., Running], packed: Path) -> None:
    """With `durability = "commit"` every answer a client has seen is in the file of a server that was killed."""
    running = serve(packed, TILTYARD_EVENTS__DURABILITY="commit")
    load = Load(running)

    running.process.kill()

    answered = load.join()
    before = read_events(running.outbox)
    assert answered <= {event.subject for event in before if isinstance(event, Prediction)}
    again = serve(packed, running.outbox)
    again.client.post("/v2/models/flight/infer", json=tensors(id="after")).raise_for_status()
    after = again.events()
    assert [event.id for event in after[: len(before)]] == [event.id for event in before]
    assert after[len(before)].subject == "after"


def test_a_kill_loses_at_most_what_was_not_committed(serve: Callable[..., Running], packed: Path) -> None:
    """Without it, everything a reader had seen before the kill is still there, in the same places."""
    running = serve(packed)
    load = Load(running)
    seen = read_events(running.outbox)

    running.process.kill()

    load.join()
    kept = read_events(running.outbox)
    assert len(seen) > 0
    assert [event.id for event in kept[: len(seen)]] == [event.id for event in seen]


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
        statuses = []
        with httpx.Client(base_url=url_of(process), timeout=30) as client:
            running = Running(process, client, outbox)
            while running.metric('tiltyard_events_total{outcome="dropped"}') == 0 and 503 not in statuses[-1:]:
                rows = {"rows": [{"hour": 1, "distance": 2.0}] * 400}
                statuses.append(client.post("/v1/models/grid/predict", json=rows).status_code)
                assert len(statuses) < 2000

            ready = client.get("/v2/health/ready")
            label = client.post("/v1/feedback", json={"id": "r", "label": 1})
            text = client.get("/metrics").text
        process.terminate()
        assert process.wait(20) == 0

    assert (ready.status_code, "cannot commit" in ready.json()["error"]) == (503, True)
    assert label.status_code == 503
    assert set(statuses) == ({200} if when_full == "shed" else {200, 503})
    series = [
        line for line in text.splitlines() if line.startswith("tiltyard_requests_total{") and 'role="none"' not in line
    ]
    counted = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("tiltyard_event"))
    logged, dropped = (float(counted[f'tiltyard_events_total{{outcome="{name}"}}']) for name in ("logged", "dropped"))
    answered = sum(float(line.rsplit(" ", 1)[1]) for line in series)
    assert answered == len(statuses)
    assert logged + dropped + float(counted["tiltyard_event_backlog"]) == answered
    assert len(read_events(outbox)) == logged


def refused(*arguments: str, **env: str) -> str:
    """Returns the one sentence with which a start is refused."""
    run = subprocess.run([*SERVE, *arguments], capture_output=True, text=True, timeout=30, env={**os.environ, **env})
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    return run.stderr.strip().splitlines()[-1]


def test_starts_that_are_refused(serve: Callable[..., Running], packed: Path, tmp_path: Path) -> None:
    """Each in one sentence that names what and where, and before a log is made."""
    free = ("--models", str(packed), "--outbox", str(tmp_path / "other.db"))
    foreign, text, newer = tmp_path / "foreign.db", tmp_path / "text.db", tmp_path / "newer.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE t (x)")
    text.write_text("this is no database" * 100)
    running = serve(packed)
    port = str(running.client.base_url.port)

    assert "Address already in use" in refused("--port", port, *free)
    assert "only writer" in refused("--models", str(packed), "--outbox", str(running.outbox))
    assert "expected a folder of bundles, found none" in refused(*free, "--models", str(tmp_path / "none"))
    assert "another program's SQLite file" in refused("--models", str(packed), "--outbox", str(foreign))
    assert "text.db" in refused("--models", str(packed), "--outbox", str(text))
    assert "expected a folder that can be written" in refused("--models", str(packed), "--outbox", "/proc/x/outbox.db")
    assert "expected a TOML file, found none" in refused(*free, "--config", str(tmp_path / "none.toml"))
    assert "expected an address of this machine" in refused(*free, "--host", "a..b")
    for workers in ("1", "2"):
        assert "tls.certificate none.pem: expected a file that can be read, got: " in refused(
            *free, "--workers", workers, TILTYARD_TLS__CERTIFICATE="none.pem", TILTYARD_TLS__KEY="none.pem"
        )
    assert "log_level: " in refused(*free, "--log-level", "loud")
    assert "events.queue_bytes: " in refused(*free, TILTYARD_EVENTS__QUEUE_BYTES="few")
    assert not (tmp_path / "other.db").exists()
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
