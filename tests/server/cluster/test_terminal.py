"""Several workers at a real terminal: what is typed there is for the supervisor alone."""

import os
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from server.eventlog.ship_status import read_status
from tests.server.live_server import DEADLINE_S, Running, body, tensors, url_of, wait_for

pytestmark = pytest.mark.skipif(
    not Path("/proc/self").exists(), reason="finds workers in /proc, which this system does not have"
)

# A shell that leads a session gets the terminal it opens, and becomes the server.
AT_TERMINAL = ["sh", "-c", 'terminal=$1; shift; exec "$@" <"$terminal"', "sh"]
SERVE = [sys.executable, "-m", "server.cli", "serve", "--port", "0", "--workers", "2"]
NO_BROKER = {"TILTYARD_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}
CTRL_C = b"\x03"


@dataclass
class AtTerminal(Running):
    """A server and the end of its terminal at which a person types."""

    keyboard: int


@pytest.fixture
def at_terminal(packed: Path, tmp_path: Path) -> Iterator[AtTerminal]:
    """Two workers and a shipper, the supervisor in the foreground; who else writes is stopped (`stty tostop`)."""
    outbox = tmp_path / "outbox.db"
    keyboard, terminal = os.openpty()
    attributes = termios.tcgetattr(terminal)
    attributes[3] |= termios.TOSTOP
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)
    with (
        open(keyboard, encoding="utf-8") as screen,
        subprocess.Popen(
            [*AT_TERMINAL, os.ttyname(terminal), *SERVE, "--models", str(packed), "--outbox", str(outbox)],
            stdout=terminal,
            stderr=terminal,
            text=True,
            start_new_session=True,
            env={**os.environ, **NO_BROKER},
        ) as process,
    ):
        os.close(terminal)
        process.stderr = screen
        too_late = threading.Timer(DEADLINE_S, process.kill)  # what is stopped says nothing, for ever
        too_late.start()
        try:
            url = url_of(process)
            too_late.cancel()
            with httpx.Client(base_url=url, timeout=DEADLINE_S) as client:
                yield AtTerminal(process, client, outbox, keyboard)
        finally:
            process.kill()


def children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    return sorted(int(word) for children in threads for word in children.read_text().split())


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0]


def test_a_ctrl_c_reaches_the_supervisor_alone(at_terminal: AtTerminal) -> None:
    """While the supervisor cannot act on it, its workers go on as if nothing had been typed; then all end well."""
    supervisor = at_terminal.process
    processes = children(supervisor.pid)
    url = at_terminal.client.base_url.join("/v2/models/flight/infer")
    os.kill(supervisor.pid, signal.SIGSTOP)
    wait_for(lambda: state(supervisor.pid) == "T", "the supervisor to stop")

    os.write(at_terminal.keyboard, CTRL_C)
    wait_for(lambda: pending(supervisor.pid, signal.SIGINT), "the Ctrl-C")

    assert {httpx.post(url, content=body(tensors()), timeout=DEADLINE_S).status_code for _ in range(12)} == {200}
    assert children(supervisor.pid) == processes
    os.kill(supervisor.pid, signal.SIGCONT)
    assert supervisor.wait(20) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in processes)


def test_a_terminal_that_stops_the_background_does_not_stop_what_is_needed(at_terminal: AtTerminal) -> None:
    """Workers and shipper share its session, within which niceness counts, and go on where they write to it."""
    supervisor = at_terminal.process.pid
    processes = children(supervisor)
    assert len(processes) == 3
    assert {os.getsid(pid) for pid in processes} == {supervisor}

    unloaded = at_terminal.client.post("/v2/repository/models/grid/unload", json={})  # a worker says so

    assert unloaded.status_code == 200
    wait_for(lambda: read_status(at_terminal.outbox).state == "disconnected", "the shipper to say that none answers")
    assert {state(pid) for pid in processes} <= {"R", "S"}


def pending(pid: int, number: signal.Signals) -> bool:
    """Says whether a signal waits for a process that is stopped."""
    status = Path(f"/proc/{pid}/status").read_text()
    [mask] = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("ShdPnd:")]
    return bool(mask & 1 << (number - 1))
