"""Several workers at a real terminal: what is typed there is for the supervisor alone."""

import os
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server.live_server import Running, body, tensors, url_of, wait_for

pytestmark = pytest.mark.skipif(
    not Path("/proc/self").exists(), reason="finds workers in /proc, which this system does not have"
)

# A shell that leads a session gets the terminal it opens, and becomes the server.
AT_TERMINAL = ["sh", "-c", 'terminal=$1; shift; exec "$@" <"$terminal"', "sh"]
SERVE = [sys.executable, "-m", "server.cli", "serve", "--port", "0", "--workers", "2"]
CTRL_C = b"\x03"


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """The two ends of a terminal that stops who writes from the background, as after `stty tostop`."""
    ours, its = os.openpty()
    attributes = termios.tcgetattr(its)
    attributes[3] |= termios.TOSTOP
    termios.tcsetattr(its, termios.TCSANOW, attributes)
    yield ours, its
    os.close(its)
    os.close(ours)


@pytest.fixture
def at_terminal(packed: Path, tmp_path: Path, terminal: tuple[int, int]) -> Iterator[Running]:
    """A server of two workers whose supervisor is in the foreground."""
    ours, its = terminal
    outbox = tmp_path / "outbox.db"
    command = [*AT_TERMINAL, os.ttyname(its), *SERVE, "--models", str(packed), "--outbox", str(outbox)]
    with (
        open(os.dup(ours), encoding="utf-8") as screen,
        subprocess.Popen(command, stdout=its, stderr=its, text=True, start_new_session=True) as process,
    ):
        process.stderr = screen
        try:
            with httpx.Client(base_url=url_of(process), timeout=30) as client:
                yield Running(process, client, outbox)
        finally:
            process.kill()


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0]


def test_a_ctrl_c_reaches_the_supervisor_alone(at_terminal: Running, terminal: tuple[int, int]) -> None:
    """While the supervisor cannot act on it, its workers go on as if nothing had been typed; then all end well."""
    supervisor = at_terminal.process
    workers = children(supervisor.pid)
    url = at_terminal.client.base_url.join("/v2/models/flight/infer")
    os.kill(supervisor.pid, signal.SIGSTOP)
    wait_for(lambda: state(supervisor.pid) == "T", "the supervisor to stop")

    os.write(terminal[0], CTRL_C)
    wait_for(lambda: pending(supervisor.pid, signal.SIGINT), "the Ctrl-C")

    assert {httpx.post(url, content=body(tensors()), timeout=30).status_code for _ in range(12)} == {200}
    assert children(supervisor.pid) == workers
    os.kill(supervisor.pid, signal.SIGCONT)
    assert supervisor.wait(20) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_workers_write_to_a_terminal_that_stops_the_background(at_terminal: Running) -> None:
    """They share its session, so that their niceness counts beside the shipper's, and are not stopped for it."""
    supervisor = at_terminal.process.pid
    workers = children(supervisor)
    assert {os.getsid(pid) for pid in workers} == {supervisor}

    unloaded = at_terminal.client.post("/v2/repository/models/grid/unload", json={})

    assert unloaded.status_code == 200
    assert {state(pid) for pid in workers} <= {"R", "S"}


def pending(pid: int, number: signal.Signals) -> bool:
    """Says whether a signal waits for a process that is stopped."""
    status = Path(f"/proc/{pid}/status").read_text()
    [mask] = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("ShdPnd:")]
    return bool(mask & 1 << (number - 1))
