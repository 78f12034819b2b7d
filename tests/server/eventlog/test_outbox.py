"""The writer of the log, in this process: groups, offsets, room, retention."""

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.errors import OutboxError
from server.eventlog import outbox as outbox_module
from server.eventlog.outbox import Outbox
from server.settings import EventSettings
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
    monkeypatch.setattr(outbox_module, "TRIM_EVERY_S", 0.0)
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


def test_a_second_writer_is_refused(path: Path) -> None:
    """The log has one writer; when it has closed, another may open it."""
    first = filled(path, 1)

    with pytest.raises(OutboxError, match="only writer"):
        Outbox(path, EventSettings())
    first.close()
    Outbox(path, EventSettings()).close()
