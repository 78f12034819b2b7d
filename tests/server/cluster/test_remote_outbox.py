"""The log as a worker has it keeps every promise of the outbox, and the workers agree on its counts."""

import asyncio
import contextlib
import os
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from server.cluster.channel import Channel
from server.cluster.drainer import Drainer
from server.cluster.memory import Memory, create_memory
from server.cluster.messages import Fault, FromWorker, ToWorker, Wake, WriteOut, Written, from_worker, to_worker
from server.cluster.remote_outbox import RemoteOutbox
from server.errors import OutboxError
from server.eventlog import outbox as outbox_module
from server.eventlog.event_log import EventLog
from server.eventlog.outbox import Outbox
from server.settings import EventSettings
from tests.server.eventlog.full_disk import limit_pages
from tests.server.turns import turn, until

LINE = b'{"n":%d}'
WORKERS = 2


class Log:
    """A log under test: ``appended`` is what a worker has, ``others`` what its siblings have."""

    def __init__(self, outbox: Outbox, appended: EventLog, others: list[RemoteOutbox]) -> None:
        self.outbox = outbox
        self.appended = appended
        self.others = others
        self.part: Callable[[], None] = lambda: None


Opener = Callable[..., contextlib.AbstractAsyncContextManager[Log]]


@contextlib.asynccontextmanager
async def local(path: Path, **settings: object) -> AsyncIterator[Log]:
    """The outbox itself."""
    outbox = Outbox(path, EventSettings.model_validate(settings))
    try:
        yield Log(outbox, outbox, [])
    finally:
        outbox.close()


@contextlib.asynccontextmanager
async def remote(path: Path, **values: object) -> AsyncIterator[Log]:
    """Rings, a drainer and channels around an outbox, in one process."""
    settings = EventSettings.model_validate(values)
    outbox = Outbox(path, settings)
    descriptor = create_memory(WORKERS, settings.queue_bytes)
    memory = Memory(descriptor, WORKERS, settings.queue_bytes)
    drainer = Drainer(memory, WORKERS, outbox, settings.commit_interval_ms / 1000)
    logs = [RemoteOutbox(memory, slot, settings.queue_bytes) for slot in range(WORKERS)]
    async with asyncio.TaskGroup() as tasks:
        jobs = [tasks.create_task(drainer.run_forever())]
        channels: list[Channel[FromWorker]] = []

        def serve(slot: int) -> None:
            async def write_out(message: WriteOut) -> None:
                fault = None
                try:
                    await drainer.write_out(slot, message.position)
                except OutboxError as error:
                    fault = Fault.of(error)
                channels[slot].send(Written(commit=message.commit, fault=fault))

            def receive(message: FromWorker) -> None:
                if isinstance(message, Wake):
                    drainer.wake()
                elif isinstance(message, WriteOut):
                    jobs.append(tasks.create_task(write_out(message)))

            channels.append(Channel(from_worker, receive, lambda: None))

        for slot, log in enumerate(logs):
            ours, its = socket.socketpair()
            serve(slot)
            await channels[slot].connect(ours)

            def hear(message: ToWorker, log: RemoteOutbox = log) -> None:
                assert isinstance(message, Written)
                log.written(message)

            channel = Channel(to_worker, hear, log.lost)
            await channel.connect(its)
            log.connect(channel.send)
        found = Log(outbox, logs[0], logs[1:])
        found.part = channels[0].close
        try:
            yield found
        finally:
            for each in channels:
                each.close()
            for job in jobs:
                job.cancel()
    drainer.finish(1.0)
    outbox.close()
    os.close(descriptor)


both = pytest.mark.parametrize("opened", [local, remote])


def rows(path: Path) -> list[tuple[int, int, bytes]]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT first_offset, count, payload FROM chunks ORDER BY first_offset").fetchall()


def lines(path: Path) -> list[bytes]:
    return b"".join(payload for _, _, payload in rows(path)).splitlines()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@both
