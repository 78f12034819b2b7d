"""Micro-batches without a timer: requests that come in one turn of the event loop share a run of their graph.

A lone request never waits for company, a crowd is served together. A lane whose runs take long has them in a thread
of its own, where the next batch gathers while one runs; the others go on in the event loop, where a run of some
microseconds costs less than a thread's hop. Lanes take turns, so that a crowd at one keeps no other waiting for more
than one run.

Knows graphs only as a callable, and callers only by what they are checked with just before their run.
"""

import asyncio
import logging
import time
from asyncio import Future
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from server.errors import OverloadedError
from server.execution.pace import Pace
from server.execution.stacking import cut, stack
from server.protocol.datatypes import Arrays

logger = logging.getLogger(__name__)

INLINE_S = 0.001
"""A run that will take longer leaves the event loop: all other requests would wait for it."""

Run = Callable[[Arrays], Arrays]
# Raises when nobody waits for the answer any more.
Check = Callable[[], None]


class Turn(Future[Arrays]):
    """A request's place in a run; awaited, it gives the request's outputs by name or raises why there are none.

    ``began_ns`` is the `time.perf_counter_ns` at which its run began. ``resume`` is called once it is done, at once
    and not in a later turn of the loop, where somebody who is no task waits for it.
    """

    __slots__ = ("arrays", "began_ns", "check", "resume", "rows")

    def __init__(self, arrays: Arrays, rows: int, check: Check, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.arrays = arrays
        self.rows = rows
        self.check = check
        self.began_ns = 0
        self.resume: Callable[[], None] | None = None


class Outcomes(NamedTuple):
    """Every request's outputs, or why it has none, in the batch's order.

    ``runs`` are those that did not fail, each with its rows and seconds.
    """

    found: list[Arrays | Exception]
    runs: list[tuple[int, float]]


class Lane:
    """Where requests of one version wait for their run.

    ``together`` says whether they may share one; ``ran`` is told rows and seconds of every run.
    """

    def __init__(self, run: Run, *, together: bool) -> None:
        """run: gives outputs for inputs, in any thread; together: whether requests may share a run."""
        self._run = run
        self.together = together
        self._thread: ThreadPoolExecutor | None = None
        self.pace = Pace()
        self.waiting: deque[Turn] = deque()
        self.listed = False
        self.busy = False
        self.ran: Callable[[int, float], None] | None = None

    def take(self, most_rows: int) -> list[Turn]:
        """Takes the requests off that make the next run: one, and more while their rows are few enough.

        Whoever does not wait any more is told so, and takes nobody's place.
        """
        batch: list[Turn] = []
        room = most_rows
        waiting = self.waiting
        while waiting:
            turn = waiting[0]
            if turn.done():  # cancelled
                waiting.popleft()
                continue
            if batch and not (self.together and turn.rows <= room):
                break
            waiting.popleft()
            try:
                turn.check()
            except Exception as error:  # noqa: BLE001  # raised again where the request is awaited
                _settle(turn, error)
                continue
            batch.append(turn)
            room -= turn.rows
        return batch

    def forget_cancelled(self) -> bool:
        """Gives up the places of those who have left; returns whether there were any."""
        before = len(self.waiting)
        self.waiting = deque(turn for turn in self.waiting if not turn.done())
        return len(self.waiting) < before

    def outcomes(self, batch: Sequence[Turn]) -> "Outcomes":
        """Runs the graph for all of the batch, in whichever thread this is called.

        A run that fails is repeated with each request alone: what one of them holds is nobody else's fault.
        """
        began_ns = time.perf_counter_ns()
        try:
            found: list[Arrays | Exception]
            if len(batch) == 1:
                found = [self._run(batch[0].arrays)]
            else:
                found = list(cut(self._run(stack([turn.arrays for turn in batch])), [turn.rows for turn in batch]))
        except Exception as error:  # noqa: BLE001  # as above
            if len(batch) > 1:
                alone = [self.outcomes([turn]) for turn in batch]
                return Outcomes([each.found[0] for each in alone], [run for each in alone for run in each.runs])
            return Outcomes([error], [])
        seconds = (time.perf_counter_ns() - began_ns) / 1e9
        rows = 0
        for turn in batch:
            turn.began_ns = began_ns
            rows += turn.rows
        return Outcomes(found, [(rows, seconds)])

    def settle(self, batch: Sequence[Turn], outcomes: "Outcomes") -> None:
        """Tells every request of a batch what came of it."""
        for rows, seconds in outcomes.runs:
            self.pace.ran(rows, seconds)
            if self.ran is not None:
                self.ran(rows, seconds)
        for turn, outcome in zip(batch, outcomes.found, strict=True):
            _settle(turn, outcome)

    def thread(self) -> ThreadPoolExecutor:
        """Returns the one thread that this lane's long runs have."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "lane")
        return self._thread

    def drop_thread(self) -> None:
        """Forgets a thread that could not start, with the run that it was given."""
        self._thread = None


class Batcher:
    """Runs what waits in lanes, from the event loop that it is used in."""

    def __init__(self, most_rows: int, most_waiting: int) -> None:
        """most_rows: of a run that several requests share; most_waiting: how many requests may wait in a lane."""
        self._most_rows = most_rows
        self._most_waiting = most_waiting
        self._due: list[Lane] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, lane: Lane, arrays: Arrays, rows: int, check: Check) -> Turn:
        """Returns a request's place in a run to come.

        Args:
            lane: of the version.
            arrays: the inputs by name, each of so many rows where requests share runs.
            rows: how many.
            check: raises when nobody waits for the answer any more.

        Raises:
            OverloadedError: as many requests wait for this version as may.
        """
        if len(lane.waiting) >= self._most_waiting and not lane.forget_cancelled():
            raise OverloadedError(
                f"expected at most {self._most_waiting} requests to wait for a version, got more: try again later"
            )
        loop = self._loop
        if loop is None or loop.is_closed():
            loop = self._loop = asyncio.get_running_loop()  # which asks the system for the process's id
        turn = Turn(arrays, rows, check, loop)
        lane.waiting.append(turn)
        if not lane.listed:
            self._list(lane, loop)
        return turn

    def _list(self, lane: Lane, loop: asyncio.AbstractEventLoop) -> None:
        lane.listed = True
        if not self._due:
            loop.call_soon(self._run_due, loop)
        self._due.append(lane)

    def _run_due(self, loop: asyncio.AbstractEventLoop) -> None:
        """Gives every lane in which somebody waits one run."""
        due, self._due = self._due, []
        for lane in due:
            lane.listed = False
            if lane.busy:  # what has come meanwhile gathers
                continue
            batch = lane.take(self._most_rows)
            if not batch:
                continue
            long = lane.pace.expected_s(sum([turn.rows for turn in batch])) > INLINE_S
            if not (long and self._run_apart(lane, batch, loop)):
                lane.settle(batch, lane.outcomes(batch))
                if lane.waiting and not lane.listed:
                    self._list(lane, loop)

    def _run_apart(self, lane: Lane, batch: list[Turn], loop: asyncio.AbstractEventLoop) -> bool:
        """Has a batch run in the lane's thread; returns False when the system has none for it."""
        try:
            done = loop.run_in_executor(lane.thread(), lane.outcomes, batch)
        except RuntimeError as error:
            logger.warning("a long run holds up the event loop, for want of a thread: %s", error)
            lane.drop_thread()
            return False
        lane.busy = True

        def back(done: "Future[Outcomes]") -> None:
            lane.busy = False
            if lane.waiting and not lane.listed:
                self._list(lane, loop)
            lane.settle(batch, done.result())

        done.add_done_callback(back)
        return True


def _settle(turn: Turn, outcome: Arrays | Exception) -> None:
    if turn.done():  # cancelled while it ran
        return
    if isinstance(outcome, Exception):
        turn.set_exception(outcome)
    else:
        turn.set_result(outcome)
    if turn.resume is not None:
        try:
            turn.resume()
        except Exception:  # its batch-mates are still to be answered
            logger.exception("an answer could not be given")
