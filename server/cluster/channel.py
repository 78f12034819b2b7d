"""One end of the stream of messages between supervisor and worker."""

import asyncio
import socket
from collections.abc import Callable
from typing import Generic, TypeVar, cast

import msgspec

from server.cluster.messages import FromWorker, ToWorker, encode

M = TypeVar("M")


class Channel(asyncio.Protocol, Generic[M]):
    """Hands every message to a function, in order, in the event loop."""

    def __init__(
        self, decoder: msgspec.json.Decoder[M], receive: Callable[[M], None], closed: Callable[[], None]
    ) -> None:
        """receive: gets each message; closed: called once, when the other end has gone."""
        self._decoder = decoder
        self._receive = receive
        self._closed = closed
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    async def connect(self, end: socket.socket) -> None:
        """Begins to receive over one end of a socket pair."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=end)

    def send(self, message: ToWorker | FromWorker) -> None:
        """Sends a message, unless the other end has gone, which ``closed`` tells."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode(message))

    def close(self) -> None:
        """Ends the stream."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._receive(self._decoder.decode(line))

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._closed()
