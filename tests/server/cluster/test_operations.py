"""Changes of the repository over several workers, with real channels and workers that only note what they serve."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Coroutine
from typing import Any, cast

import pytest

from server.cluster import operations as operations_module
from server.cluster.channel import Channel
from server.cluster.control import ClusterControl
from server.cluster.member import Member
from server.cluster.messages import (
    Abandon,
    Ask,
    Commit,
    Drained,
    FromWorker,
    Lead,
    Outcome,
    Plan,
    Planned,
    Prepared,
    ToWorker,
    Turn,
    to_worker,
)
from server.cluster.operations import Operations
from server.errors import BundleError, ConflictError, NotReadyError
from server.swap import Change, Swapper
from tests.server.turns import turn


class Notes:
    """What a swapper does, without bundles: ``serving`` are the versions of `flight` that would answer."""

    def __init__(self, serving: set[str]) -> None:
        self.serving = serving
        self.prepared: set[str] = set()
        self.loaded: list[str] = []
        self.fault: Exception | None = None
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.reached = asyncio.Event()
        self._changes = 0

    async def plan_load(self, model: str, version: str | None) -> Change:
        self._changes += 1
        return Change(id=f"{id(self)}-{self._changes}", action="load", model=model, versions=[str(version)])

    def plan_unload(self, model: str, version: str | None) -> Change:
        if version not in self.serving:
            raise ConflictError(f"version {version} does not serve")
        self._changes += 1
        return Change(id=f"{id(self)}-{self._changes}", action="unload", model=model, versions=[str(version)])

    async def prepare(self, change: Change) -> None:
        self.reached.set()
        await self.go_on.wait()
        if self.fault is not None:
            raise self.fault
        self.prepared.add(change.id)

    def commit(self, change: Change) -> None:
        self.prepared.remove(change.id)
        if change.action == "load":
            self.serving |= set(change.versions)
            self.loaded += change.versions
        else:
            self.serving -= set(change.versions)

    def abandon(self, change: Change) -> None:
        self.prepared.discard(change.id)

    async def drained(self, change: Change) -> None:
        pass


class Worker:
    """A worker in this process: its control, its notes, and the supervisor's view of it."""

    def __init__(self, cluster: "Cluster", slot: int, serving: set[str]) -> None:
        self.notes = Notes(serving)
        self.member = Member(slot, cluster.operations.revision, cluster.receive)
        self.channel = Channel(to_worker, self._receive, self._part)
        self.control = ClusterControl(cast(Swapper, self.notes), self.channel.send)
        self.serves = asyncio.Event()
        self.parted = asyncio.Event()

    async def connect(self) -> None:
        ours, its = socket.socketpair()
        await self.member.connect(ours)
        await self.channel.connect(its)

    def _part(self) -> None:
        self.parted.set()

    def _receive(self, message: ToWorker) -> None:
        if isinstance(message, Turn | Outcome | Plan | Commit | Abandon | Lead):
            self.control.receive(message)
        else:
            self.serves.set()


class Cluster:
    """The supervisor's part."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.operations = Operations(drain_s=1.0)
        self.workers: list[Worker] = []
        self._tasks = tasks

    def receive(self, member: Member, message: FromWorker) -> None:
        if isinstance(message, Ask):
            self._tasks.create_task(self.operations.carry_out(member, message.ask))
        elif isinstance(message, Planned):
            member.replied(message, message.ask)
        elif isinstance(message, Prepared | Drained):
            member.replied(message, message.change)

    async def worker(self, slot: int, *serving: str, join: bool = True) -> Worker:
        """Returns a connected worker that has loaded versions of `flight`."""
        worker = Worker(self, slot, set(serving))
        await worker.connect()
        self.workers.append(worker)
        if join:
            await self.operations.join(worker.member, [("flight", version) for version in serving])
            await worker.serves.wait()
        return worker


@contextlib.asynccontextmanager
async def a_cluster() -> AsyncIterator[Cluster]:
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        cluster = Cluster(tasks)
        yield cluster
        for worker in cluster.workers:
            worker.member.close()
        for worker in cluster.workers:
            await worker.parted.wait()


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_a_change_holds_everywhere_when_it_returns() -> None:
    """Loaded by one worker and unloaded by another, every worker's state is the same each time."""

    async def work() -> None:
        async with a_cluster() as cluster:
            workers = [await cluster.worker(slot, "1") for slot in range(3)]
            await workers[1].control.load("flight", "2")
            assert [worker.notes.serving for worker in workers] == [{"1", "2"}] * 3
            await workers[2].control.unload("flight", "1")
            assert [worker.notes.serving for worker in workers] == [{"2"}] * 3
            assert cluster.operations.serving() == [("flight", "2")]

    run(work())


def test_one_worker_that_fails_changes_nothing_anywhere() -> None:
    """The asker gets the same error, of its class; no worker keeps what it prepared; the next change goes well."""

    async def work() -> None:
        async with a_cluster() as cluster:
            workers = [await cluster.worker(slot, "1") for slot in range(3)]
            workers[2].notes.fault = BundleError("model.onnx: damaged")
            with pytest.raises(BundleError, match=r"^model.onnx: damaged$"):
                await workers[0].control.load("flight", "2")
            workers[2].notes.fault = None
            await workers[0].control.load("flight", "3")
            assert [worker.notes.serving for worker in workers] == [{"1", "3"}] * 3
            assert [worker.notes.prepared for worker in workers] == [set()] * 3

    run(work())


def test_a_plan_that_is_refused_is_the_askers_alone_and_holds_nobody_up() -> None:
    """The error arises where it was asked; whoever comes next has its turn."""

    async def work() -> None:
        async with a_cluster() as cluster:
            first, second = [await cluster.worker(slot, "1") for slot in range(2)]
            with pytest.raises(ConflictError, match="version 9"):
                await first.control.unload("flight", "9")
            await second.control.load("flight", "2")
            assert first.notes.serving == {"1", "2"}

    run(work())


