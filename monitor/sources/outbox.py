"""The embedded log: the server's outbox, read while it is being written."""

import sqlite3
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from monitor.errors import SourceBusyError, SourceError
from monitor.publication import Publication
from monitor.sources.source import Assigned, Batch, Bounds, Delivery, Letter, Mark, Message, Refused, TakenOver
from server.contract.log_schema import (
    APPLICATION_ID,
    META_LOG_ID,
    META_TRIMMED,
    SCHEMA_VERSION,
    SELECT_BOUNDS,
    SELECT_CHUNKS,
    SELECT_META,
)

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_PATIENCE_S = 5.0


class OutboxSource:
    """An outbox file, opened read-only. To be used by one thread at a time.

    Args:
        path: the file.

    Raises:
        SourceBusyError: there is nothing in the file yet.
        SourceError: it is not an outbox, is damaged, or was written by a newer Tiltyard.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            uri = f"file:{quote(str(path.absolute()))}?mode=ro"
            self._database = sqlite3.connect(
                uri, uri=True, timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False
            )
        except (sqlite3.Error, UnicodeDecodeError) as error:  # a sentence may quote damaged bytes
            raise self._failure(error) from error
        try:
            self._inode = path.stat().st_ino
            self.log_id = self._identify()
        except BaseException:
            self._database.close()
            raise

    def read(self, offset: int, limit: int) -> Batch:
        """Returns whole chunks from the one that holds ``offset`` on, until they hold ``limit`` events."""
        lines: list[tuple[int, bytes]] = []
        refused: list[Refused] = []
        gap = 0
        begin = offset
        while offset - begin < limit:
            # A chunk holds a few milliseconds of events; a handful at a time bounds memory.
            rows = self._fetch(SELECT_CHUNKS, {"offset": offset, "chunks": 16})
            for first, count, _, crc32, payload in rows:
                if not _is_chunk(first, count, payload):
                    raise SourceError(f"{self._path}: the chunk at offset {first} is damaged beyond its events")
                gap += max(0, first - offset)
                reason = _fault(payload, crc32, count)
                if reason is None:
                    chunk = payload.split(b"\n")
                    lines.extend((first + place, chunk[place]) for place in range(max(0, offset - first), count))
                else:
                    refused.append(Refused(first, count, *reason, payload))
                offset = first + count
                if offset - begin >= limit:
                    break
            if not rows:
                break
        if offset == begin:
            offset, gap = self._at_end(offset)
        return Batch(lines, refused, gap, offset)

    def bounds(self) -> Bounds:
        """Returns where the log begins and ends."""
        trimmed = int(self._meta(META_TRIMMED) or 0)
        start, end = self._fetch(SELECT_BOUNDS)[0]
        return Bounds(trimmed, trimmed) if start is None else Bounds(start, end)

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    def _at_end(self, offset: int) -> tuple[int, int]:
        """Returns where to read on when no chunk is left, and how many events were trimmed before."""
        try:
            replaced = self._path.stat().st_ino != self._inode
        except FileNotFoundError:
            replaced = True
        if replaced:
            raise SourceError(f"{self._path} was removed or replaced while it was being read")
        end = self.bounds().end
        if end < offset:
            raise SourceError(
                f"{self._path} ends at offset {end}, but {offset} events of it were read before: it is an older copy"
            )
        trimmed = int(self._meta(META_TRIMMED) or 0)
        return max(offset, trimmed), max(0, trimmed - offset)

    def _identify(self) -> str:
        application = self._fetch("PRAGMA application_id")[0][0]
        tables = {name for (name,) in self._fetch("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if application == 0 and not tables:
            raise SourceBusyError(f"{self._path} is empty")
        if application != APPLICATION_ID:
            raise SourceError(f"{self._path} is not an outbox: it is a database of another application")
        version = self._fetch("PRAGMA user_version")[0][0]
        if version > SCHEMA_VERSION:
            raise SourceError(
                f"{self._path} was written by a newer Tiltyard: expected schema {SCHEMA_VERSION}, got {version}"
            )
        log_id = self._meta(META_LOG_ID) if {"meta", "chunks"} <= tables else None
        if log_id is None:
            raise SourceBusyError(f"{self._path} is not complete")
        return log_id

    def _meta(self, key: str) -> str | None:
        rows = self._fetch(SELECT_META, (key,))
        return rows[0][0] if rows else None

    def _fetch(self, statement: str, values: Any = ()) -> list[Any]:
        try:
            return self._database.execute(statement, values).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:  # a sentence may quote damaged bytes
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> SourceError:
        code = getattr(error, "sqlite_errorcode", 0)
        if code & 0xFF in _BUSY:
            return SourceBusyError(f"{self._path} is locked")
        if code & 0xFF == sqlite3.SQLITE_NOTADB:
            return SourceError(f"{self._path} is not an outbox: it is not an SQLite file")
        return SourceError(f"{self._path} cannot be read: {error}")


class OutboxLog:
    """The outbox as a log of one partition, number 0; waited for while it is not there.

    Args:
        path: the file.
    """

    rebuilt = 0
    shared = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._source: OutboxSource | None = None
        self._offset: int | None = None
        self._is_taken_over = False

    @property
    def waiting(self) -> str | None:
        """Returns that the file is waited for, None once it is there."""
        return "waiting for the outbox" if self._source is None else None

    def next(self, limit: int) -> Message | None:
        """Returns that the log is there, then what stands in it."""
        if self._source is None:
            self._source = open_outbox(self._path)
            return None if self._source is None else Assigned(self._source.log_id, (0,), 1)
        if not self._is_taken_over:
            self._is_taken_over = True
            return TakenOver(0, None)
        if self._offset is None:
            return None
        batch = self._source.read(self._offset, limit)
        if batch.next_offset == self._offset:
            return None
        delivery = Delivery(0, self._offset, batch, None)
        self._offset = batch.next_offset
        return delivery

    def seek(self, partition: int, offset: int, mark: Mark | None) -> None:
        """Says from where on to read."""
        self._offset = offset

    def ends(self) -> Mapping[int, int]:
        """Returns where the next event will go."""
        return {} if self._source is None else {0: self._source.bounds().end}

    def committed(self, offsets: Iterable[tuple[int, int]]) -> None:
        """Does nothing: the outbox is not told who has read it."""

    def publish(self, publication: Publication, letters: list[Letter]) -> None:
        """Does nothing: there is nobody to be told."""

    def given_up(self) -> None:
        """Does nothing: the outbox has one reader."""

    def close(self) -> None:
        """Closes the file."""
        if self._source is not None:
            self._source.close()


def open_outbox(path: Path) -> OutboxSource | None:
    """Returns the outbox, or None while there is nothing to read: the server may start after the monitor.

    Raises:
        SourceError: there is a file that is not a readable outbox.
    """
    if not path.exists():
        return None
    try:
        return OutboxSource(path)
    except SourceBusyError:
        return None


def _is_chunk(first: object, count: object, payload: object) -> bool:
    return isinstance(first, int) and isinstance(count, int) and count > 0 and isinstance(payload, bytes)


def _fault(payload: bytes, crc32: int, count: int) -> tuple[str, str] | None:
    """Returns the name and a sentence of what is wrong with a chunk."""
    found = zlib.crc32(payload)
    if found != crc32:
        return "corrupt", f"expected CRC-32 {crc32}, got {found}"
    ends = payload.count(b"\n")
    if ends != count or not payload.endswith(b"\n"):
        return "corrupt", f"expected {count} lines, got {ends}"
    return None
