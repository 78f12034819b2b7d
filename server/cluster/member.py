"""A worker as the supervisor sees it: a process, a channel to it, and the replies it owes."""

import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from server.cluster.channel import Channel
from server.cluster.messages import Fault, FromWorker, ToWorker, from_worker

WORKER = (sys.executable, "-m", "server.cluster.worker")

R = TypeVar("R")


class Member:
    """One worker process, from its start to its end."""

    def __init__(self, slot: int, revision: int, receive: Callable[["Member", FromWorker], None]) -> None:
        """slot: its place; revision: of the repository when it was told what to load."""
        self.slot = slot
        self.revision = revision
        self.ready = False
        self.fault: Fault | None = None
        self._channel = Channel(from_worker, lambda message: receive(self, message), self._lost)
        self._gone = False
        self._owed: dict[Hashable, asyncio.Future[Any]] = {}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, listener: socket.socket, memory: int) -> None:
        """Starts the process, which has the listening socket, the shared memory and its end of the channel."""
        own, its = socket.socketpair()
        with its:
            descriptors = (its.fileno(), memory, listener.fileno())
            # In a group of its own, a Ctrl-C at the terminal reaches only the supervisor, which knows what to do. Not
            # in a session: Linux shares a core out between sessions first, and niceness counts only within one.
            self._process = await asyncio.create_subprocess_exec(
                *WORKER,
                *map(str, descriptors),
                pass_fds=descriptors,
                stdin=asyncio.subprocess.DEVNULL,
                process_group=0,
            )
        await self.connect(own)

    async def connect(self, own: socket.socket) -> None:
        """Begins to hear the worker over the supervisor's end of its channel."""
        await self._channel.connect(own)

    async def ended(self) -> str:
        """Returns how the process ended, once it has."""
        assert self._process is not None
        status = await self._process.wait()
        self.close()
        return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"

    def close(self) -> None:
        """Ends the channel, and all waiting for replies."""
        self._channel.close()
        self._lost()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal, unless the process has ended."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    def send(self, message: ToWorker) -> None:
        """Sends a message, unless the process has ended."""
        self._channel.send(message)

    async def request(self, message: ToWorker, kind: type[R], key: str | int, within_s: float) -> R | None:
        """Sends a message and returns the reply of that kind and key, None when the worker ends before.

        Raises:
            TimeoutError: it does neither in time.
        """
        if self._gone:
            return None
        owed = self._owed[kind, key] = asyncio.get_running_loop().create_future()
        self.send(message)
        try:
            async with asyncio.timeout(within_s):
                answer: R | None = await owed
        finally:
            del self._owed[kind, key]
        return answer

    def replied(self, message: FromWorker, key: str | int) -> None:
        """Hands an answer to whoever waits for it, if anyone still does."""
        owed = self._owed.get((type(message), key))
        if owed is not None and not owed.done():
            owed.set_result(message)

    def _lost(self) -> None:
        self._gone = True
        for owed in self._owed.values():
            if not owed.done():
                owed.set_result(None)
