"""The embedded log: one SQLite file, one writer thread, one row per group commit.

The event loop appends lines to a queue; the thread takes all that wait, writes them as one chunk
and commits. A commit that fails (a full disk) is tried again with the same lines, so nothing that
was accepted is lost while the process lives; meanwhile the queue fills up to its bound, and then
``append`` says so.
"""

import asyncio
import fcntl
import logging
import sqlite3
import threading
import time
import uuid
import zlib
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from server.contract import log_schema
from server.errors import OutboxError
from server.eventlog.checkpointer import Checkpointer
from server.eventlog.erasure import Found, erase
from server.eventlog.retention import Retention
from server.eventlog.shipped import Shipped, read_shipped
from server.eventlog.transaction import transaction
from server.settings import EventSettings

logger = logging.getLogger(__name__)

RETRY_S = 0.5
BUSY_S = 2.0
TRIMMED_PAGE_BYTES = 4096  # what the removal of a chunk writes to the journal, about
WRITER_DIED = "the event log cannot be written: its writer has died"
MAX_CHUNK_BYTES = 8 * 1024 * 1024


class _Commit:
    """Someone who waits until everything appended before is on disk."""

    __slots__ = ("future", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()

    def tell(self, error: OutboxError | None) -> None:
        """Called by the writer thread; a waiter that has gone is left alone."""
        try:
            self.loop.call_soon_threadsafe(self._settle, error)
        except RuntimeError:  # the loop has closed, and with it whoever waited
            logger.debug("a waiter's event loop closed before its commit")

    def perform(self, connection: sqlite3.Connection) -> OutboxError | None:
        """Does what is to be done once all is on disk, in the writer thread; returns why it could not."""
        return None

    def _settle(self, error: OutboxError | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(error)


class _Erasure(_Commit):
    """Someone who waits until events are forgotten."""

    __slots__ = ("compact", "found")

    def __init__(self, found: Found, compact: bool) -> None:
        super().__init__()
        self.found = found
        self.compact = compact

    def perform(self, connection: sqlite3.Connection) -> OutboxError | None:
        """Removes them between two commits."""
        try:
            erase(connection, self.found, compact=self.compact)
        except OutboxError as error:
            return error
        except sqlite3.Error as error:
            return OutboxError(f"expected the event log to forget, got: {error}; what is left can be found again")
        except Exception:
            # Whatever it is, answers must go on being logged.
            logger.exception("could not forget")
            return OutboxError("the event log could not forget; the server's log says more")
        return None


class Outbox:
    """The one writer of an event log. Append from one event loop; the thread does the rest."""

    def __init__(self, path: Path, settings: EventSettings, *, shipped: bool = False) -> None:
        """Opens the log, making it when it is not there, and starts the writer.

        Args:
            path: its file.
            settings: of events.
            shipped: whether Kafka gets the log, which then keeps everything until it is there.

        Raises:
            OutboxError: another process writes it, it is no log of ours or of a newer schema, it or the
                position it is shipped to is corrupt, or the disk refuses a write.
        """
        self._path = path
        self._settings = settings
        self._queue: deque[bytes | _Commit] = deque()
        self._awake = False
        self._wake = threading.Event()
        self._closing = False
        self._takes_rest = False
        self._dead = False
        # Each counter has one writer: the loop adds to what it appended or shed, the thread to
        # what it committed or lost. A shared counter would need a lock on the hot path.
        self._appended_bytes = 0
        self._committed_bytes = 0
        self._appended_events = 0
        self.committed_events = 0
        self._shed_events = 0
        self._lost_events = 0
        self.sampled_out_events = 0
        self.failure: str | None = None
        self._lock = _locked(path)
        try:
            shipped_position = read_shipped(path)
            self._connection, next_offset = _open(path)
            self._next_offset = _behind(path, self._connection, next_offset, shipped_position)
        except BaseException:
            self._lock.close()
            raise
        self._synchronous = "NORMAL"
        self._unsynced = False
        self._checkpointer = Checkpointer(path, self._connection)
        self._retention = Retention(path, self._connection, settings, shipped=shipped)
        self._thread = threading.Thread(target=self._run, name="outbox-writer", daemon=True)
        self._thread.start()

    @property
    def backlog(self) -> int:
        """How many events wait for their commit."""
        return self._appended_events - self.committed_events - self._lost_events

    @property
    def dropped_events(self) -> int:
        """How many events there was no room for, or the disk refused to the end."""
        return self._shed_events + self._lost_events

    @property
    def full(self) -> bool:
        """Whether the queue or the log has no room left, or nobody will ever take from the queue."""
        waiting_bytes = self._appended_bytes - self._committed_bytes
        held_up = self._retention.held_up and not self._takes_rest
        return self._dead or waiting_bytes >= self._settings.queue_bytes or held_up

    @property
    def held_up(self) -> bool:
        """Whether the log is at its size limit with events that Kafka must have before they go."""
        return self._retention.held_up

    @property
    def alive(self) -> bool:
        """Whether the writer thread runs."""
        return self._thread.is_alive() and not self._dead

    def append(self, line: bytes) -> bool:
        """Queues one event, returns whether there was room; without, it is counted as dropped."""
        if self.full:
            self._shed_events += 1
            return False
        self._enqueue(line)
        return True

    def _enqueue(self, line: bytes) -> None:
        self._appended_bytes += len(line)
        self._appended_events += 1
        self._queue.append(line)
        if not self._awake:
            self._awake = True
            self._wake.set()

    def leave_out(self, events: int = 1) -> None:
        """Counts events that the sample leaves out."""
        self.sampled_out_events += events

    async def committed(self) -> None:
        """Returns once everything appended so far is on disk, synced.

        Raises:
            OutboxError: the commit failed; the lines stay queued and are tried again.
        """
        await self._wait_for(_Commit())

    async def forget(self, found: Found, *, compact: bool = False) -> None:
        """Returns once events are forgotten and their bytes are gone from the log's files; see erasure.erase.

        Raises:
            OutboxError: the disk refuses, or somebody keeps the journal from being emptied.
        """
        await self._wait_for(_Erasure(found, compact))

    async def _wait_for(self, commit: _Commit) -> None:
        self._queue.append(commit)
        self._awake = True
        self._wake.set()
        if self._dead:  # set before the thread empties the queue: one of the two sees this commit
            raise OutboxError(WRITER_DIED)
        await commit.future

    async def append_durably(self, lines: Sequence[bytes]) -> None:
        """Appends all lines and returns once they are on disk, synced.

        Raises:
            OutboxError: there is no room for all of them (none is kept), or the commit failed.
        """
        size = sum(map(len, lines))
        if self._dead:
            raise OutboxError(WRITER_DIED)
        if self._appended_bytes - self._committed_bytes + size > self._settings.queue_bytes:
            raise OutboxError(f"the event log has no room for {len(lines)} events: try again later")
        if self.held_up:
            raise OutboxError(f"the event log has no room for {len(lines)} events until Kafka has what is in it")
        for line in lines:
            self._enqueue(line)  # all or none: by now the log may be held up
        await self.committed()

    def take_rest(self) -> None:
        """Takes from now on what the limit of size would refuse: before its end, for what was accepted elsewhere."""
        self._takes_rest = True

    def close(self) -> None:
        """Writes what waits and closes the file. What the disk refuses now is counted as dropped."""
        self._closing = True
        self._wake.set()
        self._thread.join()
        self._checkpointer.close()
        self._connection.close()
        self._lock.close()

    def _run(self) -> None:
        lines: list[bytes] = []
        waiters: list[_Commit] = []
        try:
            self._write_forever(lines, waiters)
        except Exception:
            logger.exception("outbox %s: the writer has died", self._path)
            self._dead = True
            while self._queue:
                self._take(lines, waiters)
                self._lost_events += len(lines)
                lines.clear()
            self._lost_events += len(lines)
            for waiter in waiters:
                waiter.tell(OutboxError(WRITER_DIED))

    def _write_forever(self, lines: list[bytes], waiters: list[_Commit]) -> None:
        while True:
            woken = self._wake.wait(self._retention.due_in_s)
            self._wake.clear()
            if woken and not self._closing:
                time.sleep(self._settings.commit_interval_ms / 1000)
            self._awake = False
            while self._queue or lines or waiters:
                self._take(lines, waiters)
                self._commit(lines, waiters)
                if lines and self._closing:
                    self._lost_events += len(lines)
                    logger.error("lost %d events: the disk refused them at shutdown", len(lines))
                    lines.clear()
                elif lines:
                    time.sleep(RETRY_S)
                self._trim()
            self._trim()
            if self._closing and not self._queue:
                return

    def _take(self, lines: list[bytes], waiters: list[_Commit]) -> None:
        """Moves all that waits into the group; the queue's bound is the group's."""
        while self._queue:
            item = self._queue.popleft()
            if isinstance(item, _Commit):
                waiters.append(item)
            else:
                lines.append(item)

    def _commit(self, lines: list[bytes], waiters: list[_Commit]) -> None:
        """Writes the group, a chunk a row; on failure keeps the lines that are left and tells the waiters."""
        error = None
        try:
            while lines:
                chunk = lines[: _chunk_length(lines)]
                self._insert(chunk, synced=bool(waiters))
                del lines[: len(chunk)]
                self._committed_bytes += sum(map(len, chunk))
                self.committed_events += len(chunk)
            if waiters and self._unsynced:
                # What they wait for went with an earlier group: any synced write takes it to the disk.
                self._set_synchronous("FULL")
                self._connection.execute(log_schema.UPSERT_META, ("synced_to", str(self._next_offset)))
                self._unsynced = False
        except sqlite3.Error as fault:
            if self.failure is None:
                logger.error("outbox %s: cannot commit, will try again: %s", self._path, fault)
            self.failure = f"outbox {self._path}: cannot commit: {fault}"
            error = OutboxError(f"the event log cannot be written at present: {fault}")
        else:
            if self.failure is not None:
                logger.info("outbox %s: commits again", self._path)
            self.failure = None
        for waiter in waiters:
            waiter.tell(error or waiter.perform(self._connection))
        waiters.clear()

    def _trim(self) -> None:
        """Takes a step of the retention when one is due; what waits to be written comes before the next."""
        if self._retention.due_in_s == 0.0:
            trimmed = self._retention.step(self._next_offset)
            if trimmed:
                self._checkpointer.wrote(trimmed * TRIMMED_PAGE_BYTES)

    def _insert(self, lines: list[bytes], *, synced: bool) -> None:
        # NORMAL survives the death of the process; a promise to a client should survive a power cut too.
        self._set_synchronous("FULL" if synced else "NORMAL")
        payload = b"".join(line + b"\n" for line in lines)
        self._connection.execute(
            log_schema.INSERT_CHUNK,
            (self._next_offset, len(lines), time.time_ns() // 1_000_000, zlib.crc32(payload), payload),
        )
        self._next_offset += len(lines)
        self._unsynced = not synced
        self._checkpointer.wrote(len(payload))
        self._retention.wrote(len(payload))

    def _set_synchronous(self, wanted: str) -> None:
        if wanted != self._synchronous:
            self._connection.execute(f"PRAGMA synchronous = {wanted}")
            self._synchronous = wanted


def _chunk_length(lines: list[bytes]) -> int:
    """Returns how many of the first lines make a chunk: one at least, and up to MAX_CHUNK_BYTES."""
    size = 0
    for place, line in enumerate(lines):
        size += len(line)
        if size >= MAX_CHUNK_BYTES:
            return place + 1
    return len(lines)


def _locked(path: Path) -> IO[bytes]:
    """Returns the open lock file that makes this process the log's one writer."""
    if not path.name:
        raise OutboxError(f"outbox {path}: expected a file name, got a folder")
    try:
        lock = open(path.with_name(path.name + ".lock"), "ab")  # held until close()
    except OSError as error:
        raise OutboxError(f"outbox {path}: expected a folder that can be written, got: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise OutboxError(f"outbox {path}: expected to be its only writer, but another server has it open") from error
    return lock


def _open(path: Path) -> tuple[sqlite3.Connection, int]:
    """Returns a connection to a log that is sound and can be written, and its next offset."""
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
        _check_kind(path, connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        with transaction(connection):
            for statement in filter(str.strip, log_schema.CREATE.split(";")):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {log_schema.APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {log_schema.SCHEMA_VERSION}")
            if connection.execute(log_schema.SELECT_META, (log_schema.META_LOG_ID,)).fetchone() is None:
                connection.execute(log_schema.UPSERT_META, (log_schema.META_LOG_ID, str(uuid.uuid4())))
            next_offset = _next_offset(path, connection)  # a damaged file is refused before it is written
            # Also proves, before the first request, that the disk takes a write.
            connection.execute(log_schema.UPSERT_META, (log_schema.META_OPENED, str(time.time_ns() // 1_000_000)))
            connection.execute(log_schema.UPSERT_META, (log_schema.META_OPENED_OFFSET, str(next_offset)))
        return connection, next_offset
    except (sqlite3.Error, UnicodeDecodeError) as error:  # its sentence may quote damaged bytes
        if connection is not None:
            connection.close()
        raise OutboxError(f"outbox {path}: expected an event log that can be written, got: {error}") from error
    except OutboxError:
        if connection is not None:
            connection.close()
        raise


def _check_kind(path: Path, connection: sqlite3.Connection) -> None:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if tables and application != log_schema.APPLICATION_ID:
        raise OutboxError(f"outbox {path}: expected an event log, got another program's SQLite file")
    if version > log_schema.SCHEMA_VERSION:
        raise OutboxError(f"outbox {path}: expected schema {log_schema.SCHEMA_VERSION} or older, got {version}")
    if tables and not tables >= {"chunks", "meta"}:  # else an empty log would be made beside what is there
        raise OutboxError(f"outbox {path}: expected the tables chunks and meta, got {', '.join(sorted(tables))}")


def _next_offset(path: Path, connection: sqlite3.Connection) -> int:
    """Returns the offset of the next event, having checked that the newest chunk is whole."""
    newest = connection.execute(
        "SELECT first_offset, count, crc32, payload FROM chunks ORDER BY first_offset DESC LIMIT 1"
    ).fetchone()
    if newest is None:
        trimmed = connection.execute(log_schema.SELECT_META, (log_schema.META_TRIMMED,)).fetchone()
        return int(trimmed[0]) if trimmed else 0
    first_offset, count, crc32, payload = newest
    if zlib.crc32(payload) != crc32:
        raise OutboxError(f"outbox {path}: the chunk at offset {first_offset} is corrupt: its checksum does not match")
    return int(first_offset + count)


def _behind(path: Path, connection: sqlite3.Connection, next_offset: int, shipped: Shipped | None) -> int:
    """Returns the offset to go on from, behind everything that was ever shipped.

    A power cut may take the log's last groups, which were not synced, after Kafka had them: events that were given
    their offsets again would be passed over as shipped.
    """
    identity = connection.execute(log_schema.SELECT_META, (log_schema.META_LOG_ID,)).fetchone()
    if identity is None:
        raise OutboxError(f"outbox {path}: expected its id in the table meta, found none")
    (log_id,) = identity
    if shipped is None or shipped.log_id != log_id or shipped.offset <= next_offset:
        return next_offset
    logger.warning("outbox %s: ends at %d, but goes on from %d: so much was shipped", path, next_offset, shipped.offset)
    return shipped.offset
