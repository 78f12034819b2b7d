"""The server and the monitor as an operator has them: processes that can be killed and started again."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.patience import PATIENCE_S

_URL = re.compile(r"(?:ready at|tiltyard monitor:) (https?://\S+)")
_KEPT_LINES = 400

PANES = {"length_s": 1.0, "grace_s": 0.0}
JOIN = {"ttl_s": 2 * 365 * 86_400.0, "maturity_s": 1.0}
"""How monitors cut time here: many panes in a short test, and an answer waits two years for its label."""


class Command:
    """One running `tiltyard` command. What it says is kept, and read to its end so that it never waits for us."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """Starts the command; ``ready`` waits for it."""
        self.said: list[str] = []
        self.url = ""
        self._ready = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "server.cli", *arguments],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name="command-output", daemon=True)
        self._reader.start()

    def ready(self) -> None:
        """Returns once the command answers.

        Raises:
            AssertionError: it ended, or does not answer in time.
        """
        in_time = self._ready.wait(PATIENCE_S)
        if not self.url:
            self.kill()
            what = "ended" if in_time else f"did not answer within {PATIENCE_S:g} s"
            raise AssertionError(f"{self.process.args} {what}: {self.tail()}")

    def kill(self) -> None:
        """Ends it as a crash does. Returns once it is gone."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Ends it as an administrator does.

        Raises:
            AssertionError: it does not end, or not with status 0.
        """
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.process.args} did not end within {PATIENCE_S:g} s: {self.tail()}") from None
        self._close()
        assert status == 0, f"{self.process.args} ended with {status}: {self.tail()}"

    def close(self) -> None:
        """Ends it if it still runs, with everything it started."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()
        self._close()

    def tail(self) -> str:
        """Returns the end of what it said."""
        return " / ".join(self.said[-20:]) or "(it said nothing)"

    def children(self) -> list[int]:
        """Returns the process ids of what it started itself and what still runs."""
        pid = self.process.pid
        words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(word) for word in words if runs(int(word))]

    def _close(self) -> None:
        self._reader.join(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.rstrip())
            del self.said[:-_KEPT_LINES]
            if found := _URL.search(line):
                self.url = found[1]
                self._ready.set()
        self._ready.set()


class Server(Command):
    """A `tiltyard serve`."""

    def __init__(self, models: Path, outbox: Path, port: int, environment: Mapping[str, str]) -> None:
        """port: the one it always has, so that its clients find it again."""
        files = ("--models", str(models), "--outbox", str(outbox))
        super().__init__(("serve", "--port", str(port), *files), environment)

    def metric(self, series: str) -> float:
        """Returns a series of /metrics, 0 where it is absent."""
        for line in httpx.get(self.url + "/metrics", timeout=PATIENCE_S).text.splitlines():
            if line.startswith(series + " "):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def workers(self) -> list[int]:
        """Returns the process ids of its workers, where it has several."""
        return [pid for pid in self.children() if "server.cluster" in _command_line(pid)]

    def shippers(self) -> list[int]:
        """Returns the process ids of what moves its log to Kafka."""
        return [pid for pid in self.children() if "shipper" in _command_line(pid)]


class Monitor(Command):
    """A `tiltyard monitor`, which cuts panes of a second and commits often, so that a kill meets it in mid-stream."""

    def __init__(self, models: Path, outbox: Path, state: Path, environment: Mapping[str, str]) -> None:
        files = ("--models", str(models), "--outbox", str(outbox), "--state", str(state))
        often = {
            **{f"TILTYARD_MONITOR_PANE__{name.upper()}": str(value) for name, value in PANES.items()},
            **{f"TILTYARD_MONITOR_JOIN__{name.upper()}": str(value) for name, value in JOIN.items()},
            "TILTYARD_MONITOR_BATCH_EVENTS": "100",
            "TILTYARD_MONITOR_COMMIT_S": "0.02",
            "TILTYARD_MONITOR_POLL_S": "0.01",
        }
        super().__init__(("monitor", "--port", "0", *files), {**often, **environment})

    def health(self) -> Any:
        """Returns what /health says."""
        return httpx.get(self.url + "/health", timeout=PATIENCE_S).json()

    def findings(self, model: str) -> Any:
        """Returns all findings of a model: every pane, every comparison."""
        answer = httpx.get(f"{self.url}/v1/models/{model}?panes=1000000", timeout=PATIENCE_S, follow_redirects=True)
        assert answer.status_code == 200, f"{answer.url}: expected status 200, got {answer.status_code}: {answer.text}"
        return answer.json()


def runs(pid: int) -> bool:
    """Says whether a process runs; one that has ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:  # it has ended meanwhile
        return ""
