"""What workers that have ended leave in their rings."""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.cluster.drainer import Drainer
from server.cluster.memory import Memory, create_memory
from server.cluster.remote_outbox import RemoteOutbox
from server.errors import OutboxError
from server.eventlog.outbox import Outbox
from server.settings import EventSettings
from tests.server.eventlog.full_disk import limit_pages
from tests.server.live_server import wait_for
from tests.server.turns import until

QUEUE_BYTES = 1024 * 1024


class Left:
    """A log, two rings, and a drainer that nobody runs: the worker of the first ring appends, and dies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outbox = Outbox(path, EventSettings(queue_bytes=QUEUE_BYTES))
        self.descriptor = create_memory(2, QUEUE_BYTES)
        memory = Memory(self.descriptor, 2, QUEUE_BYTES)
        self.drainer = Drainer(memory, 2, self.outbox, 0.001)
        self.dead = memory.producer(0)
        self.sibling = RemoteOutbox(memory, 1, QUEUE_BYTES)

    def lines(self) -> list[bytes]:
        """Returns what is in the log."""
        with contextlib.closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT payload FROM chunks ORDER BY first_offset").fetchall()
        return b"".join(payload for (payload,) in rows).splitlines()


@pytest.fixture
def left(tmp_path: Path) -> Iterator[Left]:
    """The parts, closed with the test."""
    made = Left(tmp_path / "outbox.db")
    yield made
    if made.outbox.alive:
        made.outbox.close()
    os.close(made.descriptor)


def shown(left: Left, condition: Callable[[], bool]) -> Callable[[], bool]:
    """Returns the condition, looked at after the board has been renewed."""

    def look() -> bool:
        left.drainer.orphaned(1)
        return condition()

    return look


def test_a_dead_workers_events_are_logged_and_its_count_is_mended(left: Left) -> None:
    """It counted an event that it had no time to publish: its siblings do not wait for that one for ever."""
    for n in range(100):
        assert left.dead.append(b"%d" % n)
    left.dead._words[2] += 1  # what the kill left
    assert left.sibling.backlog == 101

    left.drainer.orphaned(0)

    wait_for(shown(left, lambda: left.sibling.backlog == 0), "the events")
    assert left.sibling.committed_events == 100
    assert left.lines() == [b"%d" % n for n in range(100)]


def test_the_end_takes_what_is_left_in_every_ring(left: Left) -> None:
    """Appended when nobody drained any more, and in the log all the same."""
    assert left.dead.append(b"one")
    assert left.sibling.append(b"two")

    left.drainer.finish(5.0)
    left.outbox.close()

    assert left.lines() == [b"one", b"two"]


def test_what_the_disk_refuses_to_the_end_is_said(left: Left, caplog: pytest.LogCaptureFixture) -> None:
    """A disk that stays full is waited for no longer than said; every event that is lost is in a count."""
    limit_pages(left.outbox, 10)
    offered = 0
    while not (left.outbox.full and left.sibling.full):
        offered += left.sibling.append(b"x" * 1000)
        left.drainer.orphaned(0)

    left.drainer.finish(0.05)
    left.outbox.close()

    in_rings = left.sibling.backlog - (left.outbox.dropped_events - left.sibling.dropped_events)
    assert f"lost {in_rings} events: the disk refused them at shutdown" in caplog.text
    assert in_rings + left.outbox.dropped_events == offered
    assert left.lines() == []


def test_what_was_written_out_on_request_is_shown(left: Left) -> None:
    """Lines that only their commit was asked for, such as labels, are not counted as waiting for ever after."""
    assert left.dead.append_all([b"one", b"two"])
    assert left.sibling.backlog == 2

    asyncio.run(left.drainer.write_out(0, left.dead.head))

    assert (left.sibling.backlog, left.sibling.committed_events) == (0, 2)


def test_a_disk_that_recovers_is_shown_though_nobody_appends_any_more(left: Left) -> None:
    """The failure that a request met does not keep the server unready once the lines are on disk."""

    async def refuse_and_recover() -> tuple[str | None, str | None]:
        draining = asyncio.create_task(left.drainer.run_forever())
        with contextlib.closing(sqlite3.connect(left.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert left.dead.append_all([b"one"])
            with pytest.raises(OutboxError):
                await left.drainer.write_out(0, left.dead.head)
            await until(lambda: left.sibling.failure)
            while_locked = left.sibling.failure
            other.execute("ROLLBACK")
        await until(lambda: left.sibling.failure is None)
        draining.cancel()
        return while_locked, left.sibling.failure

    while_locked, after = asyncio.run(refuse_and_recover())

    assert ("locked" in str(while_locked), after) == (True, None)
