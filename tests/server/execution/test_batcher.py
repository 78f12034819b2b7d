"""Requests that share runs: who runs with whom, in which order and where, and what each is told."""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from server.errors import DeadlineError, OverloadedError
from server.execution.batcher import INLINE_S, Batcher, Lane, Turn
from server.protocol.datatypes import Arrays
from tests.server.turns import DEADLINE_S, turn, until


@dataclass
class Graph:
    """Gives each row's negative; fails on rows of 666. Remembers what it ran, and in which thread.

    While ``gate`` is not set, runs wait for it.
    """

    name: str = "graph"
    runs: list[tuple[str, list[int]]] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def __call__(self, arrays: Arrays) -> Arrays:
        self.runs.append((self.name, arrays["x"].tolist()))
        self.threads.append(threading.current_thread())
        assert self.gate.wait(DEADLINE_S)
        if 666 in arrays["x"]:
            raise ValueError("the graph fails")
        return {"y": -arrays["x"]}


def lane_of(graph: Graph, *, together: bool = True, slow: bool = False) -> Lane:
    """Returns a lane; one that is slow is known to take longer than the event loop may be held."""
    lane = Lane(graph, together=together)
    if slow:
        for rows in (1, 2, 4):
            lane.pace.ran(rows, 1000 * INLINE_S)
    return lane


def fine() -> None:
    """The check of whoever still waits."""


def refuse() -> None:
    raise DeadlineError("too late")


def ask(batcher: Batcher, lane: Lane, *rows: int, check: Callable[[], None] = fine) -> Turn:
    return batcher.submit(lane, {"x": np.array(rows, np.int64)}, len(rows), check)


def run(test: Coroutine[Any, Any, None]) -> None:
    """Runs a test's coroutine, not for ever."""
    asyncio.run(asyncio.wait_for(test, DEADLINE_S))


async def told(*turns: Turn) -> list[Any]:
    """Returns what each is told: the values of its rows, or the class of the error."""
    outcomes = await asyncio.gather(*turns, return_exceptions=True)
    return [outcome["y"].tolist() if isinstance(outcome, dict) else type(outcome) for outcome in outcomes]


def test_requests_of_one_turn_share_a_run() -> None:
    """In the order they came, each told its own rows; one that comes later has a run of its own."""
    graph = Graph()
    batcher, lane = Batcher(100, 100), lane_of(graph)

    async def test() -> None:
        assert [[-1], [-2, -3], [], [-4]] == await told(
            ask(batcher, lane, 1), ask(batcher, lane, 2, 3), ask(batcher, lane), ask(batcher, lane, 4)
        )
        assert [[-5]] == await told(ask(batcher, lane, 5))

    run(test())
    assert [("graph", [1, 2, 3, 4]), ("graph", [5])] == graph.runs


def test_a_lone_request_runs_in_the_next_turn_of_the_loop() -> None:
    """It waits for no company, and the submitter is not held up by the run."""
    graph = Graph()
    batcher, lane = Batcher(100, 100), lane_of(graph)

    async def test() -> None:
        lone = ask(batcher, lane, 1)
        assert not graph.runs
        await turn()
        assert lone.done()

    run(test())


def test_requests_of_a_graph_that_mixes_rows_run_alone() -> None:
    """One after the other, in the order they came."""
    graph = Graph()
    batcher, lane = Batcher(100, 100), lane_of(graph, together=False)

    async def test() -> None:
        assert [[-1], [-2]] == await told(ask(batcher, lane, 1), ask(batcher, lane, 2))

    run(test())
    assert [("graph", [1]), ("graph", [2])] == graph.runs


def test_only_the_request_that_makes_a_run_fail_is_told_so() -> None:
    """The others' rows are run again, each request's alone."""
    graph = Graph()
    batcher, lane = Batcher(100, 100), lane_of(graph)

    async def test() -> None:
        assert [[-1], ValueError, [-3]] == await told(*(ask(batcher, lane, row) for row in (1, 666, 3)))

    run(test())
    assert [[1, 666, 3], [1], [666], [3]] == [rows for _, rows in graph.runs]


