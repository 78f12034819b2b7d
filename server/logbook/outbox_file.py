"""The embedded log as the commands read it, chunk by chunk, while a server may be writing it."""

import sqlite3
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from server.contract.log_schema import (
    META_LOG_ID,
    META_TRIMMED,
    SELECT_BOUNDS,
    SELECT_CHUNKS,
    SELECT_META,
)
from server.errors import OutboxError
from server.eventlog.log_reader import open_log

# Few enough that even the largest chunks, of 8 MiB, fit any memory.
_AT_ONCE: Final = 8
_WAKE_S: Final = 0.05


class Chunk(NamedTuple):
    """One row of the log: the events of one group commit, a newline after each."""

    first: int
    events: int
    created_at_ms: int
    crc32: int
    payload: bytes

    @property
    def end(self) -> int:
        """The offset after its last event."""
        return self.first + self.events

    @property
    def fault(self) -> str | None:
        """What is wrong with it, None for one that is whole."""
        found = zlib.crc32(self.payload)
        if found != self.crc32:
            return f"expected CRC-32 {self.crc32}, got {found}"
        lines = self.payload.count(b"\n")
        if lines != self.events or not self.payload.endswith(b"\n"):
            return f"expected {self.events} lines, got {lines}"
        return None

    def lines(self) -> list[bytes]:
        """Returns its events, each as its line."""
        return self.payload.split(b"\n")[:-1]


class Bounds(NamedTuple):
    """The offset of the first event that is still there, and that of the next one to come."""

    start: int
    end: int


class OutboxFile:
    """A log, open for reading only. To be used by one thread, in a ``with`` statement.

    Every method may raise OutboxError.
    """

    def __init__(self, path: Path) -> None:
        """path: of the file.

        Raises:
            OutboxError: there is none, it is no log, or it is of a newer version.
        """
        self.path = path
        self._connection = open_log(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()

    @property
    def log_id(self) -> str:
        """Which log it is."""
        return self.meta(META_LOG_ID) or ""

    @property
    def trimmed_to(self) -> int:
        """Every event below this offset has been trimmed."""
        return int(self.meta(META_TRIMMED) or 0)

    def meta(self, key: str) -> str | None:
        """Returns what the log says of itself under a key, None where it says nothing."""
        rows = self._fetch(SELECT_META, (key,))
        return rows[0][0] if rows else None

    def bounds(self) -> Bounds:
        """Returns where the log begins and ends now."""
        (start, end), trimmed = self._fetch(SELECT_BOUNDS)[0], self.trimmed_to
        return Bounds(trimmed, trimmed) if start is None else Bounds(start, end)

    def chunks(self, offset: int = 0, end: int | None = None) -> Iterator[Chunk]:
        """Yields the chunks that hold the offset and all later ones, damaged ones too.

        Each few are read by themselves, so that a long read does not keep the writer's journal from being copied.

        Args:
            offset: where to begin.
            end: an offset to stop before; the log's end without one.
        """
        while end is None or offset < end:
            rows = [Chunk(*row) for row in self._fetch(SELECT_CHUNKS, {"offset": offset, "chunks": _AT_ONCE})]
            if not rows:
                return
            for chunk in rows:
                if end is not None and chunk.first >= end:
                    return
                yield chunk
            # A damaged count must not make this read the same for ever.
            offset = max(rows[-1].end, rows[-1].first + 1)

    def lines(self, offset: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yields offset and line of every event from an offset on, or raises OutboxError at a damaged chunk."""
        for chunk in self.chunks(offset):
            if chunk.fault is not None:
                raise OutboxError(
                    f"outbox {self.path}: expected the chunk at offset {chunk.first} whole, got it damaged: "
                    f"{chunk.fault} (`tiltyard log verify` says what else is wrong)"
                )
            for place, line in enumerate(chunk.lines(), start=chunk.first):
                if place >= offset:
                    yield place, line

    def lines_backwards(self) -> Iterator[tuple[int, bytes]]:
        """Yields offset and line of every event, the newest first; damaged chunks are passed over."""
        end = self.bounds().end
        while True:
            sql = "SELECT * FROM chunks WHERE first_offset < ? ORDER BY first_offset DESC LIMIT 1"
            rows = self._fetch(sql, (end,))
            if not rows:
                return
            chunk = Chunk(*rows[0])
            if chunk.fault is None:
                lines = chunk.lines()
                yield from ((chunk.first + place, lines[place]) for place in range(chunk.events - 1, -1, -1))
            end = chunk.first

    def wait(self, version: int) -> int:
        """Returns the log's version once it is not the given one any more.

        A look is one page of memory that SQLite shares between processes; nothing is read from the disk.
        """
        while (found := self.version()) == version:
            time.sleep(_WAKE_S)
        return found

    def version(self) -> int:
        """Returns a number that differs after each commit of another process."""
        return int(self._fetch("PRAGMA data_version")[0][0])

    def _fetch(self, statement: str, values: Any = ()) -> list[Any]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise OutboxError(f"outbox {self.path}: expected an event log that can be read, got: {error}") from error
