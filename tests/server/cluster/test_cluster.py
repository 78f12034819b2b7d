"""Several workers behind one socket: whoever is killed, nothing that was answered is lost and all agree."""

import contextlib
import itertools
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from server.contract.events import Prediction
from tests.server.live_server import Running, read_events, tensors, wait_for

pytestmark = pytest.mark.skipif(
    not Path("/proc/self").exists(), reason="finds workers in /proc, which this system does not have"
)

INFER = "/v2/models/flight/infer"
SERVE = [sys.executable, "-m", "server.cli", "serve", "--port", "0"]


def workers(running: Running) -> list[int]:
    """Returns the process ids of a supervisor's workers."""
    pid = running.process.pid
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def lives(pid: int) -> bool:
    """Says whether a process runs; one that has ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False


def metric(running: Running, series: str) -> float:
    """Returns a series of /metrics over a connection of its own, which any worker may take."""
    for line in httpx.get(running.client.base_url.join("/metrics"), timeout=30).text.splitlines():
        if line.startswith(series + " "):
            return float(line.rsplit(" ", 1)[1])
    return 0.0


def whole(running: Running) -> bool:
    """Says whether all workers accept requests."""
    with contextlib.suppress(httpx.TransportError):
        return metric(running, "tiltyard_workers") == 2.0
    return False


def asked(running: Running, path: str, times: int = 12) -> set[int]:
    """Returns the statuses of one request sent over many connections."""
    return {httpx.get(running.client.base_url.join(path), timeout=30).status_code for _ in range(times)}


class Load:
    """Clients that ask without a pause, on new connections when theirs break."""

    def __init__(self, running: Running, clients: int = 4) -> None:
        self.answered: list[str] = []
        self.others: list[tuple[int, str]] = []
        self._running = running
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(str(n),)) for n in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self, name: str) -> None:
        numbers = itertools.count()
        while not self._over.is_set():
            with (
                contextlib.suppress(httpx.TransportError),
                httpx.Client(base_url=self._running.client.base_url, timeout=30) as client,
            ):
                while not self._over.is_set():
                    answer = client.post(INFER, json=tensors(id=f"{name}-{next(numbers)}"))
                    if answer.status_code == 200:
                        self.answered.append(answer.json()["id"])
                    else:
                        self.others.append((answer.status_code, answer.text))

    def more(self, count: int) -> None:
        """Returns once so many more answers have come."""
        enough = len(self.answered) + count
        wait_for(lambda: len(self.answered) >= enough, "answers")

    def end(self) -> list[str]:
        """Stops asking and returns the ids of all answers."""
        self._over.set()
        for thread in self._threads:
            thread.join(30)
        return self.answered


@pytest.fixture
def cluster(serve: Callable[..., Running], packed: Path) -> Running:
    """A server of two workers."""
    return serve(packed, TILTYARD_WORKERS="2")


def test_workers_killed_under_load_lose_no_answered_event(cluster: Running) -> None:
    """Ten kills in the middle of the load: every answer is in the log once, and counters never run backwards."""
    rng = random.Random(7)
    load = Load(cluster)
    counted = [0.0]
    killed = 0

    while killed < 10:
        load.more(rng.randrange(50, 150))
        if alive := [pid for pid in workers(cluster) if lives(pid)]:
            os.kill(rng.choice(alive), signal.SIGKILL)
            killed += 1
        with contextlib.suppress(httpx.TransportError):  # it may have been the one that was killed
            series = 'tiltyard_requests_total{code="200",model="flight",role="champion",version="1"}'
            counted.append(metric(cluster, series))

    answered = load.end()
    wait_for(lambda: whole(cluster), "the last successor")
    logged = metric(cluster, 'tiltyard_events_total{outcome="logged"}')
    cluster.process.send_signal(signal.SIGTERM)
    assert cluster.process.wait(20) == 0
    events = read_events(cluster.outbox)
    ids = [event.subject for event in events if isinstance(event, Prediction)]
    assert load.others == []
    assert set(answered) - set(ids) == set()
    assert len({event.id for event in events}) == len(events) >= logged
    assert counted == sorted(counted)
    assert counted[-1] > 100


def test_a_killed_supervisor_takes_its_workers_along(cluster: Running) -> None:
    """Within a second of a kill -9 no worker is left, however busy they were."""
    load = Load(cluster)
    load.more(50)
    pids = workers(cluster)

    cluster.process.kill()
    killed_at = time.monotonic()
    wait_for(lambda: not any(map(lives, pids)), "the workers' end")

    assert time.monotonic() - killed_at < 1.0
    assert len(pids) == 2
    load.end()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_under_load_loses_no_event(cluster: Running, number: signal.Signals) -> None:
    """Every answer is in the log, no worker is left, status 0, and nobody complains."""
    load = Load(cluster)
    load.more(200)
    pids = workers(cluster)

    cluster.process.send_signal(number)

    assert cluster.process.wait(20) == 0
    answered = load.end()
    assert not any(map(lives, pids))
    events = read_events(cluster.outbox)
    assert set(answered) <= {event.subject for event in events if isinstance(event, Prediction)}
    assert load.others == []
    assert cluster.process.stderr is not None
    assert [line for line in cluster.process.stderr if "Traceback" in line or "ERROR" in line] == []


def test_a_second_signal_ends_at_once_and_loses_no_event(cluster: Running) -> None:
    """A request that never arrives whole holds a worker back; the second signal does not wait for it."""
    load = Load(cluster)
    load.more(100)
    url = cluster.client.base_url
    with socket.create_connection((str(url.host), int(url.port or 0)), 20) as held:
        held.sendall(f"POST {INFER} HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n".encode())
        assert held.recv(1000).startswith(b"HTTP/1.1 100 ")
        cluster.process.send_signal(signal.SIGTERM)
        load.end()
        with pytest.raises(subprocess.TimeoutExpired):
            cluster.process.wait(0.5)

        cluster.process.send_signal(signal.SIGINT)
        signalled_at = time.monotonic()

        assert cluster.process.wait(20) == 0
        assert time.monotonic() - signalled_at < 1.0
    ids = {event.subject for event in read_events(cluster.outbox) if isinstance(event, Prediction)}
    assert set(load.answered) <= ids


def test_a_change_holds_in_every_worker_and_its_successors(
    serve: Callable[..., Running], packed: Path, tmp_path: Path
) -> None:
    """Loaded, unloaded, refused: all workers answer alike at once, and so do those that take their places."""
    models = tmp_path / "models"
    shutil.copytree(packed / "flight" / "1", models / "flight" / "1")
    running = serve(models, TILTYARD_WORKERS="2")

    def change(action: str, model: str, version: str) -> httpx.Response:
        return running.client.post(f"/v2/repository/models/{model}/{action}", json={"parameters": {"version": version}})

    shutil.copytree(packed / "flight" / "2", models / "flight" / "2")
    shutil.copytree(packed / "grid" / "1", models / "grid" / "1")
    assert asked(running, "/v2/models/flight/versions/2/ready") == {404}
    assert change("load", "flight", "2").status_code == 200
    assert asked(running, "/v2/models/flight/versions/2/ready") == {200}
    assert change("load", "grid", "1").status_code == 200
    assert change("unload", "flight", "1").status_code == 200
    assert asked(running, "/v2/models/flight/versions/1/ready") == {404}
    shutil.copytree(packed / "delay" / "1", models / "delay" / "1")
    (models / "delay" / "1" / "model.onnx").write_bytes(b"no model")
    refused = change("load", "delay", "1")
    assert (refused.status_code, "model.onnx" in refused.text) == (400, True)
    assert change("load", "absent", "1").status_code == 404
    assert asked(running, "/v2/models/delay/ready") <= {404, 503}

    for pid in workers(running):
        os.kill(pid, signal.SIGKILL)
    running.client.close()
    wait_for(lambda: whole(running), "the successors")

    assert asked(running, "/v2/models/flight/versions/2/ready") == {200}
    assert asked(running, "/v2/models/grid/versions/1/ready") == {200}
    assert asked(running, "/v2/models/flight/versions/1/ready") == {404}


def test_a_log_that_cannot_be_written_is_answered_503_and_recovers(serve: Callable[..., Running], packed: Path) -> None:
    """Under durability "commit" the answer waits for the supervisor's commit, and says why when there is none."""
    running = serve(packed, TILTYARD_WORKERS="2", TILTYARD_EVENTS__DURABILITY="commit")
    assert running.client.post(INFER, json=tensors(id="before")).status_code == 200
    assert "before" in {event.subject for event in read_events(running.outbox)}

    with contextlib.closing(sqlite3.connect(running.outbox, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        refused = running.client.post(INFER, json=tensors(id="while"))
        ready = asked(running, "/v2/health/ready", times=4)
        other.execute("ROLLBACK")

    assert (refused.status_code, "database is locked" in refused.text) == (503, True)
    assert ready == {503}
    wait_for(lambda: asked(running, "/v2/health/ready", times=4) == {200}, "readiness")
    assert running.client.post(INFER, json=tensors(id="after")).status_code == 200
    ids = [event.subject for event in running.events() if isinstance(event, Prediction)]
    assert ids == ["before", "while", "after"]


def test_a_watched_folder_is_followed_by_whoever_leads(
    serve: Callable[..., Running], packed: Path, tmp_path: Path
) -> None:
    """A version that arrives serves in every worker, also after the workers that were there have been killed."""
    models = tmp_path / "models"
    shutil.copytree(packed / "flight" / "1", models / "flight" / "1")
    running = serve(models, TILTYARD_WORKERS="2", TILTYARD_REPOSITORY="watched", TILTYARD_WATCH_S="0.05")

    def arrives(name: str) -> None:
        shutil.copytree(packed / name, tmp_path / "whole")
        (models / name).parent.mkdir(exist_ok=True)
        (tmp_path / "whole").rename(models / name)
        model, version = name.split("/")
        wait_for(lambda: asked(running, f"/v2/models/{model}/versions/{version}/ready") == {200}, name)

    arrives("flight/2")
    for pid in workers(running):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: whole(running), "the successors")
    arrives("grid/1")


def starts(*arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*SERVE, *arguments], env={**os.environ, **env}, capture_output=True, text=True, timeout=30)


def test_a_worker_that_cannot_start_ends_the_server_with_its_sentence(packed: Path, tmp_path: Path) -> None:
    """What a worker finds wrong is what the user reads, once, without a traceback."""
    ended = starts(
        *("--models", str(packed), "--outbox", str(tmp_path / "outbox.db"), "--workers", "2"),
        TILTYARD_TOKENS=str(tmp_path / "none.json"),
    )

    assert ended.returncode == 1
    assert [line for line in ended.stderr.splitlines() if "none.json" in line and "tiltyard serve: " in line]
    assert "Traceback" not in ended.stderr


def test_nothing_is_left_behind(serve: Callable[..., Running], packed: Path, tmp_path: Path) -> None:
    """Two workers have as many files of metrics after a kill as before, and the files go with the server."""
    running = serve(packed, TILTYARD_WORKERS="2", TMPDIR=str(tmp_path))
    (folder,) = tmp_path.glob("tiltyard-metrics-*")
    files = sorted(path.name for path in folder.iterdir())

    os.kill(workers(running)[0], signal.SIGKILL)
    wait_for(lambda: whole(running), "the successor")

    assert sorted(path.name for path in folder.iterdir()) == files
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(20) == 0
    assert not folder.exists()
