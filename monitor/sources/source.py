"""What the monitor asks of a log, whatever keeps it.

A log has partitions, numbered from 0; all events of a request stand in one of them, in order. A source says which
partitions are this monitor's to read (``Assigned``), when each can be begun with (``TakenOver``), then what stands in
them (``Delivery``), and when others shall read them (``Revoked``). Nothing comes of a partition before ``seek`` has
said from where on. Where several monitors share a log, the source also carries what they tell each other of it.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from monitor.publication import Publication


class Refused(NamedTuple):
    """A stretch of the log that cannot be read: its first offset, how many events, why, and the bytes."""

    offset: int
    events: int
    reason: str
    detail: str
    payload: bytes


class Letter(NamedTuple):
    """A refused entry of a partition, for the topic of such."""

    offset: int
    reason: str
    detail: str
    payload: bytes


class Mark(NamedTuple):
    """The last event read: its offset and the CRC-32 of its bytes. It tells a log from another of the same name."""

    offset: int
    crc32: int


class Batch(NamedTuple):
    """What was read: lines with their offsets, what cannot be read, what is gone, and where to read on.

    ``gap_events`` were trimmed from the log before they were read.
    """

    lines: list[tuple[int, bytes]]
    refused: list[Refused]
    gap_events: int
    next_offset: int


class Delivery(NamedTuple):
    """What was read of one partition from an offset on; ``mark`` is the last event, if the log is told by it."""

    partition: int
    offset: int
    batch: Batch
    mark: Mark | None


class Assigned(NamedTuple):
    """These partitions of the log are this monitor's from now on; the log has ``of`` in all."""

    log_id: str
    partitions: tuple[int, ...]
    of: int


class Revoked(NamedTuple):
    """No partition is this monitor's any more. Whoever reads this says ``given_up`` when all is committed."""


class Stopped(NamedTuple):
    """A partition that cannot be read on, for a reason that a person must look into."""

    partition: int
    reason: str


class TakenOver(NamedTuple):
    """Nobody else publishes an assigned partition any more, and what was published came before this.

    ``panes_end`` is where the topic of panes ends, None where there is none.
    """

    partition: int
    panes_end: int | None


class Received(NamedTuple):
    """What a monitor, this one or another, has published; ``next_offset`` is where it is read on."""

    publication: Publication
    next_offset: int


class Acknowledged(NamedTuple):
    """What was last published of a partition is there for the others."""

    partition: int


Message = Assigned | TakenOver | Delivery | Revoked | Stopped | Received | Acknowledged


class Bounds(NamedTuple):
    """The first offset still in the log, and where the next event will go."""

    start: int
    end: int


class Source(Protocol):
    """An ordered log of events, in partitions; an event's offset is its place in its partition, from 0."""

    @property
    def waiting(self) -> str | None:
        """Returns what is waited for, None while the log can be read."""

    @property
    def rebuilt(self) -> int:
        """Returns how often the connection was made anew because nothing came although there was something."""

    def next(self, limit: int) -> Message | None:
        """Returns what there is to know, about ``limit`` events at most; None, at once, when there is nothing new.

        Raises:
            SourceBusyError: not now.
            SourceError: not any more.
        """

    def seek(self, partition: int, offset: int, mark: Mark | None) -> None:
        """Says from where on an assigned partition is to be read; ``mark`` is the last event that was."""

    def ends(self) -> Mapping[int, int]:
        """Returns where the next event of each assigned partition will go, as far as known. Raises as ``next`` does."""

    def committed(self, offsets: Iterable[tuple[int, int]]) -> None:
        """Takes note of how far partitions are folded and saved, for others to see."""

    @property
    def shared(self) -> bool:
        """Whether others read the log, too, and are to be told."""

    def publish(self, publication: Publication, letters: list[Letter]) -> None:
        """Tells the others of a partition, which ``Acknowledged`` answers; and sets refused entries aside for all."""

    def given_up(self) -> None:
        """Says that everything read before ``Revoked`` is committed."""

    def close(self) -> None:
        """Lets go of the log."""
