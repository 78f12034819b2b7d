"""The journal is copied into the log while the log is written, by a thread that gets little of the processor."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from server.eventlog import checkpointer as module
from server.eventlog.checkpointer import MOST_BYTES, STEP_BYTES, WORTH_BYTES, Checkpointer
from server.eventlog.outbox import Outbox
from server.settings import EventSettings
from tests.server.live_server import wait_for

PAYLOAD = b"y" * 100_000
SLACK = 1.1  # a page holds less than its size, and every commit writes some beside the payload's


class Log:
    """A log of one table, its writer's connection and the checkpointer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = path.with_name(path.name + "-wal")
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = OFF")
        self.connection.execute("CREATE TABLE chunks (payload BLOB)")
        self.checkpointer = Checkpointer(path, self.connection)

    def write(self, size_bytes: int) -> None:
        """Commits payloads of so many bytes together, one at a time."""
        for _ in range(-(-size_bytes // len(PAYLOAD))):
            self.connection.execute("INSERT INTO chunks VALUES (?)", (PAYLOAD,))
            self.checkpointer.wrote(len(PAYLOAD))

    def close(self) -> None:
        self.checkpointer.close()
        self.connection.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with closing(Log(tmp_path / "log.db")) as log:
        yield log


def test_the_journal_starts_over_when_the_idle_thread_has_copied_it(log: Log) -> None:
    """However much is written, it stays within what the idle thread leaves behind; the writer copies once a time."""
    statements: list[str] = []
    log.connection.set_trace_callback(statements.append)

    for _ in range(20):
        log.write(WORTH_BYTES)
        wait_for(lambda: log.checkpointer._copied or not log.checkpointer._asked, "the idle thread's copy")

    assert log.path.stat().st_size > 15 * WORTH_BYTES
    assert log.journal.stat().st_size < 2.5 * WORTH_BYTES
    assert 10 <= sum("wal_checkpoint" in statement for statement in statements) <= 20


def test_a_starved_thread_does_not_let_the_journal_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a core that is never idle the writer copies by itself, a little at a time."""
    busy = threading.Event()
    monkeypatch.setattr(module, "_yield_to_all", busy.wait)

    with closing(Log(tmp_path / "log.db")) as log:
        log.write(4 * MOST_BYTES)
        journal_bytes = log.journal.stat().st_size
        copied_bytes = log.path.stat().st_size
        busy.set()

    assert journal_bytes < SLACK * (WORTH_BYTES + MOST_BYTES + STEP_BYTES)
    assert copied_bytes > 3 * MOST_BYTES


def test_the_idle_thread_gets_another_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while the writer leaves the copying to it again."""
    busy = threading.Event()
    monkeypatch.setattr(module, "_yield_to_all", busy.wait)
    monkeypatch.setattr(module, "STARVED_S", 0.0)

    with closing(Log(tmp_path / "log.db")) as log:
        log.write(2 * MOST_BYTES)
        busy.set()
        wait_for(lambda: log.checkpointer._copied, "the first copy")
        log.write(WORTH_BYTES + 2 * STEP_BYTES)
        wait_for(lambda: log.checkpointer._copied, "the second copy")


def test_a_reader_of_an_old_state_costs_room_only_while_it_reads(log: Log) -> None:
    """While somebody reads an old state the journal cannot start over; then it does, and gives its room back."""
    with closing(sqlite3.connect(log.path, isolation_level=None)) as reader:
        log.write(len(PAYLOAD))
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM chunks").fetchone()
        log.write(2 * (WORTH_BYTES + MOST_BYTES))
        while_it_read = log.journal.stat().st_size
        reader.execute("COMMIT")

    for _ in range(4):
        log.write(WORTH_BYTES)
        wait_for(lambda: log.checkpointer._copied or not log.checkpointer._asked, "the idle thread's copy")

    assert while_it_read > 2 * (WORTH_BYTES + MOST_BYTES)
    assert log.journal.stat().st_size <= WORTH_BYTES + MOST_BYTES


def test_nothing_is_lost_between_journal_and_log(log: Log) -> None:
    """What was committed is there, whoever copied it."""
    log.write(3 * WORTH_BYTES)

    with closing(sqlite3.connect(log.path)) as reader:
        count, size = reader.execute("SELECT count(*), sum(length(payload)) FROM chunks").fetchone()
        sound = reader.execute("PRAGMA integrity_check").fetchone()

    assert size == count * len(PAYLOAD) >= 3 * WORTH_BYTES
    assert sound == ("ok",)


def test_a_disk_that_refuses_the_copy_does_not_refuse_the_commit(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    """The events are in the journal; the log says once that they stay there, and tries again."""
    log.connection.set_authorizer(_refuse_checkpoints)
    log.checkpointer._finish(STEP_BYTES)
    log.checkpointer._finish(STEP_BYTES)
    log.connection.set_authorizer(None)
    log.write(len(PAYLOAD))
    log.checkpointer._finish(STEP_BYTES)

    refusals = [record for record in caplog.records if "cannot be copied out of its journal" in record.message]
    assert len(refusals) == 1
    assert log.path.stat().st_size > len(PAYLOAD)


def test_the_outbox_has_its_journal_copied(tmp_path: Path) -> None:
    """What the outbox commits comes out of its journal while it is open, and the journal is gone after it."""
    path = tmp_path / "outbox.db"
    with closing(Outbox(path, EventSettings())) as outbox:
        for _ in range(2 * WORTH_BYTES // len(PAYLOAD)):
            assert outbox.append(PAYLOAD)
        wait_for(lambda: path.stat().st_size > WORTH_BYTES, "the copy")

    assert not path.with_name("outbox.db-wal").exists()


def _refuse_checkpoints(action: int, first: str | None, *_: object) -> int:
    return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_PRAGMA and first == "wal_checkpoint" else sqlite3.SQLITE_OK
