"""What goes from the front of the log, a little at a time, and when the log has no room because nothing may go.

Where the log is shipped to Kafka, only that goes which the topic has: what has been there for ``keep_shipped_s``, and
sooner where the log is at its size limit. Events that are not there yet never go; when they fill the log it is held up.
"""

import logging
import sqlite3
import time
from collections import deque
from pathlib import Path

from server.contract import log_schema
from server.errors import OutboxError
from server.eventlog.shipped import read_shipped
from server.eventlog.transaction import transaction
from server.settings import EventSettings

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 10.0
HELD_UP_S = 0.5
"""How often a log that is held up looks whether the topic has more of it."""

STEP_CHUNKS = 200
STEP_BYTES = 4 * 1024 * 1024
"""What one transaction removes at most: the writer waits for it, and whoever waits for the writer."""

LEAST_LOOK_BYTES = 64 * 1024
SAMPLES = 256

_OLDEST = "SELECT first_offset + count, created_at_ms, length(payload) FROM chunks ORDER BY first_offset LIMIT ?"


class Retention:
    """Trims the log. Everything but ``held_up`` belongs to the writer's thread."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, settings: EventSettings, *, shipped: bool = False
    ) -> None:
        """path: the log's file; connection: the writer's; shipped: whether Kafka gets the log."""
        self.held_up = False
        self._path = path
        self._connection = connection
        self._settings = settings
        self._ships = shipped
        self._log_id = str(connection.execute(log_schema.SELECT_META, (log_schema.META_LOG_ID,)).fetchone()[0])
        # Looked at so often, the size exceeds its limit by no more than this.
        self._look_bytes = max(settings.retention_bytes // 64, LEAST_LOOK_BYTES)
        self._written_bytes = 0
        self._look_at_s = time.monotonic() + LOOK_EVERY_S
        self._samples: deque[tuple[float, int]] = deque(maxlen=SAMPLES + 1)
        self._fault: str | None = None

    @property
    def due_in_s(self) -> float:
        """How long the writer may sleep until the next step."""
        return max(0.0, self._look_at_s - time.monotonic())

    def wrote(self, size_bytes: int) -> None:
        """Notes that the log has grown."""
        self._written_bytes += size_bytes
        if self._written_bytes >= self._look_bytes:
            self._look_at_s = min(self._look_at_s, time.monotonic())

    def step(self, next_offset: int) -> int:
        """Removes a few of the oldest chunks, as far as they may go, and returns how many; never the newest one.

        Args:
            next_offset: of the event that will be written next.
        """
        self._written_bytes = 0
        try:
            trimmed_to, count, done, held_up = self._find(next_offset)
            if count:
                with transaction(self._connection):
                    self._connection.execute("DELETE FROM chunks WHERE first_offset < ?", (trimmed_to,))
                    self._connection.execute(log_schema.UPSERT_META, (log_schema.META_TRIMMED, str(trimmed_to)))
                logger.debug("outbox %s: trimmed to offset %d", self._path, trimmed_to)
            self._hold_up(held_up)  # not before: room is there once the chunks are gone
            pause_s = (HELD_UP_S if self.held_up else LOOK_EVERY_S) if done else 0.0
        except sqlite3.Error as fault:
            logger.warning("outbox %s: cannot trim, will try again: %s", self._path, fault)
            count, pause_s = 0, LOOK_EVERY_S
        self._look_at_s = time.monotonic() + pause_s
        return count

    def _find(self, next_offset: int) -> tuple[int, int, bool, bool]:
        """Returns up to where chunks may go now, how many those are, whether there are no more of them, and whether
        the log is held up."""
        may_go_to, aged_to = self._bounds(next_offset)
        oldest_ms = time.time_ns() // 1_000_000 - int(self._settings.retention_s * 1000)
        excess = self._size_bytes() - self._settings.retention_bytes
        trimmed_to = count = removed = 0
        for end, created_at_ms, size in self._connection.execute(_OLDEST, (STEP_CHUNKS,)).fetchall():
            wanted = excess > 0 or created_at_ms < oldest_ms or end <= aged_to
            if not wanted or end > may_go_to or end == next_offset:
                return trimmed_to, count, True, excess > 0 and end > may_go_to
            trimmed_to, count, removed, excess = end, count + 1, removed + size, excess - size
            if removed >= STEP_BYTES:
                break
        return trimmed_to, count, count == 0, self.held_up and count > 0

    def _bounds(self, next_offset: int) -> tuple[int, int]:
        """Returns the offsets below which chunks may go, and have been in the topic for long enough."""
        if not self._ships:
            return next_offset, 0
        try:
            shipped = read_shipped(self._path)
        except OutboxError as error:
            if self._fault is None:
                logger.error("%s; nothing is trimmed meanwhile", error)
            self._fault = str(error)
            return 0, 0
        self._fault = None
        offset = shipped.offset if shipped is not None and shipped.log_id == self._log_id else 0
        now_s = time.monotonic()
        keep_s = self._settings.keep_shipped_s
        if not self._samples or now_s - self._samples[-1][0] >= keep_s / SAMPLES:
            self._samples.append((now_s, offset))
        aged_to = 0
        while self._samples and now_s - self._samples[0][0] >= keep_s:
            aged_to = self._samples[0][1]
            if len(self._samples) == 1 or now_s - self._samples[1][0] < keep_s:
                break
            self._samples.popleft()
        return offset, aged_to

    def _hold_up(self, held_up: bool) -> None:
        if held_up and not self.held_up:
            logger.error(
                "outbox %s: is at its limit of %d bytes with events that Kafka does not have: new ones find no room",
                *(self._path, self._settings.retention_bytes),
            )
        elif self.held_up and not held_up:
            logger.info("outbox %s: has room again", self._path)
        self.held_up = held_up

    def _size_bytes(self) -> int:
        pages, free, size = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)
