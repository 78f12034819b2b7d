"""The event log as a worker sees it: a ring in shared memory, drained by the supervisor's outbox."""

import asyncio
from collections.abc import Callable, Sequence

from server.cluster.memory import Memory
from server.cluster.messages import FromWorker, Wake, WriteOut, Written
from server.errors import OutboxError, TiltyardError
from server.eventlog.erasure import Found

GONE = "the event log cannot be written: its writer has died"


class RemoteOutbox:
    """An EventLog whose writer is another process. Append from one event loop."""

    def __init__(self, memory: Memory, slot: int, queue_bytes: int) -> None:
        """memory: shared with the writer; slot: whose ring this process alone appends to."""
        self._board = memory.board
        self._rings = memory.rings
        self._ring = memory.producer(slot)
        # Requests pass the look at `full` before they append: what they have in hand still finds room.
        self._reserve_bytes = queue_bytes // 8
        self._send: Callable[[FromWorker], None] | None = None
        self._gone = False
        self._commits = 0
        self._next: list[asyncio.Future[None]] = []
        self._asked: dict[int, list[asyncio.Future[None]]] = {}

    def connect(self, send: Callable[[FromWorker], None]) -> None:
        """Begins to wake the writer; what was appended before is told now."""
        self._send = send
        send(Wake())

    def lost(self) -> None:
        """Ends all waiting: there is no writer any more."""
        self._gone = True
        for waiters in (*self._asked.values(), self._next):
            _settle(waiters, OutboxError(GONE))
        self._asked.clear()
        self._next = []

    def written(self, message: Written) -> None:
        """Tells those who waited for a commit how it went."""
        _settle(self._asked.pop(message.commit, []), message.fault.error() if message.fault else None)

    @property
    def failure(self) -> str | None:
        """Why the log cannot be written at present."""
        return self._board.failure

    @property
    def committed_events(self) -> int:
        """How many events of the whole server are in the log."""
        return self._board.committed_events

    @property
    def dropped_events(self) -> int:
        """How many events of the whole server there was no room for, or the disk refused to the end."""
        return self._board.dropped_events + sum(ring.dropped_events for ring in self._rings)

    @property
    def sampled_out_events(self) -> int:
        """How many events of the whole server were left out of the log, which is a sample."""
        return sum(ring.left_out_events for ring in self._rings)

    @property
    def backlog(self) -> int:
        """How many events of the whole server wait for their commit."""
        settled = self._board.committed_events + self._board.dropped_events  # first: both only grow
        return sum(ring.appended_events for ring in self._rings) - settled

    @property
    def full(self) -> bool:
        """Whether there is no room for another event of usual size, or nobody will ever take from the ring."""
        return self._ring.free_bytes < self._reserve_bytes or not self.alive

    @property
    def alive(self) -> bool:
        """Whether events still reach the disk."""
        return self._board.alive and not self._gone

    def append(self, line: bytes) -> bool:
        """Queues one event, returns whether there was room; without, it is counted as dropped."""
        accepted = self._ring.append(line)
        if self._send is not None and self._ring.rouse():
            self._send(Wake())
        return accepted

    def leave_out(self, events: int = 1) -> None:
        """Counts events that the sample leaves out."""
        self._ring.leave_out(events)

    async def committed(self) -> None:
        """Returns once everything appended so far is on disk, synced.

        Raises:
            OutboxError: the commit failed, and the lines are tried again; or the writer has gone.
        """
        if self._gone or self._send is None:
            raise OutboxError(GONE)
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        if not self._next:  # one message for all who ask in this tick of the loop
            loop.call_soon(self._write_out)
        self._next.append(waiter)
        await waiter

    async def forget(self, found: Found) -> None:
        """Returns once events are forgotten and their bytes are gone from the log's files.

        Raises:
            OutboxError: the disk refuses, or the writer has gone.
        """
        if self._gone or self._send is None:
            raise OutboxError(GONE)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._commits += 1
        self._asked[self._commits] = [waiter]
        self._send(WriteOut(commit=self._commits, position=self._ring.head, forget=found))
        await waiter

    async def append_durably(self, lines: Sequence[bytes]) -> None:
        """Appends all lines and returns once they are on disk, synced.

        Raises:
            OutboxError: there is no room for all of them (none is kept), or the commit failed.
        """
        if not self.alive:
            raise OutboxError(GONE)
        if not self._ring.append_all(lines):
            raise OutboxError(f"the event log has no room for {len(lines)} events: try again later")
        await self.committed()

    def close(self) -> None:
        """Ends; the writer takes what is in the ring, whether or not this process lives on."""
        self.lost()

    def _write_out(self) -> None:
        waiters, self._next = self._next, []
        if self._gone or self._send is None:
            _settle(waiters, OutboxError(GONE))
            return
        self._commits += 1
        self._asked[self._commits] = waiters
        self._send(WriteOut(commit=self._commits, position=self._ring.head))


def _settle(waiters: list[asyncio.Future[None]], error: TiltyardError | None) -> None:
    for waiter in waiters:
        if waiter.done():  # cancelled: whoever waited has gone
            continue
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)