@pytest.mark.parametrize("slow", [False, True])
def test_every_good_run_is_told_of_and_no_failed_one(slow: bool) -> None:
    """With its rows and seconds, from the event loop's thread: a shared run once, repeated ones each."""
    heard: list[tuple[int, threading.Thread]] = []
    batcher, lane = Batcher(100, 100), lane_of(Graph(), slow=slow)

    def ran(rows: int, seconds: float) -> None:
        assert 0 < seconds < DEADLINE_S
        heard.append((rows, threading.current_thread()))

    lane.ran = ran

    async def test() -> None:
        await told(ask(batcher, lane, 1, 2), ask(batcher, lane, 3))
        await told(ask(batcher, lane, 666))
        await told(ask(batcher, lane, 4), ask(batcher, lane, 666), ask(batcher, lane, 5, 6))

    run(test())
    here = threading.current_thread()
    assert [(3, here), (1, here), (2, here)] == heard


def test_whoever_no_longer_waits_takes_nobodys_place() -> None:
    """Neither one whose task was cancelled nor one that is refused just before its run is among the rows."""
    graph = Graph()
    batcher, lane = Batcher(2, 100), lane_of(graph)

    async def test() -> None:
        turns = [
            ask(batcher, lane, 1),
            ask(batcher, lane, 2),
            ask(batcher, lane, 3, check=refuse),
            ask(batcher, lane, 4),
        ]
        turns[1].cancel()
        assert [[-1], asyncio.CancelledError, DeadlineError, [-4]] == await told(*turns)

    run(test())
    assert [("graph", [1, 4])] == graph.runs


def test_where_nobody_waits_any_more_nothing_runs() -> None:
    """All have left: the other lanes that are due go on, and this one with whoever comes next."""
    graph = Graph()
    batcher, lane, other = Batcher(2, 100), lane_of(graph), lane_of(Graph())

    async def test() -> None:
        turns = [ask(batcher, lane, 1), ask(batcher, lane, 2, check=refuse), ask(batcher, other, 4)]
        turns[0].cancel()
        assert [asyncio.CancelledError, DeadlineError, [-4]] == await told(*turns)
        assert [[-3]] == await told(ask(batcher, lane, 3))

    run(test())
    assert [("graph", [3])] == graph.runs


def test_a_request_cancelled_while_it_runs_leaves_its_mates_their_answers() -> None:
    """Nobody hangs, and nobody is told another's rows."""
    graph = Graph()
    batcher, lane = Batcher(100, 100), lane_of(graph, slow=True)
    graph.gate.clear()

    async def test() -> None:
        turns = [ask(batcher, lane, row) for row in (1, 2, 3)]
        await until(lambda: graph.runs)
        turns[1].cancel()
        graph.gate.set()
        assert [[-1], asyncio.CancelledError, [-3]] == await told(*turns)

    run(test())
    assert [("graph", [1, 2, 3])] == graph.runs


def test_shared_runs_have_no_more_rows_than_may_be() -> None:
    """Nobody overtakes: who does not fit begins the next run, and one that is larger than all runs is alone."""
    graph = Graph()
    batcher, lane = Batcher(3, 100), lane_of(graph)

    async def test() -> None:
        sizes = [[1, 1], [2, 2], [3], [4, 4, 4, 4, 4], [5]]
        assert [[-row for row in rows] for rows in sizes] == await told(*(ask(batcher, lane, *rows) for rows in sizes))

    run(test())
    assert [[1, 1], [2, 2, 3], [4, 4, 4, 4, 4], [5]] == [rows for _, rows in graph.runs]


def test_lanes_take_turns() -> None:
    """One request of b waits for one run of a's crowd, also when it comes after all of them."""
    runs: list[tuple[str, list[int]]] = []
    batcher = Batcher(2, 100)
    a, b = lane_of(Graph("a", runs)), lane_of(Graph("b", runs))

    async def test() -> None:
        crowd = [ask(batcher, a, row) for row in range(6)]
        one = ask(batcher, b, 7)
        await told(*crowd, one)

    run(test())
    assert [("a", [0, 1]), ("b", [7]), ("a", [2, 3]), ("a", [4, 5])] == runs


