"""The composition root: builds every part of the monitor, serves it, and takes it down in order."""

import errno
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import Self

import uvicorn
from starlette.applications import Starlette

from monitor.consumer import Consumer, fold_limits
from monitor.endpoints import health, models, pages
from monitor.endpoints.answers import HANDLERS
from monitor.errors import ServingError
from monitor.exporter import Exporter
from monitor.findings import Findings
from monitor.history import History
from monitor.settings import MonitorSettings
from monitor.sources.bundles import BundleFolder
from monitor.sources.outbox import OutboxLog
from monitor.sources.source import Source
from monitor.state_store import StateStore

_BACKLOG = 128
_GRACE_S = 1


class Monitor:
    """The parts, built and not yet running. A context manager: leaving it commits and closes everything.

    Args:
        settings: what it was told.
        url: where it answers.

    Raises:
        StateError: the state file cannot be used.
        SourceError: the log cannot be read, or is not the one the state belongs to.
    """

    def __init__(self, settings: MonitorSettings, url: str) -> None:
        with ExitStack() as stack:
            store = StateStore(settings.state_file, fold_limits(settings).pane_us, settings.max_dead_letters)
            stack.callback(store.close)
            self.store = store
            self.bundles = BundleFolder(settings.models)
            self.bundles.load_all()
            self.history = History(store, settings.pane.in_memory)
            self.consumer = Consumer(
                settings,
                self.bundles,
                store,
                self.history,
                partial(_open_log, settings),
                settings.kafka.advertised_url or url,
            )
            self.findings = Findings(self.history, self.bundles.profiles, settings)
            self.exporter = Exporter(self.consumer, self.findings)
            self.consumer.prepare()
            stack.callback(self.consumer.stop)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        """Starts reading the log."""
        self.consumer.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the batch at hand, commits, closes."""
        self._stack.close()

    def app(self) -> Starlette:
        """Returns the ASGI app. Its lifespan is the monitor's."""

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            with self:
                yield

        return Starlette(
            routes=[
                *models.routes(self.findings, self.consumer),
                *health.routes(self.consumer, self.bundles),
                *pages.routes(self.exporter),
            ],
            exception_handlers=HANDLERS,
            lifespan=lifespan,
        )


class _Server(uvicorn.Server):
    """Uvicorn's server, which says when it is ready."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to listen, then announces it."""
        await super().startup(sockets)
        if self.started:
            self._announce()


def run(settings: MonitorSettings, announce: Callable[[str], None]) -> None:
    """Serves the monitor until SIGINT or SIGTERM.

    Args:
        settings: what it was told.
        announce: called with the URL once requests are answered.

    Raises:
        ServingError: the address is taken or not this machine's.
        StateError, SourceError: as ``Monitor`` does.
    """
    with _listen(settings.host, settings.port) as listening:
        host, port = listening.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        monitor = Monitor(settings, url)
        config = uvicorn.Config(
            monitor.app(),
            log_config=None,
            access_log=False,
            lifespan="on",
            ws="none",
            timeout_graceful_shutdown=_GRACE_S,
        )
        # Uvicorn raises the signal it was stopped by once more when it is done; that must not end
        # the process before everything is committed, nor show a traceback.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        _Server(config, lambda: announce(url)).run(sockets=[listening])


def _open_log(settings: MonitorSettings, wake: Callable[[], None], followed: Mapping[int, int]) -> Source:
    if settings.kafka.bootstrap_servers is None:
        return OutboxLog(settings.outbox)
    # Local, because Kafka's client is an extra.
    from monitor.sources.kafka import KafkaLog

    return KafkaLog(settings.kafka, settings.batch_events, wake, followed)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ServingError(f"cannot listen on {host}: {error.strerror or error}") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise ServingError(
                f"port {port} of {host} is in use: stop what listens there, or give another --port"
            ) from error
        raise ServingError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listening
