"""The queue of shadows: bounded, fair between challengers, and behind every request."""

import asyncio
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.execution import shadow
from server.execution.shadow import BATCH_REQUESTS, ShadowRunner
from tests.server.turns import until


@dataclass(frozen=True)
class Request:
    """A request that waits for its shadow."""

    name: int
    lane: str = "a"
    size_bytes: int = 1


@dataclass
class Recorder:
    """Does nothing in two steps a request, and remembers what it was given."""

    batches: list[list[Request]] = field(default_factory=list)
    steps: int = 0
    ran: list[int] = field(default_factory=list)
    told: dict[int, str] = field(default_factory=dict)
    between: Callable[[], None] = lambda: None

    def run(self, works: Sequence[Request]) -> Generator[None]:
        self.batches.append(list(works))
        left = list(works)
        try:
            for _ in works:
                self.steps += 1
                self.between()
                yield
            while left:
                self.ran.append(left.pop(0).name)
                yield
        finally:
            for work in left:
                self.shed(work, "closed")

    def shed(self, work: Request, reason: str) -> None:
        assert work.name not in self.told
        self.told[work.name] = reason


def runner(worker: Recorder, requests: int = 1000, size_bytes: int = 1000) -> ShadowRunner[Request]:
    """Returns a runner to which no request ever comes."""
    return ShadowRunner(worker, requests, size_bytes, lambda: 0)


def test_shadows_beyond_the_queue_are_shed_and_the_others_run_in_order() -> None:
    """Offered five with room for three, before the loop turns: three run, two are told, and then there is room."""
    worker = Recorder()

    async def offer() -> None:
        shadows = runner(worker, requests=3)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(shadows.run_forever())
            shadows.offer([Request(name) for name in range(5)])
            assert worker.ran == []
            await until(lambda: len(worker.ran) == 3)
            await until(lambda: shadows._requests == 0)
            shadows.offer([Request(9)])
            await until(lambda: len(worker.ran) == 4)
            task.cancel()

    asyncio.run(offer())

    assert worker.ran == [0, 1, 2, 9]
    assert {3: "shed: the shadow queue is full", 4: "shed: the shadow queue is full"} == worker.told


def test_what_waits_is_bounded_in_bytes() -> None:
    """Ten bytes have room for a six and a four; a request larger than all room is shed even then."""
    worker = Recorder()
    shadows = runner(worker, size_bytes=10)

    shadows.offer([Request(name, size_bytes=size) for name, size in enumerate([11, 6, 5, 4, 1])])
    shadows.drain()

    assert (worker.ran, set(worker.told)) == ([1, 3], {0, 2, 4})


def test_a_batch_has_one_lane_and_lanes_take_turns() -> None:
    """A challenger with many requests waiting does not keep another from its own."""
    worker = Recorder()
    shadows = runner(worker)

    shadows.offer([Request(name) for name in range(BATCH_REQUESTS * 2)])
    shadows.offer([Request(100 + name, "b") for name in range(3)])
    shadows.drain()

    assert [("a", BATCH_REQUESTS), ("b", 3), ("a", BATCH_REQUESTS)] == [
        (batch[0].lane, len(batch)) for batch in worker.batches
    ]
    assert all(len({work.lane for work in batch}) == 1 for batch in worker.batches)


def test_requests_that_come_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """While each turn of the loop brings a request no step is made; the first quiet one makes it."""
    monkeypatch.setattr(shadow, "STRETCH_S", 0.0)
    monkeypatch.setattr(shadow, "BUSY_S", 1e9)
    worker = Recorder()
    arrived = 0

    async def measure() -> int:
        nonlocal arrived
        shadows = ShadowRunner(worker, 1000, 1000, lambda: arrived)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(shadows.run_forever())
            shadows.offer([Request(name) for name in range(BATCH_REQUESTS)])
            await until(lambda: worker.steps >= 3)
            before = worker.steps
            for _ in range(200):
                arrived += 1
                await asyncio.sleep(0)
            during = worker.steps - before
            await until(lambda: len(worker.ran) == BATCH_REQUESTS)
            task.cancel()
        return during

    assert asyncio.run(measure()) <= 1  # the turn before the first arrival was quiet


