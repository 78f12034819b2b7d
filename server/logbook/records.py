"""What a topic holds, without its client."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from server.logbook.outbox_file import Bounds


class Record(NamedTuple):
    """A record of the topic: where it stands, its key and the event's line; both None where a record has none."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


class Topic(Protocol):
    """A topic that can be read; ``partitions`` are its partitions' numbers, from 0."""

    partitions: list[int]

    def bounds(self) -> dict[int, Bounds]:
        """Returns where each partition begins and ends now."""
        ...

    def read(self, starts: Mapping[int, int], ends: Mapping[int, int] | None = None) -> Iterator[list[Record]]:
        """Yields records of the given partitions from offset to offset, without ends for ever."""
        ...


def newest_starts(bounds: Mapping[int, Bounds], count: int) -> dict[int, int]:
    """Returns from where on each partition certainly holds what of the newest events it has."""
    return {place: max(each.start, each.end - count) for place, each in bounds.items()}


def total(bounds: Mapping[int, Bounds]) -> int:
    """Returns how many offsets lie within the bounds of all partitions."""
    return sum(bound.end - bound.start for bound in bounds.values())
