"""The writer of the log, in this process: groups, offsets, room, retention."""

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.errors import OutboxError
from server.eventlog import outbox as outbox_module
from server.eventlog import retention as retention_module
from server.eventlog.outbox import Outbox
from server.settings import EventSettings
from tests.server.eventlog.full_disk import limit_pages
from tests.server.live_server import wait_for

LINE = b'{"n":%d}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


def rows(path: Path) -> list[tuple[int, int, bytes]]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute("SELECT first_offset, count, payload FROM chunks ORDER BY first_offset").fetchall()
    finally:
        connection.close()


def filled(path: Path, events: int, **settings: object) -> Outbox:
    outbox = Outbox(path, EventSettings.model_validate(settings))
    for n in range(events):
        assert outbox.append(LINE % n)
    return outbox


def test_a_group_is_one_row(path: Path) -> None:
    """Many events, few rows; offsets go on without a gap, and every line ends with a newline."""
    filled(path, 10_000).close()

    found = rows(path)

    assert len(found) < 100
    assert [first for first, _, _ in found] == [0, *[first + count for first, count, _ in found[:-1]]]
    assert b"".join(payload for _, _, payload in found) == b"".join(LINE % n + b"\n" for n in range(10_000))


def test_it_can_be_read_while_it_is_written(path: Path) -> None:
    """A reader sees every committed group while the writer goes on."""
    outbox = filled(path, 10)

    wait_for(lambda: rows(path), "the first group")
    assert outbox.append(LINE % 10)
    wait_for(lambda: sum(count for _, count, _ in rows(path)) == 11, "the second group")
    outbox.close()


def test_offsets_go_on_after_a_restart(path: Path) -> None:
    """The log is one, however often its writer starts."""
    filled(path, 5).close()
    filled(path, 5).close()

    assert [(first, count) for first, count, _ in rows(path)] == [(0, 5), (5, 5)]


def test_what_waits_for_a_commit_returns_after_it(path: Path) -> None:
    """`append_durably` returns when the lines can be read from the file."""
    outbox = filled(path, 0)

    async def store() -> list[tuple[int, int, bytes]]:
        await outbox.append_durably([LINE % 1, LINE % 2])
        return rows(path)

    assert sum(count for _, count, _ in asyncio.run(store())) == 2
    outbox.close()


def test_a_full_queue_drops_and_counts(path: Path) -> None:
    """Beyond `queue_bytes` nothing is taken, what was taken is written, and the sum is what was offered."""
    outbox = Outbox(path, EventSettings(queue_bytes=1024 * 1024, commit_interval_ms=20))
    big = b"x" * 1000

    taken = sum(outbox.append(big) for _ in range(5_000))

    with pytest.raises(OutboxError, match="no room"):
        asyncio.run(outbox.append_durably([big] * 1100))
    outbox.close()
    assert 1000 < taken < 5000
    assert outbox.dropped_events == 5_000 - taken
    assert (outbox.committed_events, outbox.backlog) == (taken, 0)
    assert sum(count for _, count, _ in rows(path)) == taken


@pytest.fixture
def trims_at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(retention_module, "LOOK_EVERY_S", 0.0)
    yield


@pytest.mark.usefixtures("trims_at_once")
@pytest.mark.parametrize("settings", [{"retention_s": 0.001}, {"retention_bytes": 1024 * 1024}])
def test_retention_takes_whole_groups_from_the_front(path: Path, settings: dict[str, object]) -> None:
    """By age or by size; the newest group stays, and offsets never restart."""
    outbox = filled(path, 0, **settings)

    async def store() -> None:
        for _ in range(6):
            await outbox.append_durably([b"x" * 1000] * 500)

    asyncio.run(store())
    wait_for(lambda: outbox.append(b"y") and rows(path)[0][0] > 0, "trimming")
    outbox.close()

    found = rows(path)
    assert 0 < found[0][0] < found[-1][0] + found[-1][1]
    again = filled(path, 1)
    again.close()
    assert rows(path)[-1][0] == found[-1][0] + found[-1][1]


def test_the_newest_group_outlives_its_age(path: Path) -> None:
    """A log with a last group tells where it goes on, however old that group is."""
    outbox = filled(path, 3, retention_s=0.001)
    wait_for(lambda: outbox.backlog == 0, "the group")
    committed_at = time.time()
    wait_for(lambda: time.time() > committed_at + 0.01, "its age")

    outbox._retention.step(outbox._next_offset)

    outbox.close()
    assert [(first, count) for first, count, _ in rows(path)] == [(0, 3)]


