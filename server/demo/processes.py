"""The demo's server and monitor: the same commands a user would type, started and stopped cleanly."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from server.errors import TiltyardError

START_S = 30.0
STOP_S = 15.0


class ProcessError(TiltyardError):
    """A command did not start, died, or did not end when asked."""


class Command:
    """One running ``tiltyard`` command, its output in a log file."""

    def __init__(self, name: str, arguments: list[str], env: Mapping[str, str], log: Path, health_url: str) -> None:
        """name: the subcommand; env: added to this process's own; health_url: answers 200 once it is ready."""
        self.name = name
        self._log = log
        self._health_url = health_url
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "server.cli", name, *arguments],
                env={**os.environ, **env},
                stdout=output,
                stderr=subprocess.STDOUT,
                # A Ctrl-C is for the demo, which then stops its commands in order.
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_until_ready(self) -> None:
        """Returns once the command answers.

        Raises:
            ProcessError: it ended, or does not answer in time; the end of its log says why.
        """
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            self.check()
            try:
                if httpx.get(self._health_url).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise ProcessError(f"tiltyard {self.name}: expected an answer within {START_S:.0f} s; its log: {self._tail()}")

    def check(self) -> None:
        """Raises ProcessError if the command has ended by itself."""
        if self._process.poll() is not None:
            raise ProcessError(f"tiltyard {self.name}: ended with status {self._process.returncode}: {self._tail()}")

    def stop(self) -> None:
        """Ends the command: a signal, time to drain, and only then by force."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise ProcessError(f"tiltyard {self.name}: expected it to stop within {STOP_S:.0f} s") from None
        if status != 0:
            raise ProcessError(f"tiltyard {self.name}: expected to end with status 0, got {status}: {self._tail()}")

    def _tail(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:]) or "(it said nothing)"


def free_port(preferred: int) -> int:
    """Returns the preferred port of the loopback address, or another one when it is taken."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ProcessError("expected a free port on 127.0.0.1, found none")