def test_the_loop_goes_round_between_the_runs_of_a_crowd() -> None:
    """What else is due, such as another connection's bytes, waits for one run and not for the whole crowd."""
    graph = Graph()
    batcher, lane = Batcher(1, 100), lane_of(graph)
    seen: list[int] = []

    async def test() -> None:
        loop = asyncio.get_running_loop()

        def look() -> None:
            seen.append(len(graph.runs))
            if len(graph.runs) < 3:
                loop.call_soon(look)

        crowd = [ask(batcher, lane, row) for row in (1, 2, 3)]
        loop.call_soon(look)
        await told(*crowd)
        assert [1, 2, 3] == seen

    run(test())


def test_more_than_may_wait_are_refused() -> None:
    """In the lane that is full, and until its next run has taken some off; the others still get their answers."""
    batcher, full, other = Batcher(100, 2), lane_of(Graph()), lane_of(Graph())

    async def test() -> None:
        waiting = [ask(batcher, full, 1), ask(batcher, full, 2)]
        with pytest.raises(OverloadedError, match="at most 2 requests to wait for a version"):
            ask(batcher, full, 3)
        waiting.append(ask(batcher, other, 4))
        assert [[-1], [-2], [-4]] == await told(*waiting)
        assert [[-5]] == await told(ask(batcher, full, 5))

    run(test())


def test_who_has_left_takes_no_place() -> None:
    """Neither among those who wait nor, however many its rows, in a run."""
    graph = Graph()
    batcher, lane = Batcher(3, 3), lane_of(graph)

    async def test() -> None:
        turns = [ask(batcher, lane, 1), ask(batcher, lane, *range(100)), ask(batcher, lane, 2)]
        turns[1].cancel()
        turns.append(ask(batcher, lane, 3))
        with pytest.raises(OverloadedError):
            ask(batcher, lane, 4)
        assert [[-1], [-2], [-3]] == await told(turns[0], turns[2], turns[3])

    run(test())
    assert [[1, 2, 3]] == [rows for _, rows in graph.runs]


def test_one_that_has_left_ends_no_batch() -> None:
    """Its rows would not have fitted, those of the next do."""
    graph = Graph()
    batcher, lane = Batcher(3, 10), lane_of(graph)

    async def test() -> None:
        turns = [ask(batcher, lane, 1), ask(batcher, lane, *range(100)), ask(batcher, lane, 2)]
        turns[1].cancel()
        assert [[-1], [-2]] == await told(turns[0], turns[2])

    run(test())
    assert [[1, 2]] == [rows for _, rows in graph.runs]


def test_long_runs_leave_the_event_loop_to_the_others() -> None:
    """They have one thread of their lane's, and what comes meanwhile gathers to one run after it."""
    slow_graph, quick_graph = Graph(), Graph()
    batcher, slow, quick = Batcher(100, 100), lane_of(slow_graph, slow=True), lane_of(quick_graph)
    slow_graph.gate.clear()

    async def test() -> None:
        first = ask(batcher, slow, 1)
        await until(lambda: slow_graph.runs)
        gathering = [ask(batcher, slow, 2)]
        assert [[-7]] == await told(ask(batcher, quick, 7))
        gathering.append(ask(batcher, slow, 3))
        assert [[-8]] == await told(ask(batcher, quick, 8))
        assert [1] == [len(slow_graph.runs)]
        assert not first.done()

        slow_graph.gate.set()
        assert [[-1], [-2], [-3]] == await told(first, *gathering)

    run(test())
    assert [[1], [2, 3]] == [rows for _, rows in slow_graph.runs]
    assert [False, False] == [thread is threading.current_thread() for thread in slow_graph.threads]
    assert 1 == len(set(slow_graph.threads))
    assert {threading.current_thread()} == set(quick_graph.threads)


