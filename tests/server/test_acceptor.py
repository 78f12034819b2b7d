"""Connections to one socket, shared out among those who accept from it."""

import asyncio
import contextlib
import functools
import mmap
import resource
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server import acceptor as acceptor_module
from server.acceptor import Acceptor
from server.cluster.board import BOARD_BYTES, Board
from tests.server.certificates import Authority
from tests.server.turns import until


class Connections(asyncio.Protocol):
    """The connections of one worker; each is told the worker's slot."""

    def __init__(self, slot: int, present: set[asyncio.Transport]) -> None:
        self._slot = slot
        self._present = present
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._present.add(transport)
        transport.write(b"%d" % self._slot)

    def connection_lost(self, error: Exception | None) -> None:
        assert self._transport is not None
        self._present.discard(self._transport)


class Workers:
    """Workers of one process that accept from one socket, each by a descriptor of its own."""

    def __init__(self, slots: int, tls: ssl.SSLContext | None = None, handshake_s: float = 5.0) -> None:
        self.board = Board(mmap.mmap(-1, BOARD_BYTES))
        self.board.show_workers(slots, slots)
        for slot in range(slots):
            self.board.vacate(slot)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.present: list[set[asyncio.Transport]] = [set() for _ in range(slots)]
        self._tls = tls
        self._handshake_s = handshake_s
        self.acceptors: list[Acceptor] = []

    def accept(self, slot: int) -> Acceptor:
        """Lets a worker accept."""
        present = self.present[slot]
        acceptor = Acceptor(
            lambda: Connections(slot, present),
            self.listener.dup(),
            self._tls,
            self._handshake_s,
            lambda: len(present),
            functools.partial(self.board.fair, slot),
        )
        self.acceptors.append(acceptor)
        return acceptor


@contextlib.asynccontextmanager
async def the_workers(
    slots: int, tls: ssl.SSLContext | None = None, handshake_s: float = 5.0
) -> AsyncIterator[Workers]:
    workers = Workers(slots, tls, handshake_s)
    async with asyncio.timeout(20):
        yield workers
        for acceptor in workers.acceptors:
            acceptor.close()
            await acceptor.wait_closed()
        for transport in set().union(*workers.present):
            transport.abort()
        workers.listener.close()
        await until(lambda: not any(workers.present))


async def connect(workers: Workers) -> tuple[int, asyncio.StreamWriter]:
    """Returns the slot that took a new connection, and the connection."""
    reader, writer = await asyncio.open_connection(*workers.address)
    return int(await reader.readexactly(1)), writer


async def close(connections: list[tuple[int, asyncio.StreamWriter]]) -> None:
    for _, writer in connections:
        writer.close()
    for _, writer in connections:
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def shares(connections: list[tuple[int, asyncio.StreamWriter]], slots: int) -> list[int]:
    return [sum(taken == slot for taken, _ in connections) for slot in range(slots)]


@pytest.mark.parametrize("slots", [2, 3])
def test_a_burst_is_shared_out_evenly(slots: int) -> None:
    """60 connections at once, and again when they have gone: nobody has far fewer than another."""

    async def run() -> None:
        async with the_workers(slots) as workers:
            for slot in range(slots):
                workers.accept(slot)
            for _ in range(3):
                connections = await asyncio.gather(*(connect(workers) for _ in range(60)))
                assert min(shares(connections, slots)) >= 60 / slots - 6
                await close(connections)

    asyncio.run(run())


def test_all_that_wait_are_accepted_in_one_turn() -> None:
    """A busy loop's turns are long: the last of a burst must not wait for one per client before it."""

    async def run() -> int:
        async with the_workers(1) as workers:
            workers.listener.listen(100)
            clients = [socket.create_connection(workers.address) for _ in range(50)]
            acceptor = workers.accept(0)
            await until(lambda: bool(acceptor._greetings))
            accepted = len(acceptor._greetings)
            await acceptor.wait_closed()
            for client in clients:
                client.close()
            return accepted

    assert asyncio.run(run()) == 50


def test_a_worker_that_comes_later_catches_up() -> None:
    """Its predecessor's connections went to the other: the next ones are its own until it has as many."""

    async def run() -> None:
        async with the_workers(2) as workers:
            workers.accept(0)
            connections = [await connect(workers) for _ in range(20)]
            workers.accept(1)
            connections += [await connect(workers) for _ in range(20)]
            assert abs(shares(connections, 2)[0] - 20) <= 3
            await close(connections)

    asyncio.run(run())