def test_everything_appended_is_written_in_order(opened: Opener, path: Path) -> None:
    """Ten thousand events in, the same out, few rows, and the counts agree."""

    async def run() -> tuple[int, int, int]:
        async with opened(path) as log:
            for n in range(10_000):
                assert log.appended.append(LINE % n)
            await until(lambda: log.appended.backlog == 0)
            return log.appended.committed_events, log.appended.dropped_events, log.appended.backlog

    assert asyncio.run(run()) == (10_000, 0, 0)
    assert lines(path) == [LINE % n for n in range(10_000)]
    assert len(rows(path)) < 100


@both
def test_what_waits_for_a_commit_returns_after_it(opened: Opener, path: Path) -> None:
    """`append_durably` and `committed` return when the lines can be read from the file; nothing new is no wait."""

    async def run() -> tuple[list[bytes], list[bytes]]:
        async with opened(path) as log:
            await log.appended.append_durably([LINE % 1, LINE % 2])
            first = lines(path)
            log.appended.append(LINE % 3)
            await log.appended.committed()
            second = lines(path)
            await log.appended.committed()
            return first, second

    assert asyncio.run(run()) == ([LINE % 1, LINE % 2], [LINE % 1, LINE % 2, LINE % 3])


@both
def test_a_full_queue_drops_and_counts(opened: Opener, path: Path) -> None:
    """Beyond `queue_bytes` nothing is taken, labels are taken all or none, and the sum is what was offered."""
    big = b"x" * 1000

    async def run() -> tuple[int, bool, int]:
        async with opened(path, queue_bytes=1024 * 1024, commit_interval_ms=20) as log:
            taken = sum(log.appended.append(big) for _ in range(5_000))
            full = log.appended.full
            with pytest.raises(OutboxError, match="no room for 1100 events"):
                await log.appended.append_durably([big] * 1100)
            dropped = log.appended.dropped_events
            await until(lambda: log.appended.backlog == 0)
            assert log.appended.committed_events == taken
            assert not log.appended.full
            return taken, full, dropped

    taken, full, dropped = asyncio.run(run())

    assert 1000 < taken < 5000
    assert (full, dropped) == (True, 5000 - taken)
    assert len(lines(path)) == taken


