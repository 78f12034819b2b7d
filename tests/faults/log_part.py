"""The log as a part of the stage: where it is, what is in it, and whether a monitor has read it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from server.eventlog.log_reader import read_log
from tests.faults.commands import Monitor


class LogPart(Protocol):
    """One kind of log."""

    name: str
    in_topic: int | None
    """How many deliveries the topic holds, None where there is none."""

    def server_settings(self) -> Mapping[str, str]:
        """Returns what a server must be told."""
        ...

    def monitor_settings(self) -> Mapping[str, str]:
        """Returns what a monitor must be told."""
        ...

    def drain(self, outbox: Path) -> None:
        """Returns once nothing of the file is still on its way to where monitors read."""
        ...

    def lines(self, outbox: Path) -> list[bytes]:
        """Returns every delivery of an event that a monitor can read, each request's in their order."""
        ...

    def read(self, monitor: Monitor, lines: Sequence[bytes]) -> bool:
        """Says whether a monitor has read all of them."""
        ...


class EmbeddedLog:
    """The outbox itself."""

    name = "embedded"
    in_topic: int | None = None

    def server_settings(self) -> Mapping[str, str]:
        """Returns nothing: it is the default."""
        return {}

    def monitor_settings(self) -> Mapping[str, str]:
        """Returns nothing."""
        return {}

    def drain(self, outbox: Path) -> None:
        """Returns at once."""

    def lines(self, outbox: Path) -> list[bytes]:
        """Returns every event of the file."""
        return list(read_log(outbox))

    def read(self, monitor: Monitor, lines: Sequence[bytes]) -> bool:
        """Compares offsets: nothing of this log is trimmed."""
        return bool(monitor.health()["source"]["offset"] == len(lines))
