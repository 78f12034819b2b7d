"""Uvicorn, told how to speak HTTP here, to say where it listens, and to end with status 0 when it is asked to end."""

import asyncio
import contextlib
import functools
import gc
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE

from server.acceptor import Acceptor
from server.errors import SettingsError
from server.fast_lane import FastLane
from server.http_protocol import HttpProtocol
from server.settings import Settings, TlsSettings

logger = logging.getLogger(__name__)

GREETING_S = 0.5
"""How long an end waits for connections that have been accepted and are not served yet: some are at a TLS handshake."""

TICK_S = 1.0
"""How often the date header is renewed."""


class _Server(uvicorn.Server):
    """A server that says when it is ready, and stops in two steps: first it says so, then it does."""

    def __init__(
        self,
        config: uvicorn.Config,
        settings: Settings,
        fast_lane: FastLane | None,
        stopping: Callable[[], None],
        ready: Callable[[], None],
        refused: Callable[[int], None],
        arrived: Callable[[], None],
        fair: Callable[[int], bool],
    ) -> None:
        super().__init__(config)
        self._arrived = arrived
        self._fair = fair
        self._fast_lane = fast_lane
        self._settings = settings
        self._stopping = stopping
        self._ready = ready
        self._refused = refused
        self._asked = asyncio.Event()
        self._asked_again = asyncio.Event()
        self._signals = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's for sockets that are bound, but a client has a limited time for its TLS handshake."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        loop = asyncio.get_running_loop()
        limits = self._settings.limits
        protocol = functools.partial(
            HttpProtocol,
            limits,
            self._refused,
            self._arrived,
            self._fast_lane,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            _loop=loop,
        )
        connections = self.server_state.connections
        self.servers = [
            Acceptor(protocol, listener, self.config.ssl, limits.header_s, lambda: len(connections), self._fair)  # type: ignore[misc]  # uvicorn closes them and nothing else
            for listener in sockets or ()
        ]
        self.started = True
        self._ready()

    async def main_loop(self) -> None:
        """Serves until a signal, and for `stop_delay_s` after it."""
        while not self._asked.is_set():
            await self.on_tick(0)
            await _wait(self._asked, TICK_S)
        self._stopping()
        await _wait(self._asked_again, self._settings.stop_delay_s)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but whoever was being greeted is a connection by then, and told of the end like all others."""
        for server in self.servers:
            server.close()
        greeted = [asyncio.ensure_future(server.wait_closed()) for server in self.servers]
        if greeted:
            await asyncio.wait(greeted, timeout=GREETING_S)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Notes a signal; the second one, of either kind, ends the waiting for requests."""
        self._signals += 1
        self.should_exit = self.force_exit = self._signals > 1
        event = self._asked_again if self.force_exit else self._asked
        asyncio.get_running_loop().call_soon_threadsafe(event.set)


async def _wait(event: asyncio.Event, at_most_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), at_most_s)


def listen(host: str, port: int) -> socket.socket:
    """Returns a bound socket, so that a taken port is one clear sentence before anything is loaded.

    Raises:
        SettingsError: the address cannot be had.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
    except (OSError, UnicodeError) as error:  # a name with an empty label fails in its encoding
        said = error.strerror if isinstance(error, OSError) else "a name that is none"
        raise SettingsError(f"host {host!r}: expected an address of this machine, got: {said}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"host {host} port {port}: expected an address to listen on, got: {error.strerror}"
        ) from error
    return listener


def check_tls(settings: Settings) -> None:
    """Returns when the certificate files can be used, or there are none.

    Raises:
        SettingsError: one cannot be read, is no PEM file of its kind, or the key is not the certificate's.
    """
    _tls_context(settings.tls)


def _tls_context(tls: TlsSettings) -> ssl.SSLContext | None:
    if tls.certificate is None or tls.key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    certificate = _readable("tls.certificate", tls.certificate)
    key = _readable("tls.key", tls.key)
    try:
        context.load_cert_chain(certificate, key, password="")  # with none it would ask on the terminal
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SettingsError(f"tls.key {key}: expected the key of {certificate}, got another's") from error
        raise SettingsError(
            f"tls: expected a PEM certificate in {certificate} and its plain key in {key}, got: {error.reason}"
        ) from error
    if tls.client_ca is not None:
        authorities = _readable("tls.client_ca", tls.client_ca)
        try:
            context.load_verify_locations(authorities)
        except ssl.SSLError as error:
            raise SettingsError(
                f"tls.client_ca {authorities}: expected PEM certificates, got: {error.reason}"
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _readable(name: str, path: Path) -> Path:
    try:
        path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{name} {path}: expected a file that can be read, got: {error.strerror}") from error
    return path


def _say_ready(url: str) -> None:
    logger.info("ready at %s", url)


def run(
    app: ASGIApp,
    settings: Settings,
    listener: socket.socket,
    *,
    fast_lane: FastLane | None = None,
    stopping: Callable[[], None] = lambda: None,
    announce: Callable[[str], None] = _say_ready,
    refused: Callable[[int], None] = lambda code: None,
    arrived: Callable[[], None] = lambda: None,
    fair: Callable[[int], bool] = lambda connections: True,
) -> bool:
    """Serves until SIGINT or SIGTERM, then drains; returns whether the application had started.

    Args:
        fast_lane: answers what it can instead of the application.
        stopping: called at the first signal; from then on the server still serves for `stop_delay_s`.
        announce: called with the server's URL once it accepts connections.
        refused: called with the status of every answer that HTTP itself gave, without the application.
        arrived: called whenever bytes have come on any connection.
        fair: says whether this process, with so many connections, should take another one.
    """
    context = _tls_context(settings.tls)
    config = uvicorn.Config(
        app,
        http=HttpProtocol,
        ws="none",
        interface="asgi3",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        ssl_context_factory=None if context is None else lambda config, default: context,
        timeout_graceful_shutdown=settings.drain_s,  # type: ignore[arg-type]  # goes to asyncio.wait_for as it is
    )
    # What is loaded stays loaded: the collector need not look at it again, nor look every 700 objects.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    # The server handles its signals while it runs; one that comes later must not cut the log's closing short.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ignore)
    host, port = listener.getsockname()[:2]
    url = f"{'https' if context else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
    server = _Server(config, settings, fast_lane, stopping, functools.partial(announce, url), refused, arrived, fair)
    server.run(sockets=[listener])
    return server.started


def _ignore(number: int, frame: object) -> None:
    """Does nothing: the server has ended by the time this is called."""