def test_whoever_has_fewer_but_does_not_come_is_not_waited_for() -> None:
    """A worker that is busy with a long run takes none; the other takes them all, a little later."""

    async def run() -> None:
        async with the_workers(2) as workers:
            workers.board.fair(1, 0)  # it is there, and has none
            workers.accept(0)
            connections = [await connect(workers) for _ in range(10)]
            assert shares(connections, 2) == [10, 0]
            await close(connections)

    asyncio.run(run())


def test_a_place_without_a_worker_is_not_waited_for_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two has been killed: the other takes what comes at once."""
    monkeypatch.setattr(acceptor_module, "PATIENCE_S", 60.0)

    async def run() -> None:
        async with the_workers(2) as workers:
            workers.board.fair(1, 0)
            workers.board.vacate(1)
            workers.accept(0)
            connections = [await connect(workers) for _ in range(10)]
            assert shares(connections, 2) == [10, 0]
            await close(connections)

    asyncio.run(run())


def test_a_worker_that_has_closed_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither at once nor after the pause that it was in; the others take them."""
    monkeypatch.setattr(acceptor_module, "PATIENCE_S", 0.05)
    faults: list[dict[str, object]] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: faults.append(context))
        async with the_workers(2) as workers:
            first = workers.accept(0)
            connections = [await connect(workers) for _ in range(3)]
            workers.board.fair(1, 0)  # so the first one pauses at the next
            waiting = asyncio.create_task(connect(workers))
            await until(lambda: first._pause is not None)
            first.close()
            paused = asyncio.Event()
            loop.call_later(0.06, paused.set)
            workers.accept(1)
            connections += [await waiting, *[await connect(workers) for _ in range(10)]]
            await paused.wait()
            assert shares(connections[3:], 2) == [0, 11]
            await close(connections)

    asyncio.run(run())

    assert faults == []


def test_without_descriptors_it_rests_and_goes_on_when_there_are_some(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client waits in the kernel's queue meanwhile; the log says why."""
    monkeypatch.setattr(acceptor_module, "EXHAUSTED_S", 0.01)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    faults: list[dict[str, object]] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
        async with the_workers(1) as workers:
            workers.accept(0)
            reader, writer = await asyncio.open_connection(*workers.address)
            await reader.readexactly(1)
            client = socket.socket()
            client.setblocking(False)
            held = client.dup()
            resource.setrlimit(resource.RLIMIT_NOFILE, (held.fileno(), hard))
            try:
                await asyncio.get_running_loop().sock_connect(client, workers.address)
                await until(lambda: "cannot accept connections" in caplog.text)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert await asyncio.get_running_loop().sock_recv(client, 1) == b"0"
            client.close()
            held.close()
            await close([(0, writer)])

    asyncio.run(run())

    assert faults == []


def server_context(authority: Authority) -> ssl.SSLContext:
    signed = authority.sign("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signed.certificate, signed.key)
    return context


def test_a_client_that_speaks_no_tls_harms_nobody(tmp_path: Path) -> None:
    """Its connection is closed, nobody complains, and the next one, which does, is served."""
    authority = Authority(tmp_path)
    context = server_context(authority)
    faults: list[dict[str, object]] = []

    async def run() -> bytes:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
        async with the_workers(1, context) as workers:
            workers.accept(0)
            plain, plain_writer = await asyncio.open_connection(*workers.address)
            plain_writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert await plain.read() == b""
            await close([(0, plain_writer)])
            trusting = ssl.create_default_context(cafile=authority.certificate)
            reader, writer = await asyncio.open_connection(*workers.address, ssl=trusting, server_hostname="127.0.0.1")
            said = await reader.readexactly(1)
            await close([(0, writer)])
            return said

    assert asyncio.run(run()) == b"0"
    assert faults == []


def test_a_client_that_is_silent_is_waited_for_as_long_as_a_handshake_may_take(tmp_path: Path) -> None:
    """Also by whoever closes the server meanwhile: until then its connection may yet become one that is served."""
    context = server_context(Authority(tmp_path))

    async def run() -> tuple[int, int, bytes]:
        async with the_workers(1, context, handshake_s=0.1) as workers:
            acceptor = workers.accept(0)
            silent, silent_writer = await asyncio.open_connection(*workers.address)
            await until(lambda: bool(acceptor._greetings))
            acceptor.close()
            waiting = len(acceptor._greetings)
            await acceptor.wait_closed()
            left = len(acceptor._greetings)
            said = await silent.read()
            await close([(0, silent_writer)])
            return waiting, left, said

    assert asyncio.run(run()) == (1, 0, b"")