@both
def test_a_full_disk_is_told_and_what_waits_is_written_later(
    opened: Opener, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the disk is full, who waits gets an error that says so; then all is written, once, in order."""
    monkeypatch.setattr(outbox_module, "RETRY_S", 0.001)
    wide = [LINE % n + b" " * 1000 for n in range(200)]

    async def run() -> None:
        async with opened(path) as log:
            limit_pages(log.outbox, 10)
            with pytest.raises(OutboxError, match="cannot be written at present: database or disk is full"):
                await log.appended.append_durably(wide)
            await until(lambda: "cannot commit" in str(log.appended.failure))
            assert log.appended.backlog == 200
            assert log.appended.append(LINE % 200)
            limit_pages(log.outbox, 1000000)
            await until(lambda: log.appended.backlog == 0)
            assert log.appended.failure is None
            await log.appended.append_durably([LINE % 201])

    asyncio.run(run())

    assert lines(path) == [*wide, LINE % 200, LINE % 201]


@both
def test_a_disk_that_stays_full_fills_the_queue_and_then_is_told_to_all(
    opened: Opener, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much waits in front, labels are answered with an error in time; once there is room nothing is missing."""
    monkeypatch.setattr(outbox_module, "RETRY_S", 0.001)
    big = b"x" * 1000

    async def run() -> int:
        async with opened(path, queue_bytes=1024 * 1024) as log:
            limit_pages(log.outbox, 10)
            taken = 0
            async with asyncio.timeout(20):
                while not (log.appended.full and log.outbox.full):
                    taken += log.appended.append(big)
                    await turn()
            with pytest.raises(OutboxError):
                await log.appended.append_durably([b"label"])
            taken += not isinstance(log.appended, Outbox)  # the ring keeps room for what is in hand; it is kept
            limit_pages(log.outbox, 1000000)
            await until(lambda: log.appended.backlog == 0)
            return taken

    taken = asyncio.run(run())

    assert len(lines(path)) == taken


@both
def test_who_waits_and_goes_takes_nobody_along(opened: Opener, path: Path) -> None:
    """One cancelled caller of a group, and the others of the same group still learn of their commit."""
    faults: list[dict[str, object]] = []

    async def run() -> list[object]:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
        async with opened(path, commit_interval_ms=20) as log:
            waiting = [asyncio.create_task(log.appended.append_durably([LINE % n])) for n in range(3)]
            begun = asyncio.Event()
            asyncio.get_running_loop().call_soon(begun.set)  # called after each of them has taken its first step
            await begun.wait()
            waiting[1].cancel()
            results = await asyncio.gather(*waiting, return_exceptions=True)
            await log.appended.committed()
            return results

    first, second, third = asyncio.run(run())

    assert (first, type(second), third) == (None, asyncio.CancelledError, None)
    assert faults == []
    assert len(lines(path)) == 3


@both
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_writer_fails_who_waits_and_is_counted(
    opened: Opener, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in the thread hangs nobody: those who wait and those who come are told, and events count as dropped."""

    def broken(*arguments: object, **members: object) -> None:
        raise RuntimeError("a bug")

    async def run() -> tuple[int, int, int]:
        async with opened(path) as log:
            monkeypatch.setattr(log.outbox, "_insert", broken)
            with pytest.raises(OutboxError, match="its writer has died"):
                await log.appended.append_durably([LINE % 1, LINE % 2])
            await until(lambda: not log.appended.alive)
            assert log.appended.full
            with pytest.raises(OutboxError, match="its writer has died"):
                await log.appended.append_durably([LINE % 3])
            with pytest.raises(OutboxError, match="its writer has died"):
                await log.appended.committed()
            log.appended.append(LINE % 4)
            await until(lambda: log.appended.backlog == 0)
            return log.appended.committed_events, log.appended.dropped_events, log.appended.backlog

    assert asyncio.run(run()) == (0, 3, 0)


def test_a_writer_that_sleeps_is_woken_by_the_next_event(path: Path) -> None:
    """Again and again everything is written and the writer at rest; whichever worker comes next, its event arrives."""

    async def run() -> None:
        async with remote(path, commit_interval_ms=0.1) as log:
            for n in range(30):
                each = [log.appended, *log.others][n % 2]
                assert each.append(LINE % n)
                await until(lambda: log.appended.backlog == 0)
                for _ in range(n):  # so that it is met at different points of its way to sleep
                    await turn()

    asyncio.run(run())

    assert lines(path) == [LINE % n for n in range(30)]


def test_workers_agree_on_every_count(path: Path) -> None:
    """Whichever worker is asked, the counts and the state are those of the whole server."""

    async def run() -> list[tuple[int, int, int, str | None, bool]]:
        async with remote(path, queue_bytes=1024 * 1024) as log:
            for n, each in enumerate([log.appended, *log.others]):
                for _ in range(10 * (n + 1)):
                    each.append(LINE % n)
            for _ in range(2000):
                log.appended.append(b"x" * 1000)
            await until(lambda: log.appended.backlog == 0)
            return [
                (each.committed_events, each.dropped_events, each.backlog, each.failure, each.alive)
                for each in [log.appended, *log.others]
            ]

    first, second = asyncio.run(run())

    assert first == second
    assert first[0] + first[1] == 10 + 20 + 2000
    assert first[1] > 0


def test_a_writer_that_goes_fails_who_waits_and_who_comes(path: Path) -> None:
    """The channel closes: all waiting ends with an error, and the log says that it is not alive."""

    async def run() -> None:
        async with remote(path, commit_interval_ms=20) as log:
            waiting = [asyncio.create_task(log.appended.append_durably([LINE % n])) for n in range(3)]
            await turn()
            log.part()
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert [str(result) for result in results] == ["the event log cannot be written: its writer has died"] * 3
            with pytest.raises(OutboxError, match="its writer has died"):
                await log.appended.append_durably([LINE % 3])
            with pytest.raises(OutboxError, match="its writer has died"):
                await log.appended.committed()
            assert not log.appended.alive

    asyncio.run(run())

    assert sorted(lines(path)) == [LINE % 0, LINE % 1, LINE % 2]
