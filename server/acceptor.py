"""Taking connections from a socket, all that wait at once, and of one that processes share each its part."""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable

logger = logging.getLogger(__name__)

# Connections that may wait to be accepted; the kernel's own limit (somaxconn) holds as well.
BACKLOG = 4096
# How long a worker with fewer connections has to take the next one: enough for one that is idle to wake.
PATIENCE_S = 0.001
# As asyncio's own servers: with no descriptor left, trying again at once would only burn the processor.
EXHAUSTED_S = 1.0
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """Accepts what waits while no other worker has far fewer connections; stands in for asyncio.Server.

    uvloop's own server takes one connection a turn of the loop, so that of a burst at a busy server the
    last one waits as many turns as there are before it. And every worker is woken by every connection:
    left to themselves, whichever gets a processor first takes all, and then serves them alone.
    """

    def __init__(
        self,
        protocol: Callable[[], asyncio.Protocol],
        listener: socket.socket,
        tls: ssl.SSLContext | None,
        handshake_s: float,
        connections: Callable[[], int],
        fair: Callable[[int], bool],
    ) -> None:
        """Begins to accept.

        Args:
            protocol: makes one for each connection.
            listener: a bound socket.
            tls: None for connections in the clear.
            handshake_s: how long a client's TLS handshake may take.
            connections: says how many there are at present.
            fair: says whether a process with so many should take another one.
        """
        self.sockets = (listener,)
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._listener = listener
        self._tls = tls
        self._handshake_s = handshake_s if tls else None
        self._connections = connections
        self._fair = fair
        self._pause: asyncio.TimerHandle | None = None
        self._greetings: set[asyncio.Task[None]] = set()
        listener.setblocking(False)
        listener.listen(BACKLOG)
        fair(connections())  # the others learn that there is one more, before any of them takes all
        self._loop.add_reader(listener, self._offered)

    def close(self) -> None:
        """Accepts no more."""
        if self._pause is not None:
            self._pause.cancel()
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()

    async def wait_closed(self) -> None:
        """Returns once those that have been accepted are being served, or have gone."""
        await asyncio.gather(*self._greetings, return_exceptions=True)

    def _offered(self) -> None:
        while self._fair(self._connections() + len(self._greetings)):
            if not self._accept():
                return
        # Whoever has fewer is awake by now. When it is too busy to take it, this worker does, a little later.
        self._rest(PATIENCE_S)

    def _rest(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._offered)
        self._accept()

    def _accept(self) -> bool:
        """Takes a connection, if one waits and can be had; returns whether it did."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # another worker has taken it, or the client has gone
            return False
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            logger.error("cannot accept connections: %s", error.strerror)
            self._rest(EXHAUSTED_S)
            return False
        greeting = self._loop.create_task(self._greet(connection))
        self._greetings.add(greeting)
        greeting.add_done_callback(self._greetings.discard)
        return True

    async def _greet(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(
                self._protocol, connection, ssl=self._tls, ssl_handshake_timeout=self._handshake_s
            )
        except OSError as error:  # no TLS, or none in time: the connection is closed by now
            logger.debug("a connection has failed: %s", error)
