"""Runs shadows after their answers: bounded, several in a run, only when no request waits, first to be shed.

The event loop is one thread, so whoever works in it keeps requests waiting. Shadows work in stretches of
some ten microseconds and look between them whether a request has come: the loop polls its sockets once a
turn, and a turn that brought nothing is theirs. Under a load that leaves no such turn they still get a
small share of the time, so that a challenger at saturation is seen through a sample, not through nothing.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable, Sequence
from typing import Generic, Protocol, TypeVar

logger = logging.getLogger(__name__)

BATCH_REQUESTS = 32
"""How many requests share a run at most."""

GATHER_S = 0.01
"""How long a shadow waits for others to share its run with: nobody waits for it, and a run costs more than a row."""

STRETCH_S = 30e-6
"""How long shadows work without looking for requests, beyond a single step that takes longer."""

BUSY_S = 0.01
"""How long shadows wait for a turn without a request. At half load requests never come so long without a pause."""

BUSY_SHARE = 0.05
"""What shadows then get, as a share of the time they have waited."""


class Work(Protocol):
    """What the queue knows of a request that waits: its size, and its lane, whose requests may share a run."""

    @property
    def size_bytes(self) -> int: ...

    @property
    def lane(self) -> Hashable: ...


W = TypeVar("W", bound=Work)
W_contra = TypeVar("W_contra", bound=Work, contravariant=True)


class Worker(Protocol[W_contra]):
    """Does the work, and tells of work not done."""

    def run(self, works: Sequence[W_contra]) -> Generator[None]:
        """Works on requests of one lane, a short step each time it is asked for the next; closed before its end it
        sheds what is left."""
        ...

    def shed(self, work: W_contra, reason: str) -> None:
        """Tells of work that will not be done."""
        ...


class ShadowRunner(Generic[W]):
    """A bounded queue of work and the one task that has it done."""

    def __init__(self, worker: Worker[W], requests: int, size_bytes: int, arrivals: Callable[[], int]) -> None:
        """requests, size_bytes: what may wait at most; arrivals: how often something has come from a client so far."""
        self._worker = worker
        self._most_requests = requests
        self._most_bytes = size_bytes
        self._arrivals = arrivals
        self._lanes: dict[Hashable, deque[tuple[W, int]]] = {}
        self._requests = 0
        self._due: float = 0  # how many requests are still to be taken before the next gathering
        self._bytes = 0
        self._steps: Generator[None] | None = None  # of the batch at work
        self._batch_requests = 0
        self._batch_bytes = 0
        self._closed = False
        self._wake = asyncio.Event()

    def offer(self, works: Sequence[W]) -> None:
        """Takes work to run later, or sheds it now when there is no room. Never raises: the answer is out."""
        for work in works:
            try:
                self._take_in(work)
            except Exception:
                logger.exception("a shadow could not be taken, and is in no event")

    async def run_forever(self) -> None:
        """Runs work as it comes, in the turns of the event loop that bring no request."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._requests < BATCH_REQUESTS:
                await asyncio.sleep(GATHER_S)
            self._due = self._requests
            while self._left:
                self._work_on(await self._turn())
            if self._lanes:  # come meanwhile: they gather anew
                self._wake.set()

    def drain(self, within_s: float = math.inf) -> None:
        """Runs what is left, after the last answer, and sheds what is left of that after so many seconds."""
        self._closed = True
        self._due = math.inf
        end = time.perf_counter() + within_s
        while self._left and time.perf_counter() < end:
            self._work_on(STRETCH_S)
        if self._steps is not None:
            self._steps.close()
            self._end_batch()
        for lane in self._lanes.values():
            for work, _ in lane:
                self._worker.shed(work, "shed: the server is stopping")
        self._lanes.clear()

    @property
    def _left(self) -> bool:
        """Whether there is work to do before the next gathering."""
        return self._steps is not None or (self._due > 0 and bool(self._lanes))

    def _take_in(self, work: W) -> None:
        size_bytes = work.size_bytes
        if self._closed:
            self._worker.shed(work, "shed: the server is stopping")
        elif self._requests >= self._most_requests or self._bytes + size_bytes > self._most_bytes:
            self._worker.shed(work, "shed: the shadow queue is full")
        else:
            lane = self._lanes.get(work.lane)
            if lane is None:
                lane = self._lanes[work.lane] = deque()
            lane.append((work, size_bytes))
            self._requests += 1
            self._bytes += size_bytes
            self._wake.set()

    async def _turn(self) -> float:
        """Returns how long shadows may work, in a turn of the event loop that brought no request, or after BUSY_S."""
        began = time.perf_counter()
        while True:
            seen = self._arrivals()
            await asyncio.sleep(0)
            if self._arrivals() == seen:
                return STRETCH_S
            waited_s = time.perf_counter() - began
            if waited_s > BUSY_S:
                return BUSY_SHARE * waited_s

    def _work_on(self, stretch_s: float) -> None:
        """Does steps of the batch at work and of those after it: one, and more while there is time."""
        end = time.perf_counter() + stretch_s
        while True:
            if self._steps is None:
                self._begin_batch()
            assert self._steps is not None
            try:
                next(self._steps)
            except StopIteration:
                self._end_batch()
            except BaseException:
                self._end_batch()
                raise
            if time.perf_counter() >= end or not self._left:
                return

    def _begin_batch(self) -> None:
        """Takes the next works of the lane whose turn it is; the lane then stands behind the others."""
        key = next(iter(self._lanes))
        lane = self._lanes.pop(key)
        batch = [lane.popleft() for _ in range(min(BATCH_REQUESTS, len(lane)))]
        if lane:
            self._lanes[key] = lane
        self._due -= len(batch)
        self._batch_requests = len(batch)
        self._batch_bytes = sum(size_bytes for _, size_bytes in batch)
        self._steps = self._worker.run([work for work, _ in batch])

    def _end_batch(self) -> None:
        self._steps = None
        self._requests -= self._batch_requests
        self._bytes -= self._batch_bytes