def test_shadows_get_a_little_time_where_requests_never_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server at saturation still scores some, a twentieth of the time, so that a challenger is seen."""
    monkeypatch.setattr(shadow, "STRETCH_S", 0.0)
    worker = Recorder()
    arrived = 0

    def arrivals() -> int:
        nonlocal arrived
        arrived += 1
        return arrived

    async def measure() -> None:
        shadows = ShadowRunner(worker, 1000, 1000, arrivals)
        began = time.perf_counter()
        stretch_s = await shadows._turn()
        passed_s = time.perf_counter() - began
        assert 0.05 * shadow.BUSY_S <= stretch_s <= 0.05 * passed_s
        async with asyncio.TaskGroup() as group:
            task = group.create_task(shadows.run_forever())
            shadows.offer([Request(name) for name in range(8)])
            await until(lambda: len(worker.ran) == 8)
            task.cancel()

    asyncio.run(measure())

    assert worker.told == {}


def test_a_batch_cut_off_by_the_stop_is_finished_and_nothing_is_taken_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task is cancelled between two steps; what it had taken is not lost."""
    monkeypatch.setattr(shadow, "STRETCH_S", 0.0)
    worker = Recorder()

    async def stop() -> None:
        shadows = runner(worker)
        task = asyncio.create_task(shadows.run_forever())
        worker.between = lambda: task.cancel() if worker.steps == 2 else None  # type: ignore[assignment,return-value]
        shadows.offer([Request(name) for name in range(BATCH_REQUESTS + 2)])
        await asyncio.wait([task])
        assert len(worker.ran) < BATCH_REQUESTS
        shadows.drain()
        shadows.offer([Request(99)])

    asyncio.run(stop())

    assert worker.ran == list(range(BATCH_REQUESTS + 2))
    assert {99: "shed: the server is stopping"} == worker.told


def test_a_drain_without_time_sheds_all_that_waits() -> None:
    """Time is up before the queue is empty: the batch at work tells of its own, the queue of the others."""
    worker = Recorder()
    shadows = runner(worker)
    shadows.offer([Request(name) for name in range(BATCH_REQUESTS + 2)])
    shadows._work_on(0.0)

    shadows.drain(0.0)

    assert sorted([*worker.ran, *worker.told]) == list(range(BATCH_REQUESTS + 2))
    assert {"closed", "shed: the server is stopping"} == set(worker.told.values())


@given(
    offers=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30), st.integers(0, 3)), min_size=1, max_size=60),
    requests=st.integers(1, 20),
    size_bytes=st.integers(1, 60),
    time_is_up=st.booleans(),
)
def test_each_request_is_run_or_shed_once(
    offers: list[tuple[str, int, int]], requests: int, size_bytes: int, time_is_up: bool
) -> None:
    """However offers, steps and the stop fall: nothing is lost, nothing told twice, nothing left counted."""
    worker = Recorder()
    shadows = runner(worker, requests, size_bytes)

    for name, (lane, size, steps) in enumerate(offers):
        shadows.offer([Request(name, lane, size)])
        assert 0 <= shadows._requests <= requests
        assert 0 <= shadows._bytes <= size_bytes
        for _ in range(steps):
            if shadows._lanes or shadows._steps is not None:
                shadows._work_on(0.0)
    shadows.drain(0.0 if time_is_up else 10.0)

    assert sorted([*worker.ran, *worker.told]) == list(range(len(offers)))
    assert shadows._lanes == {}
    assert time_is_up or (shadows._requests, shadows._bytes) == (0, 0)


def test_a_worker_that_cannot_even_shed_does_no_harm_to_the_request(caplog: pytest.LogCaptureFixture) -> None:
    """The answer is out; what fails behind it stands in the server's log."""

    class Broken(Recorder):
        def shed(self, work: Request, reason: str) -> None:
            raise RuntimeError("a bug")

    shadows = runner(Broken(), requests=1)

    shadows.offer([Request(1), Request(2)])

    assert "a shadow could not be taken" in caplog.text