def test_only_what_was_promised_waits_for_the_disk(path: Path) -> None:
    """A group that a client waits for is synced; so is one that went before its client asked; others are not."""
    outbox = filled(path, 1)
    wait_for(lambda: outbox.backlog == 0, "the group")

    def level() -> int:
        return int(outbox._connection.execute("PRAGMA synchronous").fetchone()[0])

    ordinary = level()
    asyncio.run(outbox.committed())
    late = level()
    outbox.append(LINE % 1)
    wait_for(lambda: outbox.backlog == 0, "the group")
    again = level()
    asyncio.run(outbox.append_durably([LINE % 2]))

    assert (ordinary, late, again, level()) == (1, 2, 1, 2)  # SQLite's NORMAL and FULL
    outbox.close()


@pytest.fixture
def retries_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "RETRY_S", 0.001)


@pytest.mark.usefixtures("retries_at_once")
def test_a_full_disk_keeps_events_and_writes_them_when_there_is_room(path: Path) -> None:
    """Refused again and again, told to who waits, then written once, whole and in order."""
    outbox = filled(path, 0)
    limit_pages(outbox, 10)
    lines = [LINE % n + b" " * 1000 for n in range(200)]

    with pytest.raises(OutboxError, match="cannot be written at present: database or disk is full"):
        asyncio.run(outbox.append_durably(lines))

    assert "cannot commit" in str(outbox.failure)
    assert (rows(path), outbox.backlog, outbox.dropped_events) == ([], 200, 0)
    assert outbox.append(LINE % 200)
    limit_pages(outbox, 1_000_000)
    wait_for(lambda: outbox.backlog == 0, "the events")
    assert outbox.failure is None
    asyncio.run(outbox.append_durably([LINE % 201]))
    outbox.close()
    written = b"".join(payload for _, _, payload in rows(path)).splitlines()
    assert written == [*lines, LINE % 200, LINE % 201]


