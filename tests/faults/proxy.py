"""The network between clients and a broker, which can be cut: a proxy on the loopback address."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_PIECE_BYTES = 64 * 1024
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: a close is a reset


class Proxy:
    """Passes bytes on until it is told otherwise. ``port`` is where clients connect."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.StreamWriter] = set()
        self._refusing = False
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()
        self._started.wait()

    def cut(self) -> None:
        """Resets every connection, and each one that comes, until ``mend``."""
        self._do(self._cut)

    def stall(self) -> None:
        """Holds every byte back, both ways, until ``mend``."""
        self._do(self._passing.clear)

    def mend(self) -> None:
        """Lets connections be, and bytes pass."""
        self._do(self._mend)

    def close(self) -> None:
        """Ends all of it."""
        self._do(self._ending.set)
        self._thread.join()

    def _do(self, act: object) -> None:
        done = threading.Event()

        def run() -> None:
            act()  # type: ignore[operator]
            done.set()

        self._loop.call_soon_threadsafe(run)
        done.wait()

    def _cut(self) -> None:
        self._refusing = True
        for writer in list(self._open):
            _reset(writer)

    def _mend(self) -> None:
        self._refusing = False
        self._passing.set()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._passing, self._ending = asyncio.Event(), asyncio.Event()
        self._passing.set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self._started.set()
        await self._ending.wait()
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            _reset(writer)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:  # the broker is away
            _reset(writer)
            return
        self._open |= {writer, far_writer}
        try:
            ways = [
                asyncio.create_task(self._relay(reader, far_writer)),
                asyncio.create_task(self._relay(far_reader, writer)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        finally:
            self._open -= {writer, far_writer}
            _reset(writer)
            _reset(far_writer)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(_PIECE_BYTES):
                await self._passing.wait()
                writer.write(piece)
                await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.close()


@contextmanager
def running_proxy(port: int, target: int) -> Iterator[Proxy]:
    """Gives a proxy from one port of this machine to another; it ends with the context."""
    proxy = Proxy(port, target)
    try:
        yield proxy
    finally:
        proxy.close()
