"""The newest events, and those that come after them."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from server.contract.events import Event, decode_event
from server.logbook.outbox_file import Bounds, OutboxFile
from server.logbook.records import Record, Topic, newest_starts
from server.logbook.selection import Selection

_FURTHER: Final = 8


def tail_outbox(log: OutboxFile, selection: Selection, count: int, *, follow: bool) -> Iterator[tuple[bytes, Event]]:
    """Yields the newest wanted events of a log, oldest first, as line and event.

    Args:
        log: open for reading.
        selection: what is wanted.
        count: how many.
        follow: whether to go on for ever with what is committed.
    """
    version, end = log.version(), log.bounds().end
    found: deque[tuple[bytes, Event]] = deque()
    if count:
        for offset, line in log.lines_backwards():
            if offset < end and (wanted := _wanted(line, selection)) is not None:
                found.appendleft((line, wanted))
                if len(found) == count:
                    break
    yield from found
    while follow:
        for offset, line in log.lines(end):
            end = offset + 1
            if (wanted := _wanted(line, selection)) is not None:
                yield line, wanted
        version = log.wait(version)


def tail_topic(reader: Topic, selection: Selection, count: int, *, follow: bool) -> Iterator[tuple[bytes, Event]]:
    """Yields the newest wanted events of a topic by their time, and with ``follow`` for ever those that come."""
    bounds = reader.bounds()
    ends = {place: each.end for place, each in bounds.items()}
    yield from _newest(reader, bounds, selection, count) if count else ()
    for batch in reader.read(ends) if follow else ():
        yield from _chosen(batch, selection)


def _newest(reader: Topic, bounds: Mapping[int, Bounds], selection: Selection, count: int) -> list[tuple[bytes, Event]]:
    """Returns the newest wanted events, reading further back until there are enough."""
    ends = {place: each.end for place, each in bounds.items()}
    reach = count
    while True:
        found: list[tuple[bytes, Event]] = []
        starts = newest_starts(bounds, reach)
        for batch in reader.read(starts, ends):
            found += _chosen(batch, selection)
            found.sort(key=lambda each: each[1].time)
            del found[:-count]
        if len(found) == count or all(starts[place] == bounds[place].start for place in starts):
            return found
        reach *= _FURTHER


def _chosen(batch: Sequence[Record], selection: Selection) -> Iterator[tuple[bytes, Event]]:
    for record in batch:
        if record.value is not None and (wanted := _wanted(record.value, selection)) is not None:
            yield record.value, wanted


def _wanted(line: bytes, selection: Selection) -> Event | None:
    """Returns a line's event where it is one, and is wanted."""
    try:
        event = decode_event(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return event if selection.takes(event) else None
