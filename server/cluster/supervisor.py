"""The process that owns socket and log and keeps the workers alive: with several workers, what the user starts."""

import asyncio
import logging
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from server.cluster.drainer import Drainer
from server.cluster.member import Member
from server.cluster.memory import Memory, create_memory
from server.cluster.messages import (
    Ask,
    Drained,
    Failed,
    Fault,
    FromWorker,
    Loaded,
    Look,
    Planned,
    Prepared,
    Ready,
    Start,
    Wake,
    WriteOut,
    Written,
)
from server.cluster.operations import Operations
from server.errors import OutboxError, TiltyardError
from server.eventlog.outbox import Outbox
from server.eventlog.shipper_process import shipping
from server.settings import Settings

logger = logging.getLogger(__name__)

# A worker that lived so long had no fault of its start: its successor comes at once.
STEADY_S = 10.0
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 10.0
# What a worker needs beyond its own time limits to end.
GRACE_S = 5.0
# What the disk gets after a second signal, or after flush_s.
LAST_S = 0.5


def supervise(settings: Settings, listener: socket.socket) -> int:
    """Serves with `settings.workers` processes until a signal, and returns the exit status.

    Args:
        settings: of the server.
        listener: a bound socket, which all workers accept from.

    Raises:
        TiltyardError: the log cannot be opened, or a worker cannot start.
    """
    outbox = Outbox(settings.outbox, settings.events, shipped=settings.kafka.bootstrap_servers is not None)
    with shipping(settings), tempfile.TemporaryDirectory(prefix="tiltyard-metrics-") as metrics_folder:
        asyncio.run(_Supervisor(settings, listener, outbox, metrics_folder).run())
    return 0


class _Supervisor:
    """All that lives between the start and the end of the workers."""

    def __init__(self, settings: Settings, listener: socket.socket, outbox: Outbox, metrics_folder: str) -> None:
        self._settings = settings
        self._listener = listener
        self._outbox = outbox
        self._metrics_folder = metrics_folder
        self._descriptor = create_memory(settings.workers, settings.events.queue_bytes)
        memory = Memory(self._descriptor, settings.workers, settings.events.queue_bytes)
        self._board = memory.board
        self._drainer = Drainer(memory, settings.workers, outbox, settings.events.commit_interval_ms / 1000)
        self._operations = Operations(settings.drain_s)
        self._members: dict[int, Member] = {}
        self._jobs: set[asyncio.Task[None]] = set()
        self._announced = False
        self._failure: TiltyardError | None = None
        self._signals = 0
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()

    async def run(self) -> None:
        """Returns once a signal has ended everything, or raises what kept a worker from its first start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled)
        self._show_workers()
        for slot in range(self._settings.workers):
            self._board.vacate(slot)
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._spawn(self._drainer.run_forever())
                async with asyncio.TaskGroup() as keepers:
                    for slot in range(self._settings.workers):
                        keepers.create_task(self._keep(slot))
                for job in self._jobs:
                    job.cancel()
        finally:
            await self._flush()
        if self._failure is not None:
            raise self._failure

    async def _keep(self, slot: int) -> None:
        """Keeps a worker in its place until the end."""
        delay_s = 0.0
        while not self._stopping.is_set():
            began = time.monotonic()
            member = self._members[slot] = Member(slot, self._operations.revision, self._receive)
            try:
                how = await self._lived(member)
            finally:
                member.signal(signal.SIGKILL)
            self._operations.leave(member)
            self._drainer.orphaned(slot)
            self._board.vacate(slot)
            ready, member.ready = member.ready, False
            self._show_workers()
            if self._stopping.is_set():
                return
            sentence = member.fault.text if member.fault else f"ended with {how}"
            if not ready and not self._announced:
                self._fail(member.fault or Fault.of(TiltyardError(f"worker {slot} {sentence} before it was ready")))
                return
            if time.monotonic() - began >= STEADY_S:
                delay_s = 0.0
            logger.error("worker %d: %s; another takes its place in %g s", slot, sentence, delay_s)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay_s)
            delay_s = min(max(2 * delay_s, FIRST_DELAY_S), LONGEST_DELAY_S)

    async def _lived(self, member: Member) -> str:
        """Returns how a worker ended that is started now."""
        try:
            await member.start(self._listener, self._descriptor)
        except OSError as error:
            return f"no process: {error.strerror}"
        member.send(
            Start(
                slot=member.slot,
                settings=self._settings.model_dump(mode="json"),
                metrics_folder=self._metrics_folder,
                serving=self._operations.serving(),
            )
        )
        if self._stopping.is_set():  # the signal came while the process was being made
            member.signal(signal.SIGTERM)
        return await member.ended()

    def _receive(self, member: Member, message: FromWorker) -> None:
        match message:
            case Wake():
                self._drainer.wake()
            case WriteOut():
                self._spawn(self._write_out(member, message))
            case Look():
                for other in self._members.values():
                    if other is not member:
                        other.send(message)
            case Loaded():
                self._spawn(self._operations.join(member, message.known))
            case Ready():
                member.ready = True
                self._show_workers()
                self._announce(message.url)
            case Failed():
                member.fault = message.fault
            case Ask():
                self._spawn(self._operations.carry_out(member, message.ask))
            case Planned():
                member.replied(message, message.ask)
            case Prepared() | Drained():
                member.replied(message, message.change)

    async def _write_out(self, member: Member, message: WriteOut) -> None:
        fault = None
        try:
            await self._drainer.write_out(member.slot, message.position)
            if message.forget is not None:
                await self._outbox.forget(message.forget)
        except OutboxError as error:
            fault = Fault.of(error)
        member.send(Written(commit=message.commit, fault=fault))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        job = self._tasks.create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    def _announce(self, url: str) -> None:
        ready = sum(member.ready for member in self._members.values())
        if not self._announced and ready == self._settings.workers:
            self._announced = True
            logger.info("ready at %s", url)

    def _show_workers(self) -> None:
        self._board.show_workers(sum(member.ready for member in self._members.values()), self._settings.workers)

    def _fail(self, fault: Fault) -> None:
        """Ends everything because of the first worker that could not start."""
        self._failure = self._failure or fault.error()
        self._stopping.set()
        self._kill()

    def _signalled(self) -> None:
        """The first signal asks the workers to end, the second ends them."""
        self._signals += 1
        if self._signals > 1:
            self._hurry.set()
            self._kill()
            return
        self._stopping.set()
        for member in self._members.values():
            member.signal(signal.SIGTERM)
        at_most_s = self._settings.stop_delay_s + self._settings.drain_s + self._settings.flush_s + GRACE_S
        asyncio.get_running_loop().call_later(at_most_s, self._kill)

    def _kill(self) -> None:
        for member in self._members.values():
            member.signal(signal.SIGKILL)

    async def _flush(self) -> None:
        """Writes what the workers left and closes the log, as far as that can be done in time."""
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def flush() -> None:
            self._drainer.finish(self._settings.flush_s)
            self._outbox.close()
            loop.call_soon_threadsafe(done.set)

        # Of no executor: a disk that hangs must not keep the process.
        threading.Thread(target=flush, name="flush", daemon=True).start()
        hurry = asyncio.create_task(self._hurry.wait())
        finished = asyncio.create_task(done.wait())
        await asyncio.wait({hurry, finished}, timeout=self._settings.flush_s, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({finished}, timeout=LAST_S)
        if not done.is_set():
            logger.error("the event log could not be closed in time: its last events are lost")
