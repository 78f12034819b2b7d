"""A damaged log: bytes of its file are changed, and whoever reads it must say so or read what was written."""

import random
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

from monitor.errors import SourceError
from monitor.sources.outbox import OutboxSource
from server.errors import OutboxError
from server.eventlog.log_reader import read_log
from server.eventlog.outbox import Outbox
from server.settings import EventSettings

_PAGE_BYTES = 4096
_MOST_BYTES = 16
_INNER, _LEAF = 0x05, 0x0D  # how SQLite marks the pages of a table's tree


def damage(sound: Path, copy: Path, chance: random.Random) -> str:
    """Writes a copy of a log whose file has other bytes in one page; returns where.

    Every second time it is the schema or a leaf of the tree that SQLite finds the chunks by, full of numbers and
    pointers. Inner pages of that tree are left out: one that no longer points to the newest chunks makes a shorter log
    which is sound in itself, and nothing else in the file says where it ended.
    """
    shutil.copyfile(sound, copy)
    with copy.open("r+b") as file:
        content = file.read()
        kinds = [content[place] for place in range(0, len(content), _PAGE_BYTES)]
        pages = [page for page, kind in enumerate(kinds) if kind != _INNER]
        tree = [0, *(page for page in pages if kinds[page] == _LEAF)]
        page = chance.choice(tree if chance.random() < 0.5 else pages)
        size = chance.randint(1, _MOST_BYTES)
        place = page * _PAGE_BYTES + chance.randrange(_PAGE_BYTES - size)
        file.seek(place)
        file.write(bytes(byte ^ chance.randint(1, 255) for byte in content[place : place + size]))
    return f"{size} bytes at {place} (page {page})"


def copied(outbox: Path, copy: Path) -> Path:
    """Returns a copy of a log as one file, with what is only in its journal so far."""
    with closing(sqlite3.connect(outbox)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")
    return copy


def check_monitor(copy: Path, lines: list[bytes]) -> str:
    """Returns what a monitor's reader made of a damaged log: `refused`, `set aside`, `gap` or `whole`.

    Raises:
        AssertionError: it took something for an event that was not written, one twice, or left one out unsaid.
    """
    known, seen, named, gap, offset = Counter(lines), Counter[bytes](), 0, 0, 0
    try:
        source = OutboxSource(copy)
    except SourceError:
        return "refused"
    try:
        while (batch := source.read(offset, 1000)).next_offset != offset:
            seen.update(line for _, line in batch.lines)
            named += sum(part.events for part in batch.refused)
            gap += batch.gap_events
            offset = batch.next_offset
    except SourceError:
        # It stands still and says why: what it has read until then counts.
        return _sound(known, seen, "refused")
    finally:
        source.close()
    unsaid = len(lines) - seen.total()
    assert named or gap or not unsaid, f"{unsaid} events were left out unsaid"
    return _sound(known, seen, "set aside" if named else "gap" if gap else "whole")


def check_reader(copy: Path, lines: list[bytes]) -> str:
    """Returns what the reader of commands made of a damaged log: `refused` or `whole`."""
    seen = Counter[bytes]()
    try:
        for line in read_log(copy):
            seen[line] += 1
    except OutboxError:
        return _sound(Counter(lines), seen, "refused")
    assert seen.total() == len(lines), f"{len(lines) - seen.total()} events were left out unsaid"
    return _sound(Counter(lines), seen, "whole")


def check_writer(copy: Path, lines: list[bytes]) -> str:
    """Returns what a server made of a damaged log: `refused` or `opened`, at the offset where it ended."""
    try:
        outbox = Outbox(copy, EventSettings())
    except OutboxError:
        return "refused"
    try:
        assert outbox._next_offset == len(lines), f"goes on at {outbox._next_offset}, expected {len(lines)}"
    finally:
        outbox.close()
    return "opened"


def _sound(known: Counter[bytes], seen: Counter[bytes], what: str) -> str:
    extra = seen - known
    assert not extra, f"{extra.total()} events were read that were not written, or twice: {next(iter(extra))[:200]!r}"
    return what
