"""Uvicorn, told to say where it listens and to end with status 0 when it is asked to end."""

import gc
import logging
import signal
import socket

import uvicorn
from starlette.applications import Starlette

from server.errors import SettingsError
from server.settings import Settings

logger = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """A server that says when it is ready."""

    def __init__(self, config: uvicorn.Config, url: str) -> None:
        super().__init__(config)
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            logger.info("ready at %s", self._url)


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


def run(app: Starlette, settings: Settings, listener: socket.socket) -> bool:
    """Serves until SIGINT or SIGTERM, then drains; returns whether the application had started."""
    config = uvicorn.Config(
        app,
        http="httptools",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=settings.drain_s,  # type: ignore[arg-type]  # goes to asyncio.wait_for as it is
    )
    # What is loaded stays loaded: the collector need not look at it again, nor look every 700 objects.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    # After its clean shutdown uvicorn raises the signal once more, which would end the process by it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ignore)
    host, port = listener.getsockname()[:2]
    server = _Server(config, f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    server.run(sockets=[listener])
    return server.started


def _ignore(number: int, frame: object) -> None:
    """Does nothing: the server has ended by the time this is called."""
