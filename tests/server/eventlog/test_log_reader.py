"""The log as a command reads it: everything in order, and nothing else taken for a log."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from server.contract import log_schema
from server.errors import OutboxError
from server.eventlog.log_reader import read_log
from server.eventlog.outbox import Outbox
from server.settings import EventSettings


def written(path: Path, groups: int) -> list[bytes]:
    """Writes groups of three events, each a commit of its own, and returns their lines."""
    outbox = Outbox(path, EventSettings())
    lines = [[b'{"group": %d, "event": %d}' % (group, n) for n in range(3)] for group in range(groups)]

    async def write() -> None:
        for group in lines:
            await outbox.append_durably(group)

    asyncio.run(write())
    outbox.close()
    return [line for group in lines for line in group]


def test_every_event_is_read_in_order(tmp_path: Path) -> None:
    """Also of more chunks than are fetched at once, and of none."""
    for groups in (0, 1, 150):
        path = tmp_path / f"{groups} groups.db"

        assert written(path, groups) == list(read_log(path))


def test_a_log_that_was_trimmed_begins_where_it_begins(tmp_path: Path) -> None:
    """What retention took is not there, and no error."""
    path = tmp_path / "outbox.db"
    lines = written(path, 4)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM chunks WHERE first_offset < 6")
        connection.execute(log_schema.UPSERT_META, (log_schema.META_TRIMMED, "6"))

    assert lines[6:] == list(read_log(path))


def test_a_chunk_that_is_missing_is_said(tmp_path: Path) -> None:
    """Between two others, or before the first: what is gone was not trimmed."""
    for gone in (0, 3):
        path = tmp_path / f"without {gone}.db"
        written(path, 4)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("DELETE FROM chunks WHERE first_offset = ?", (gone,))

        with pytest.raises(OutboxError, match=f"expected the chunk at offset {gone}, got that at {gone + 3}"):
            list(read_log(path))


def other_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE chunks (x)")


def newer(path: Path) -> None:
    written(path, 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA user_version = {log_schema.SCHEMA_VERSION + 1}")


def damaged(path: Path) -> None:
    written(path, 2)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE chunks SET payload = x'00' WHERE first_offset = 3")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "found none"),
        (lambda path: path.write_text("no database, but long enough to be looked at" * 50), "not a database"),
        (other_database, "got a database of another application"),
        (newer, "of a newer Tiltyard"),
        (damaged, "the chunk at offset 3 whole, got it damaged"),
    ],
)
def test_what_is_no_log_is_refused_by_name(tmp_path: Path, make: Callable[[Path], object], sentence: str) -> None:
    """Which file, what was expected, what came."""
    path = tmp_path / "a file.db"
    make(path)

    with pytest.raises(OutboxError, match=f"a file.db: expected .*{sentence}"):
        list(read_log(path))
