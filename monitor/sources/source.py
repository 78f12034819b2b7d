"""What the monitor asks of a log, whatever keeps it."""

from typing import NamedTuple, Protocol


class Refused(NamedTuple):
    """A stretch of the log that cannot be read: its first offset, how many events, why, and the bytes."""

    offset: int
    events: int
    reason: str
    detail: str
    payload: bytes


class Batch(NamedTuple):
    """What was read: lines with their offsets, what cannot be read, what is gone, and where to read on.

    ``gap_events`` were trimmed from the log before they were read.
    """

    lines: list[tuple[int, bytes]]
    refused: list[Refused]
    gap_events: int
    next_offset: int


class Bounds(NamedTuple):
    """The first offset still in the log, and where the next event will go."""

    start: int
    end: int


class Source(Protocol):
    """An ordered log of events; an event's offset is its place, from 0."""

    @property
    def log_id(self) -> str:
        """The log's own name: an offset means nothing in another log."""

    def read(self, offset: int, limit: int) -> Batch:
        """Returns events from an offset on, about ``limit`` of them; none when there is nothing new.

        Raises:
            SourceBusyError: not now.
            SourceError: not any more.
        """

    def bounds(self) -> Bounds:
        """Returns where the log begins and ends. Raises as ``read`` does."""

    def close(self) -> None:
        """Lets go of the log."""
