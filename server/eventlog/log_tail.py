"""The embedded log, followed by a process that does not write it."""

import sqlite3
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from server.contract import log_schema
from server.errors import OutboxError
from server.eventlog.log_reader import open_log

_CHUNKS = 256


@dataclass(slots=True)
class Span:
    """Events that follow each other in the log, and where the next one will be.

    ``damaged`` are chunks that do not hold what was written: their first offset, count and bytes. ``missed`` is how
    many events before or between these were trimmed before anybody read them here.
    """

    end: int
    offsets: list[int] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    damaged: list[tuple[int, int, bytes]] = field(default_factory=list)
    missed: int = 0


class LogTail:
    """A read-only connection to a log. Use it from one thread."""

    def __init__(self, path: Path) -> None:
        """Opens the log of a server that runs or has run.

        Raises:
            OutboxError: there is none, or it cannot be read.
        """
        self._path = path
        self._connection = open_log(path)
        try:
            self.log_id = str(self._meta(log_schema.META_LOG_ID))
        except sqlite3.Error as error:
            self.close()
            raise self._fault(error) from error

    def start(self) -> int:
        """Returns the offset of the oldest event that is still there, or will be.

        Raises:
            OutboxError: the log cannot be read at present.
        """
        try:
            oldest = self._connection.execute(log_schema.SELECT_BOUNDS).fetchone()[0]
            return int(self._meta(log_schema.META_TRIMMED) or 0) if oldest is None else int(oldest)
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def end(self) -> int:
        """Returns the offset of the next event that will be written.

        Raises:
            OutboxError: the log cannot be read at present.
        """
        try:
            newest = self._connection.execute(log_schema.SELECT_END).fetchone()
            return int(newest[0] if newest else self._meta(log_schema.META_TRIMMED) or 0)
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def read(self, offset: int, size_bytes: int) -> Span:
        """Returns the events from an offset on: whole chunks, of about a size, none when there are none yet.

        Raises:
            OutboxError: the log cannot be read at present.
        """
        span = Span(end=offset)
        size = 0
        try:
            rows = self._connection.execute(log_schema.SELECT_CHUNKS, {"offset": offset, "chunks": _CHUNKS})
            for first, count, _, crc32, payload in rows:
                span.missed += max(0, first - span.end)
                lines = payload.split(b"\n") if isinstance(payload, bytes) else []
                if lines and zlib.crc32(payload) == crc32 and len(lines) == count + 1:
                    passed = max(0, offset - first)
                    span.offsets += range(first + passed, first + count)
                    span.lines += lines[passed:count]
                else:
                    span.damaged.append((first, count, payload))
                span.end = first + count
                size += len(payload)
                if size >= size_bytes:
                    rows.close()
                    break
        except sqlite3.Error as error:
            raise self._fault(error) from error
        return span

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def _meta(self, key: str) -> str | None:
        row = self._connection.execute(log_schema.SELECT_META, (key,)).fetchone()
        return row[0] if row else None

    def _fault(self, error: sqlite3.Error) -> OutboxError:
        return OutboxError(f"outbox {self._path}: expected an event log that can be read, got: {error}")