def test_a_lane_whose_runs_prove_long_leaves_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first, of which nothing is known, holds it up; and it comes back once they prove short."""
    graph = Graph()
    batcher, lane = Batcher(100, 100), lane_of(graph)
    takes_ns = [int(2e9 * INLINE_S)]
    readings = itertools.count(1)
    monkeypatch.setattr(time, "perf_counter_ns", lambda: next(readings) * takes_ns[0])

    async def test() -> None:
        await told(ask(batcher, lane, 1))
        await told(ask(batcher, lane, 2))
        takes_ns[0] = 0
        for _ in range(10):
            await told(ask(batcher, lane, 3))

    run(test())
    here = [thread is threading.current_thread() for thread in graph.threads]
    assert [True, False] == here[:2]
    assert here[-1]


def test_a_failure_in_a_lanes_thread_is_told_to_the_guilty_one() -> None:
    """As in the event loop; the lane goes on."""
    batcher, lane = Batcher(100, 100), lane_of(Graph(), slow=True)

    async def test() -> None:
        assert [[-1], ValueError] == await told(ask(batcher, lane, 1), ask(batcher, lane, 666))
        assert [[-2]] == await told(ask(batcher, lane, 2))

    run(test())


def test_where_no_thread_can_be_had_the_run_takes_place_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system refuses one for a while: requests are answered, of this lane and of those due after it."""
    graph, after = Graph(), Graph()
    batcher, lane, other = Batcher(100, 100), lane_of(graph, slow=True), lane_of(after)

    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def test() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refused)
            assert [[-1], [-2]] == await told(ask(batcher, lane, 1), ask(batcher, other, 2))
        assert [[-3]] == await told(ask(batcher, lane, 3))

    run(test())
    assert [[1], [3]] == [rows for _, rows in graph.runs]
    assert [True, False] == [thread is threading.current_thread() for thread in graph.threads]


def test_who_is_no_task_resumes_at_once_and_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """In the run's own turn of the loop, in order; one that fails is logged, its mates are answered."""
    batcher, lane = Batcher(100, 100), lane_of(Graph())
    resumed: list[Any] = []

    def fail() -> None:
        raise ValueError("secret")

    async def test() -> None:
        turns = [ask(batcher, lane, row) for row in (1, 2, 3, 666)]
        turns[0].resume = lambda: resumed.append(turns[0].result()["y"].tolist())
        turns[1].resume = fail
        turns[2].resume = lambda: resumed.append(turns[2].result()["y"].tolist())
        turns[3].resume = lambda: resumed.append(type(turns[3].exception()))
        await turn()
        assert [[-1], [-3], ValueError] == resumed

    run(test())
    assert ["an answer could not be given"] == [record.getMessage() for record in caplog.records]


def test_whoever_is_refused_before_the_run_resumes_too() -> None:
    """It has its answer before the run begins, which may be long."""
    graph = Graph()
    batcher, lane = Batcher(100, 100), lane_of(graph)
    runs_then: list[int] = []

    async def test() -> None:
        late, good = ask(batcher, lane, 1, check=refuse), ask(batcher, lane, 2)
        late.resume = lambda: runs_then.append(len(graph.runs))
        assert [DeadlineError, [-2]] == await told(late, good)

    run(test())
    assert [0] == runs_then


def test_what_resumes_may_ask_again() -> None:
    """As a chain does: its second request waits for a run after the lanes that are due now."""
    runs: list[tuple[str, list[int]]] = []
    batcher = Batcher(100, 100)
    a, b = lane_of(Graph("a", runs)), lane_of(Graph("b", runs))
    again: list[Turn] = []

    async def test() -> None:
        first, other = ask(batcher, a, 1), ask(batcher, b, 2)
        first.resume = lambda: again.append(ask(batcher, a, 3))
        await told(first, other)
        assert [[-3]] == await told(*again)

    run(test())
    assert [("a", [1]), ("b", [2]), ("a", [3])] == runs


@pytest.mark.parametrize("row", [1, 666])
def test_a_turn_tells_when_its_run_began(row: int) -> None:
    """All of a run the same; zero where there was none that was good."""
    batcher, lane = Batcher(100, 100), lane_of(Graph())

    async def test() -> None:
        turns = [ask(batcher, lane, row), ask(batcher, lane, row)]
        assert [0, 0] == [one.began_ns for one in turns]
        await told(*turns)
        began = {one.began_ns for one in turns}
        assert began == {0} if row == 666 else (len(began) == 1 and began != {0})

    run(test())
