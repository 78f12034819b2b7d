"""Server, log, monitor and load, all real, for one fault to be tried on again and again."""

import os
import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from server.eventlog.log_reader import read_log
from tests.faults.balance import Balance, contents, folded, loss
from tests.faults.commands import Command, Monitor, Server
from tests.faults.load import Load
from tests.faults.log_part import LogPart
from tests.faults.models import MODEL
from tests.faults.undisturbed import findings_over
from tests.kafka.broker import free_ports
from tests.patience import until

READ_S = 300.0
"""How long a monitor that was killed again and again may take for what it could not read meanwhile."""

_Command = TypeVar("_Command", bound=Command)


class Stage:
    """The parts, running. Leaving the context ends them all.

    Args:
        folder: takes the state; the outbox as well where ``outbox`` is not given.
        models: the bundles.
        log: which log.
        seed: of the load.
        server: settings of the server, as variables.
        outbox: where the log's file is.
        rows: of each request.
    """

    def __init__(
        self,
        folder: Path,
        models: Path,
        log: LogPart,
        seed: int,
        server: Mapping[str, str] | None = None,
        outbox: Path | None = None,
        rows: int = 1,
    ) -> None:
        self.outbox = outbox or folder / "outbox.db"
        self.log = log
        self.crashes: list[float] = []
        self._folder = folder
        self._models = models
        self._settings = {**log.server_settings(), **(server or {})}
        self._durable = self._settings.get("TILTYARD_EVENTS__DURABILITY") == "commit"
        self.blocks = self._settings.get("TILTYARD_EVENTS__WHEN_FULL") == "block"
        self._began = time.monotonic()
        [self._port] = free_ports(1)
        self._commands: list[Command] = []
        self._stack = ExitStack()
        with ExitStack() as stack:
            stack.callback(self._close)
            self.server = self._new_server()
            self.monitor = self._new_monitor()
            self.server.ready()
            self.monitor.ready()
            self.load = Load(self._port, seed, rows=rows)
            self._stack.push(stack.pop_all())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def start_server(self) -> None:
        """Starts a server on the log that is there. Returns once it answers."""
        self.server = self._new_server()
        self.server.ready()

    def crash_server(self) -> None:
        """Kills the process that writes the log, in mid-load, and starts another in its place."""
        self.kill_server()
        self.start_server()
        self.load.release()

    def kill_server(self) -> None:
        """Kills the process that writes the log; clients wait until ``load.release``."""
        self.load.hold()
        os.kill(self.server.process.pid, signal.SIGKILL)
        self.crashes.append(time.monotonic())
        self.server.process.wait()

    def crash_monitor(self) -> None:
        """Kills the monitor and starts it again with the state that is there."""
        self.monitor.kill()
        self.monitor = self._new_monitor()
        self.monitor.ready()

    def dropped(self) -> int:
        """Returns how many events the server has counted as dropped."""
        return int(self.server.metric('tiltyard_events_total{outcome="dropped"}'))

    def another_monitor(self, name: str) -> Monitor:
        """Returns one more monitor, with a state of its own; it answers."""
        monitor = self._new_monitor(name)
        monitor.ready()
        return monitor

    def settle(self, fault: str, rounds: int, anew: bool = False) -> Balance:
        """Ends the load and the server in order, lets everything be read, and returns the books.

        Another monitor reads the same events from their beginning, and nothing happens to it: its findings are the
        undisturbed ones.

        Args:
            fault: what the books are called.
            rounds: how often it was made.
            anew: what monitors read has lost what it had, so that promises are held against the outbox and the
                monitor starts over.
        """
        self.load.end()
        until(lambda: self.server.metric("tiltyard_event_backlog") == 0, "the backlog")
        dropped = self.dropped()
        self.log.drain(self.outbox)
        self.server.stop()
        self.lines = self.log.lines(self.outbox)
        found = contents(self.lines)
        logged = set(read_log(self.outbox))
        if anew:
            self.monitor = self.another_monitor("anew")
        until(lambda: self.log.read(self.monitor, self.lines), "the monitor to have read everything", READ_S)
        findings = self.monitor.findings(MODEL)
        lost = loss(self.load, contents(logged) if anew else found, self.crashes, self._durable, dropped)
        requests, labelled = folded(findings, "requests"), folded(findings, "labelled")
        return Balance(
            fault=fault,
            log=self.log.name,
            rounds=rounds,
            answered=self.load.answers,
            labels=len(self.load.accepted),
            logged=len(logged),
            dropped=dropped,
            in_topic=self.log.in_topic,
            shed=lost.shed,
            lost_stated=lost.stated,
            oldest_lost_ms=lost.oldest_s * 1000,
            lost=len(lost.beyond) + (0 if anew else len(logged.difference(self.lines))),
            doubled_in_log=found.doubled,
            folded=sum(requests.values()),
            doubled=_above(requests, found.answers) + _above(labelled, found.labelled),
            missed=_above(found.answers, requests) + _above(found.labelled, labelled),
            findings_equal=findings == findings_over(self._folder / "undisturbed", self._models, self.lines),
            examples=lost.beyond[:5],
            seconds=time.monotonic() - self._began,
        )

    def _new_server(self) -> Server:
        return self._kept(Server(self._models, self.outbox, self._port, self._settings))

    def _new_monitor(self, name: str = "monitor") -> Monitor:
        state = self._folder / f"{name}.db"
        return self._kept(Monitor(self._models, self.outbox, state, self.log.monitor_settings()))

    def _kept(self, command: _Command) -> _Command:
        self._commands.append(command)
        return command

    def _close(self) -> None:
        for command in self._commands:
            command.close()


def _above(these: Mapping[str, int], those: Mapping[str, int]) -> int:
    """Returns by how much counts exceed others, over all versions."""
    return sum(max(0, count - those.get(version, 0)) for version, count in these.items())