def test_changes_take_turns() -> None:
    """Many at once from all workers: each is planned on the state that the one before has left."""

    async def work() -> None:
        async with a_cluster() as cluster:
            workers = [await cluster.worker(slot, "1") for slot in range(3)]
            asked = [workers[n % 3].control.load("flight", str(n)) for n in range(2, 20)]
            asked += [workers[n % 3].control.unload("flight", str(n)) for n in range(2, 20)]
            results = await asyncio.gather(*asked, return_exceptions=True)
            served = workers[0].notes.serving
            assert [worker.notes.serving for worker in workers] == [served] * 3
            assert {str(n) for n, result in zip(range(2, 20), results[18:], strict=True) if result is None} == {
                str(n) for n in range(2, 20)
            } - served

    run(work())


def test_a_worker_that_ends_while_it_prepares_is_left_out() -> None:
    """The change holds in those that live."""

    async def work() -> None:
        async with a_cluster() as cluster:
            first, second = [await cluster.worker(slot, "1") for slot in range(2)]
            second.notes.go_on.clear()
            change = asyncio.create_task(first.control.load("flight", "2"))
            await second.notes.reached.wait()
            second.channel.close()
            cluster.operations.leave(second.member)
            await change
            second.notes.go_on.set()
            assert first.notes.serving == {"1", "2"}

    run(work())


def test_an_asker_that_ends_holds_nobody_up() -> None:
    """It dies while its change is prepared, or before its turn: the next one has its turn."""

    async def work() -> None:
        async with a_cluster() as cluster:
            first, second, third = [await cluster.worker(slot, "1") for slot in range(3)]
            third.notes.go_on.clear()
            changes = [asyncio.create_task(each.control.load("flight", "2")) for each in (first, second)]
            await third.notes.reached.wait()
            first.channel.close()
            second.channel.close()
            third.notes.go_on.set()
            await third.control.load("flight", "3")
            assert third.notes.serving >= {"1", "3"}
            for change in changes:
                change.cancel()
            await asyncio.wait(changes)

    run(work())


@pytest.mark.parametrize("steps", range(8))
def test_an_asker_that_is_cancelled_at_any_point_holds_nobody_up(steps: int) -> None:
    """Its client has gone: the next change has its turn, and all workers agree."""

    async def work() -> None:
        async with a_cluster() as cluster:
            first, second = [await cluster.worker(slot, "1") for slot in range(2)]
            change = asyncio.create_task(first.control.load("flight", "2"))
            for _ in range(steps):
                await turn()
            change.cancel()
            await second.control.load("flight", "3")
            assert first.notes.serving == second.notes.serving >= {"1", "3"}

    run(work())


def test_a_worker_that_comes_late_gets_what_the_others_have() -> None:
    """It gets the version that is new, again the one that was replaced, and loses the one that has gone."""

    async def work() -> None:
        async with a_cluster() as cluster:
            first = await cluster.worker(0, "1", "4")
            late = await cluster.worker(1, join=False)
            late.notes.serving = {"1", "4"}
            await first.control.load("flight", "2")
            await first.control.load("flight", "4")
            await first.control.unload("flight", "1")
            await cluster.operations.join(late.member, [("flight", "1"), ("flight", "4")])
            assert late.notes.serving == first.notes.serving == {"2", "4"}
            assert late.notes.loaded == ["2", "4"]
            await late.control.load("flight", "5")
            assert late.notes.serving == first.notes.serving == {"2", "4", "5"}

    run(work())


def test_a_worker_joins_between_changes_never_during_one() -> None:
    """It waits for the change that is under way, and then has it."""

    async def work() -> None:
        async with a_cluster() as cluster:
            first = await cluster.worker(0, "1")
            late = await cluster.worker(1, join=False)
            late.notes.serving = {"1"}
            first.notes.go_on.clear()
            change = asyncio.create_task(first.control.load("flight", "2"))
            await first.notes.reached.wait()
            joined = asyncio.create_task(cluster.operations.join(late.member, [("flight", "1")]))
            for _ in range(20):
                await turn()
            assert not joined.done()
            first.notes.go_on.set()
            await change
            await joined
            assert late.notes.serving == {"1", "2"}

    run(work())


def test_one_worker_leads_and_another_after_it() -> None:
    """The first to come watches the store; when it ends, the lowest of those that live."""

    async def work() -> None:
        async with a_cluster() as cluster:
            second = await cluster.worker(1, "1")
            first = await cluster.worker(0, "1")
            third = await cluster.worker(2, "1")
            assert [worker.control.leading for worker in (first, second, third)] == [False, True, False]
            cluster.operations.leave(second.member)
            await third.control.load("flight", "2")  # a message later than the one that makes it lead
            assert [worker.control.leading for worker in (first, third)] == [True, False]

    run(work())


def test_a_worker_that_does_not_answer_is_waited_for_no_longer_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The asker is told which worker it was, and nothing has changed, then or when the worker is done at last."""
    monkeypatch.setattr(operations_module, "PREPARE_S", 0.05)

    async def work() -> None:
        async with a_cluster() as cluster:
            first, second = [await cluster.worker(slot, "1") for slot in range(2)]
            second.notes.go_on.clear()
            with pytest.raises(NotReadyError, match=r"^worker 1: expected to load flight within 0.05 s"):
                await first.control.load("flight", "2")
            second.notes.go_on.set()
            await first.control.load("flight", "3")
            assert first.notes.serving == second.notes.serving == {"1", "3"}
            assert second.notes.prepared == set()

    run(work())
