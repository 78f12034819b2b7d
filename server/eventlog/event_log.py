"""What the pipeline, feedback and the metrics need of a log, whichever process writes it."""

from collections.abc import Sequence
from typing import Protocol

from server.eventlog.erasure import Found


class EventLog(Protocol):
    """A log of events: the outbox itself, or in a worker process the way to the supervisor's."""

    @property
    def failure(self) -> str | None:
        """Why events do not reach the disk at present, None while they do."""
        ...

    @property
    def backlog(self) -> int:
        """How many events of the whole server wait for their commit."""
        ...

    @property
    def committed_events(self) -> int:
        """How many events of the whole server are in the log."""
        ...

    @property
    def dropped_events(self) -> int:
        """How many events of the whole server there was no room for, or the disk refused to the end."""
        ...

    @property
    def sampled_out_events(self) -> int:
        """How many events of the whole server were left out of the log, which is a sample."""
        ...

    @property
    def full(self) -> bool:
        """Whether there is no room for another event."""
        ...

    @property
    def alive(self) -> bool:
        """Whether events still reach the disk."""
        ...

    def append(self, line: bytes) -> bool:
        """Queues one event, returns whether there was room; without, it is counted as dropped."""
        ...

    def leave_out(self, events: int = 1) -> None:
        """Counts events that the sample leaves out."""
        ...

    async def committed(self) -> None:
        """Returns once everything appended so far is on disk, synced, or raises OutboxError."""
        ...

    async def append_durably(self, lines: Sequence[bytes]) -> None:
        """Appends all lines, or none, and returns once they are on disk, synced, or raises OutboxError."""
        ...

    async def forget(self, found: Found) -> None:
        """Returns once events are forgotten and their bytes are gone from the log's files, or raises OutboxError."""
        ...

    def close(self) -> None:
        """Writes what waits, and ends."""
        ...
