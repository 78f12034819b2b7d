"""The log's file as version 1 of its schema is: a dump of one, and today's writer and readers over it."""

import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

from server.contract import log_schema
from server.eventlog.outbox import Outbox
from server.settings import EventSettings
from tests.server.live_server import read_events

GOLDEN = Path(__file__).parent / "golden" / "outbox.v1.sql"

LABEL = (
    b'{"type":"tiltyard.label.v1","specversion":"1.0","id":"new","source":"/feedback","time":"2026-11-26T12:00:00Z",'
    b'"subject":"r","partitionkey":"r","datacontenttype":"application/json","data":{"label":1}}'
)


def restored(folder: Path) -> Path:
    """Returns a database made of the golden dump."""
    path = folder / "outbox.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(GOLDEN.read_text())
    return path


def test_the_schema_of_version_1(tmp_path: Path) -> None:
    """What a new log's file declares is what the golden one does: a change of it needs another version."""
    Outbox(tmp_path / "new.db", EventSettings()).close()
    described = []
    for path in (restored(tmp_path), tmp_path / "new.db"):
        with closing(sqlite3.connect(path)) as connection:
            tables = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
            pragmas = [connection.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")]
            described.append((tables, pragmas))

    assert described[0] == described[1]
    assert log_schema.SCHEMA_VERSION == 1


def test_a_file_of_version_1_is_read_and_written_on(tmp_path: Path) -> None:
    """The statements of all readers find its events at their offsets, and the server appends after them."""
    path = restored(tmp_path)
    outbox = Outbox(path, EventSettings())
    outbox.append(LABEL)
    outbox.close()

    with closing(sqlite3.connect(path)) as connection:
        chunks = connection.execute(log_schema.SELECT_CHUNKS, {"offset": 1, "chunks": 10}).fetchall()
        bounds = connection.execute(log_schema.SELECT_BOUNDS).fetchone()
        (log_id,) = connection.execute(log_schema.SELECT_META, (log_schema.META_LOG_ID,)).fetchone()

    assert (log_id, bounds) == ("0199c5d0-golden", (0, 3))
    assert [(first, count) for first, count, *_ in chunks] == [(1, 1), (2, 1)]
    assert all(zlib.crc32(payload) == crc32 for *_, crc32, payload in chunks)
    assert [event.id for event in read_events(path)] == ["e1", "e3", "new"]