@pytest.mark.usefixtures("retries_at_once")
def test_what_the_disk_refuses_to_the_end_is_counted(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Closing does not wait for a disk that never has room; the loss is said and counted."""
    outbox = filled(path, 0)
    limit_pages(outbox, 10)
    for _ in range(200):
        outbox.append(b"x" * 1000)
    wait_for(lambda: outbox.failure, "the refusal")

    outbox.close()

    assert (outbox.committed_events, outbox.dropped_events, outbox.backlog) == (0, 200, 0)
    assert "lost 200 events" in caplog.text


def test_a_large_group_is_cut_into_chunks(path: Path) -> None:
    """20 MB at once: chunks stay near 8 MB, offsets have no gap, and who waits is told after the last."""
    outbox = filled(path, 0)

    async def store() -> int:
        await outbox.append_durably([b"x" * 100_000] * 200)
        return sum(count for _, count, _ in rows(path))

    assert asyncio.run(store()) == 200
    outbox.close()
    found = rows(path)
    assert max(len(payload) for _, _, payload in found) <= outbox_module.MAX_CHUNK_BYTES + 200_000
    assert [first for first, _, _ in found] == [0, *[first + count for first, count, _ in found[:-1]]]


def test_who_waits_and_goes_takes_nobody_along(path: Path) -> None:
    """One cancelled caller of a group, and the others of the same group still learn of their commit."""
    outbox = filled(path, 0, commit_interval_ms=20)

    faults: list[dict[str, object]] = []

    async def store() -> list[object]:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
        waiting = [asyncio.create_task(outbox.append_durably([LINE % n])) for n in range(3)]
        begun = asyncio.Event()
        asyncio.get_running_loop().call_soon(begun.set)  # called after each of them has taken its first step
        await begun.wait()
        waiting[1].cancel()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        await outbox.committed()
        return results

    first, second, third = asyncio.run(store())

    assert (first, type(second), third) == (None, asyncio.CancelledError, None)
    assert faults == []
    outbox.close()
    assert sum(count for _, count, _ in rows(path)) == 3


def test_waiting_for_nothing_new_returns(path: Path) -> None:
    """What was committed before is made safe against a power cut, and the caller goes on."""
    outbox = filled(path, 3)
    wait_for(lambda: outbox.backlog == 0, "the group")

    asyncio.run(outbox.committed())
    asyncio.run(outbox.committed())

    outbox.close()
    assert sum(count for _, count, _ in rows(path)) == 3


def test_a_dead_writer_fails_who_waits_and_is_counted(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in the thread hangs nobody: those who wait and those who come are told, and events count as dropped."""
    outbox = filled(path, 0)

    def broken(*arguments: object, **members: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(outbox, "_insert", broken)

    with pytest.raises(OutboxError, match="its writer has died"):
        asyncio.run(outbox.append_durably([LINE % 1, LINE % 2]))
    assert not outbox.alive
    with pytest.raises(OutboxError, match="its writer has died"):
        asyncio.run(outbox.append_durably([LINE % 3]))
    with pytest.raises(OutboxError, match="its writer has died"):
        asyncio.run(outbox.committed())
    assert not outbox.append(LINE % 4)
    outbox.close()
    assert (outbox.committed_events, outbox.dropped_events, outbox.backlog) == (0, 3, 0)
    assert "a bug" in caplog.text


def test_a_locked_file_is_refused_at_the_start(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program holds the database's write lock: one sentence, and the writer's own lock is free again."""
    monkeypatch.setattr(outbox_module, "BUSY_S", 0.01)
    filled(path, 1).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(OutboxError, match="can be written, got: database is locked"):
        Outbox(path, EventSettings())
    other.execute("ROLLBACK")
    other.close()
    Outbox(path, EventSettings()).close()


def test_a_log_whose_schema_is_damaged_is_refused(path: Path) -> None:
    """A table under another name is a damaged log: an empty one beside it would begin at offset 0 again."""
    filled(path, 100).close()
    connection = sqlite3.connect(path)
    connection.execute("ALTER TABLE chunks RENAME TO chumks")
    connection.commit()
    connection.close()

    with pytest.raises(OutboxError, match="expected the tables chunks and meta, got chumks, meta"):
        Outbox(path, EventSettings())


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_a_file_cut_short_is_refused(path: Path, keep: float) -> None:
    """Half a database is no log; it is neither emptied nor written."""
    for _ in range(4):
        filled(path, 1000).close()
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])

    with pytest.raises(OutboxError, match=r"outbox.db"):
        Outbox(path, EventSettings())
    assert path.stat().st_size == int(len(whole) * keep)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("", "expected a file name"), ("folder", "unable to open database file"), ("none/log.db", "folder that can be")],
)
def test_a_path_that_can_be_no_file_is_refused(tmp_path: Path, name: str, sentence: str) -> None:
    """No name at all, a folder, a folder that is not there."""
    (tmp_path / "folder").mkdir()

    with pytest.raises(OutboxError, match=sentence):
        Outbox(tmp_path / name if name else Path(), EventSettings())


def test_a_second_writer_is_refused(path: Path) -> None:
    """The log has one writer; when it has closed, another may open it."""
    first = filled(path, 1)

    with pytest.raises(OutboxError, match="only writer"):
        Outbox(path, EventSettings())
    first.close()
    Outbox(path, EventSettings()).close()


def test_a_label_behind_more_than_a_chunk_learns_that_the_disk_is_full(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much waits before it, a waiter is told of the refusal; afterwards nothing is missing."""
    monkeypatch.setattr(outbox_module, "RETRY_S", 0.01)
    outbox = Outbox(path, EventSettings())
    write = outbox._insert
    refusing = True

    def insert(lines: list[bytes], *, synced: bool) -> None:
        if refusing:
            raise sqlite3.OperationalError("database or disk is full")
        write(lines, synced=synced)

    monkeypatch.setattr(outbox, "_insert", insert)
    line = b"x" * 1_000_000
    for _ in range(20):
        assert outbox.append(line)

    async def wait() -> None:
        with pytest.raises(OutboxError, match="disk is full"):
            await asyncio.wait_for(outbox.append_durably([b"label"]), 5)

    asyncio.run(wait())
    refusing = False
    wait_for(lambda: outbox.backlog == 0, "the disk's second chance")
    outbox.close()

    found = rows(path)
    assert sum(count for _, count, _ in found) == 21
    assert max(len(payload) for _, _, payload in found) < 10_000_000
    assert (outbox.committed_events, outbox.dropped_events, outbox.backlog) == (21, 0, 0)
