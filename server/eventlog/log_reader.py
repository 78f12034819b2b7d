"""The embedded log, read from its beginning by a command, while a server may be writing it."""

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from server.contract.log_schema import APPLICATION_ID, META_TRIMMED, SCHEMA_VERSION, SELECT_CHUNKS, SELECT_META
from server.errors import OutboxError
from server.eventlog.shipped import read_shipped

_CHUNKS = 64
_PATIENCE_S = 5.0


def read_log(path: Path) -> Iterator[bytes]:
    """Yields every event of a log, oldest first, each as its line.

    Raises:
        OutboxError: there is no such file, it is no log, is of a newer version, or a chunk of it is damaged.
    """
    try:
        with closing(open_log(path)) as connection:
            offset = 0
            while rows := connection.execute(SELECT_CHUNKS, {"offset": offset, "chunks": _CHUNKS}).fetchall():
                for first, count, _, crc32, payload in rows:
                    if not isinstance(payload, bytes) or zlib.crc32(payload) != crc32:
                        raise OutboxError(f"outbox {path}: expected the chunk at offset {first} whole, got it damaged")
                    if first != offset and first > _gone_below(path, connection):
                        raise OutboxError(f"outbox {path}: expected the chunk at offset {offset}, got that at {first}")
                    yield from payload.splitlines()
                    offset = first + count
    except (sqlite3.Error, UnicodeDecodeError) as error:  # its sentence may quote damaged bytes
        raise OutboxError(f"outbox {path}: expected an event log that can be read, got: {error}") from error


def open_log(path: Path) -> sqlite3.Connection:
    """Returns a connection to a log that can only read it, outside of any transaction.

    Raises:
        OutboxError: there is no such file, it is no log, or is of a newer version.
    """
    if not path.is_file():
        raise OutboxError(f"outbox {path}: expected the file of an event log, found none")
    connection = None
    try:
        uri = f"file:{quote(str(path.absolute()))}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, timeout=_PATIENCE_S, isolation_level=None)
        _check(path, connection)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.Error):
            raise OutboxError(f"outbox {path}: expected an event log that can be read, got: {error}") from error
        raise
    return connection


def _gone_below(path: Path, connection: sqlite3.Connection) -> int:
    """Returns below which offset events may rightly be missing.

    A writer trims, perhaps since the reader began; and after a power cut it goes on behind all that Kafka has.
    """
    trimmed = connection.execute(SELECT_META, (META_TRIMMED,)).fetchone()
    shipped = read_shipped(path)
    return max(0 if trimmed is None else int(trimmed[0]), 0 if shipped is None else shipped.offset)


def _check(path: Path, connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise OutboxError(f"outbox {path}: expected an event log, got a database of another application")
    if version > SCHEMA_VERSION:
        raise OutboxError(f"outbox {path}: expected schema {SCHEMA_VERSION}, got {version} of a newer Tiltyard")
