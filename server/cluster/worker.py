"""A process that answers: ``python -m server.cluster.worker CONTROL MEMORY LISTENER``, three descriptors.

Only the supervisor starts it. What it needs to know arrives over the control channel.
"""

import asyncio
import functools
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client import values
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Receive, Scope, Send

from server.app import build_application, build_service
from server.cluster.board import Board
from server.cluster.channel import Channel
from server.cluster.control import ClusterControl
from server.cluster.memory import Memory
from server.cluster.messages import (
    Abandon,
    Commit,
    Failed,
    Fault,
    FromWorker,
    Lead,
    Loaded,
    Look,
    Outcome,
    Plan,
    Ready,
    Serve,
    Start,
    ToWorker,
    Turn,
    Written,
    encode,
    to_worker,
)
from server.cluster.remote_outbox import RemoteOutbox
from server.errors import TiltyardError
from server.http_server import run
from server.logs import configure_logging
from server.settings import Settings


def main(control: socket.socket, memory: int, listener: socket.socket) -> int:
    """Serves until the supervisor says or goes, and returns the exit status."""
    _die_with_supervisor(control)
    # Under `stty tostop` a terminal stops who writes to it from the background, as a worker does in its own group.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    start = _first_message(control)
    settings = Settings(**start.settings)
    configure_logging(settings.log_level, settings.log_format)
    _share_metrics(Path(start.metrics_folder), start.slot)
    shared = Memory(memory, settings.workers, settings.events.queue_bytes)
    log = RemoteOutbox(shared, start.slot, settings.events.queue_bytes)
    link = _Link(control, log)
    try:
        service = build_service(
            settings,
            log,
            control=lambda swapper: link.controlled(ClusterControl(swapper, link.send)),
            only=start.serving,
            shared_metrics=Path(start.metrics_folder),
            announce=lambda: link.send(Look()),
        )
        link.looking(service.routes.look)
        service.metrics.registry.register(_WorkersCollector(shared.board))
        application = build_application(service)
        link.known = service.swapper.loaded()
        started = run(
            _Linked(application.asgi, link),
            settings,
            listener,
            fast_lane=application.fast_lane,
            stopping=service.stop,
            announce=lambda url: link.send(Ready(url=url)),
            refused=service.metrics.refused_unread,
            arrived=service.admission.arrived,
            fair=functools.partial(shared.board.fair, start.slot),
        )
    except TiltyardError as error:
        control.setblocking(True)
        control.sendall(encode(Failed(fault=Fault.of(error))))
        return 1
    return 0 if started else 1


class _Link:
    """The channel to the supervisor, and who its messages are for."""

    def __init__(self, control: socket.socket, log: RemoteOutbox) -> None:
        self.known: list[tuple[str, str]] = []
        self._end = control
        self._log = log
        self._control: ClusterControl | None = None
        self._look: Callable[[], None] = lambda: None
        self._channel = Channel(to_worker, self._receive, log.lost)
        self._admitted = asyncio.Event()

    def looking(self, look: Callable[[], None]) -> None:
        """Calls `look` from now on when another worker has changed a route."""
        self._look = look

    def send(self, message: FromWorker) -> None:
        """Sends a message to the supervisor."""
        self._channel.send(message)

    def controlled(self, control: ClusterControl) -> ClusterControl:
        """Returns the control, which from now on hears of changes of the repository."""
        self._control = control
        return control

    async def join(self) -> None:
        """Returns once this worker has what the others have and may serve."""
        await self._channel.connect(self._end)
        self._log.connect(self.send)
        self.send(Loaded(known=self.known))
        await self._admitted.wait()

    def _receive(self, message: ToWorker) -> None:
        match message:
            case Written():
                self._log.written(message)
            case Serve():
                self._admitted.set()
            case Look():
                self._look()
            case Turn() | Outcome() | Plan() | Commit() | Abandon() | Lead():
                assert self._control is not None  # the service is built before the channel is connected
                self._control.receive(message)


class _Linked:
    """The application, which joins the other workers before it starts."""

    def __init__(self, app: ASGIApp, link: _Link) -> None:
        self._app = app
        self._link = link

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._link.join()
        await self._app(scope, receive, send)


class _WorkersCollector(Collector):
    """How many workers there are, as the supervisor has it on the board."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterator[Metric]:
        ready, expected = self._board.workers
        yield GaugeMetricFamily("tiltyard_workers", "Workers that accept requests", ready)
        yield GaugeMetricFamily("tiltyard_workers_expected", "Workers that should", expected)


def _die_with_supervisor(control: socket.socket) -> None:
    """Ends this process at once when the supervisor goes, whatever it is doing."""

    def wait() -> None:
        poller = select.poll()
        poller.register(control, 0)  # that the other end is closed is told unasked
        poller.poll()
        os._exit(1)

    threading.Thread(target=wait, name="supervisor-watch", daemon=True).start()


def _first_message(control: socket.socket) -> Start:
    """Returns what the supervisor says first; it says nothing more until it is answered."""
    with control.makefile("rb") as lines:
        message = to_worker.decode(lines.readline())
    assert isinstance(message, Start)
    return message


def _share_metrics(folder: Path, slot: int) -> None:
    """Makes all metrics that are made from now on parts of the folder's files.

    The files belong to the place, not to the process: a successor goes on counting where its
    predecessor was killed, and there are never more files than places.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)  # the library takes it from nowhere else
    values.ValueClass = values.MultiProcessValue(lambda: f"slot{slot}")  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    control, memory, listener = map(int, sys.argv[1:])
    sys.exit(main(socket.socket(fileno=control), memory, socket.socket(fileno=listener)))
