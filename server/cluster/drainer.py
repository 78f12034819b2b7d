"""The supervisor's side of the event log: what the workers append becomes the outbox's."""

import asyncio
import logging
import time

from server.cluster.memory import Memory
from server.errors import OutboxError
from server.eventlog.outbox import Outbox

logger = logging.getLogger(__name__)


class Drainer:
    """Moves lines from all rings into the outbox, and shows on the board how that goes.

    While lines come it looks every few milliseconds, as the outbox commits; with nothing left to do it
    sleeps until a worker wakes it.
    """

    def __init__(self, memory: Memory, slots: int, outbox: Outbox, interval_s: float) -> None:
        self._rings = [memory.consumer(slot) for slot in range(slots)]
        self._board = memory.board
        self._outbox = outbox
        self._interval_s = interval_s
        self._wake = asyncio.Event()
        self._show()

    def wake(self) -> None:
        """Ends the sleep: there are lines, or there may be."""
        self._wake.set()

    async def run_forever(self) -> None:
        """Drains for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self._drain() or self._outbox.backlog:
                self.wake()
                await asyncio.sleep(self._interval_s)
                continue
            self._show()
            for ring in self._rings:
                if not ring.doze():
                    self.wake()

    async def write_out(self, slot: int, position: int) -> None:
        """Returns once everything up to a position of a worker's ring is on disk, synced.

        Raises:
            OutboxError: the disk refuses, or has refused so much that the ring cannot be drained so far.
        """
        self.wake()  # else nobody would show on the board what becomes of these lines
        while self._rings[slot].tail < position:
            self._drain()
            if self._rings[slot].tail >= position:
                break
            if self._outbox.held_up:
                raise OutboxError("the event log has no room until Kafka has what is in it: try again later")
            if self._outbox.failure is not None:
                raise OutboxError("the event log has no room until it can be written again: try again later")
            await asyncio.sleep(self._interval_s)
        await self._outbox.committed()
        self._show()

    def orphaned(self, slot: int) -> None:
        """Takes what a worker that has ended left in its ring, as far as the outbox has room now."""
        self._drain()
        self._rings[slot].settle()
        self.wake()

    def finish(self, within_s: float) -> None:
        """Takes what is left and writes it, for so long at most; all workers have ended."""
        self._outbox.take_rest()
        until = time.monotonic() + within_s
        while not self._drain() and time.monotonic() < until:
            time.sleep(self._interval_s)
        lost = sum(ring.appended_events - ring.drained_events for ring in self._rings)
        if lost:
            logger.error("lost %d events: the disk refused them at shutdown", lost)

    def _drain(self) -> bool:
        """Moves what the outbox has room for; returns whether the rings are empty now."""
        empty = [ring.drain(self._accept) for ring in self._rings]
        self._show()
        return all(empty)

    def _accept(self, line: bytes) -> bool:
        if self._outbox.full and self._outbox.alive:
            return False
        self._outbox.append(line)  # a dead outbox takes nothing and counts it as dropped
        return True

    def _show(self) -> None:
        outbox = self._outbox
        self._board.show_log(
            alive=outbox.alive,
            committed_events=outbox.committed_events,
            dropped_events=outbox.dropped_events,
            failure=outbox.failure,
        )
