"""Runs shadows after their answers: bounded, a slice of time between requests, first to be shed."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

W = TypeVar("W")

# Long enough to keep pace with a busy server, short beside the time a crowd of requests waits anyway.
SLICE_S = 0.002


class ShadowRunner(Generic[W]):
    """A bounded queue of work and the one task that runs it."""

    def __init__(self, run: Callable[[W], None], shed: Callable[[W], None], capacity: int) -> None:
        """run: does one piece of work; shed: told of work there was no room for; capacity: pieces at most."""
        self._run = run
        self._shed = shed
        self._capacity = capacity
        self._queue: deque[W] = deque()
        self._wake = asyncio.Event()

    def offer(self, work: W) -> None:
        """Takes work to run later, or sheds it now when the queue is full."""
        if len(self._queue) >= self._capacity:
            self._shed(work)
            return
        self._queue.append(work)
        self._wake.set()

    async def run_forever(self) -> None:
        """Runs work as it comes; after each slice of time the event loop serves whoever waits."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                end = time.monotonic() + SLICE_S
                while self._queue and time.monotonic() < end:
                    self._run(self._queue.popleft())
                await asyncio.sleep(0)

    def drain(self) -> None:
        """Runs what is left, after the last answer."""
        while self._queue:
            self._run(self._queue.popleft())
