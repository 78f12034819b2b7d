"""The shipper's process, as the server that starts it sees it: kept alive, and asked to end with it."""

import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec

from server.settings import Settings

logger = logging.getLogger(__name__)

SHIPPER = (sys.executable, "-m", "server.eventlog.shipper")

# A shipper that lived so long had no fault of its start: its successor comes at once.
STEADY_S = 10.0
FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 1.0
GRACE_S = 3.0


@contextmanager
def shipping(settings: Settings) -> Iterator[None]:
    """Keeps the log shipped to Kafka meanwhile, where the settings name brokers.

    At the end, when the log should be closed already, what is left in it is shipped for ``flush_s`` at most; the rest
    is the next server's.

    Raises:
        SettingsError: a file of the credentials cannot be used.
    """
    if settings.kafka.bootstrap_servers is None:
        yield
        return
    # Optional extra `kafka`.
    from server.kafka_credentials import client_options

    client_options(settings.kafka)  # what cannot work is said before anything is served
    keeper = _Keeper(settings)
    try:
        yield
    finally:
        keeper.stop(settings.flush_s)


class _Keeper:
    """A thread that starts the process, waits for its end and starts it again."""

    def __init__(self, settings: Settings) -> None:
        # Two messages of server/eventlog/shipper.py, which is not imported: it needs the extra, and memory.
        self._start = _line(
            type="start",
            outbox=str(settings.outbox.absolute()),
            kafka=settings.kafka.model_dump(mode="json"),
            log_level=settings.log_level,
            log_format=settings.log_format,
        )
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._end: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name="shipper-keeper", daemon=True)
        self._thread.start()

    def stop(self, within_s: float) -> None:
        """Returns once the process has ended; it may ship what is left for so long."""
        with self._lock:
            self._stopping.set()
            if self._end is not None:
                with suppress(OSError):  # it has died just now
                    self._end.sendall(_line(type="stop", within_s=within_s))
        self._thread.join(within_s + GRACE_S)
        if self._thread.is_alive() and self._process is not None:
            logger.warning("the shipper did not end in time; the next server ships on")
            self._process.kill()
            self._thread.join()

    def _keep(self) -> None:
        delay_s = FIRST_DELAY_S
        while not self._stopping.is_set():
            began_s = time.monotonic()
            try:
                how = f"ended with {self._lived()}"
            except OSError as error:
                how = f"cannot be started: {error.strerror}"
            if self._stopping.is_set():
                return
            if time.monotonic() - began_s >= STEADY_S:
                delay_s = FIRST_DELAY_S
            logger.error("the shipper %s; another takes its place in %g s", how, delay_s)
            self._stopping.wait(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    def _lived(self) -> int:
        """Returns the exit status of a process that is started now."""
        own, its = socket.socketpair()
        with own:
            with its:
                # In a group of its own, a Ctrl-C at the terminal reaches only the server, which knows what to do. Not
                # in a session: Linux shares a core out between sessions first, and niceness counts only within one.
                process = subprocess.Popen(
                    [*SHIPPER, str(its.fileno())],
                    pass_fds=[its.fileno()],
                    stdin=subprocess.DEVNULL,
                    process_group=0,
                )
            self._process = process
            with suppress(OSError):
                own.sendall(self._start)
            with self._lock:
                if self._stopping.is_set():  # asked for while the process was being made: nothing waits for it
                    process.kill()
                self._end = own
            status = process.wait()
            with self._lock:
                self._end = None
            return status


def _line(**message: object) -> bytes:
    return msgspec.json.encode(message) + b"\n"
