"""A real Kafka broker on free ports of this machine, to be stopped, killed and started again."""

import base64
import shutil
import signal
import socket
import subprocess
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kafka.classpath import BrokerUnavailableError, broker_classpath

START_S = 180.0
STOP_S = 30.0

# A short life on a busy machine: start fast rather than run fast.
_JAVA = ("java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_STARTED = "Kafka Server started"


@dataclass(frozen=True)
class Node:
    """One broker of a cluster, which is a controller of it too: its number and its two ports."""

    number: int
    port: int
    controller_port: int


@dataclass(frozen=True)
class Cluster:
    """What the brokers of one cluster agree upon; ``settings`` are laid over those that every cluster has."""

    nodes: Sequence[Node]
    identity: str = field(default_factory=lambda: _kafka_uuid(uuid.uuid4()))
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def bootstrap_servers(self) -> str:
        """Where its brokers answer, as clients take it."""
        return ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def properties(self, node: Node, data: Path) -> str:
        """Returns the file that one of its brokers is started with."""
        copies = str(len(self.nodes))
        voters = ",".join(f"{each.number}@127.0.0.1:{each.controller_port}" for each in self.nodes)
        listeners = f"PLAINTEXT://127.0.0.1:{node.port},CONTROLLER://127.0.0.1:{node.controller_port}"
        values = {
            "process.roles": "broker,controller",
            "node.id": str(node.number),
            "listeners": listeners,
            "advertised.listeners": listeners,
            "controller.quorum.voters": voters,
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(data),
            "num.partitions": "3",
            "auto.create.topics.enable": "false",
            "default.replication.factor": copies,
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            # A killed broker that comes back waits for the end of its former registration.
            "broker.session.timeout.ms": "2000",
            "broker.heartbeat.interval.ms": "500",
            # Tests wait for the cleaner; it looks every 15 s otherwise.
            "log.cleaner.backoff.ms": "200",
            **dict(self.settings),
        }
        return "".join(f"{name}={value}\n" for name, value in values.items())


class Broker:
    """One broker and its process. Leaving its context ends the process; data and ports stay the same until then."""

    def __init__(self, cluster: Cluster, node: Node, folder: Path) -> None:
        """folder: takes the broker's data, properties and log; it must be there.

        Raises:
            BrokerUnavailableError: Java, Maven or the jars are missing here.
        """
        if shutil.which("java") is None:
            raise BrokerUnavailableError("java: expected a Java runtime of version 17 or newer, got none")
        self.cluster = cluster
        self.node = node
        self.log = folder / "broker.log"
        self._classpath = broker_classpath()
        self._data = folder / "data"
        self._properties = folder / "server.properties"
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def bootstrap_servers(self) -> str:
        """Where the brokers of its cluster answer, as clients take it."""
        return self.cluster.bootstrap_servers

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()  # nobody needs its data again

    def start(self) -> None:
        """Returns once the broker is usable; a broker of several may wait for the others to be started.

        Raises:
            AssertionError: it ended, or was not usable in time; the end of its log says why.
        """
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Starts the broker's process without waiting for it."""
        assert self._process is None, "the broker runs already"
        if not self._properties.exists():
            self._properties.write_text(self.cluster.properties(self.node, self._data))
            self._format()
        command = [*_JAVA, "-cp", self._classpath, "kafka.Kafka", str(self._properties)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._started = threading.Event()
        self._usable = False
        self._reader = threading.Thread(target=self._read, args=(self._process,), name="broker-log", daemon=True)
        self._reader.start()

    def wait(self) -> None:
        """Returns once a broker that was launched is usable; see start."""
        in_time = self._started.wait(START_S)
        if not self._usable:
            self.kill()
            what = "ended" if in_time else f"was not usable within {START_S:g} s"
            raise AssertionError(f"the broker {what}: {self.log.read_text()[-4000:]}")

    def stop(self) -> None:
        """Stops the broker as an administrator does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the broker as a power cut does; one that does not run is left alone."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Lets the broker stand still: its connections stay, its answers do not come."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets a frozen broker go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def join(self) -> None:
        """Returns once the broker's process has ended, by itself or otherwise."""
        assert self._reader is not None
        self._reader.join()

    def _format(self) -> None:
        tool = [*_JAVA, "-cp", self._classpath, "kafka.tools.StorageTool", "format"]
        command = [*tool, "-t", self.cluster.identity, "-c", str(self._properties)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, f"the broker's folder cannot be formatted: {done.stdout[-4000:]}"

    def _read(self, process: subprocess.Popen[str]) -> None:
        """Keeps what the broker says, so that its pipe never fills, and tells when it is usable or has ended."""
        assert process.stdout is not None
        with self.log.open("a") as log:
            for line in process.stdout:
                log.write(line)
                if _STARTED in line:
                    log.flush()
                    self._usable = True
                    self._started.set()
        self._started.set()

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.join()
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def running_broker(
    folder: Path,
    port: int | None = None,
    settings: Sequence[tuple[str, str]] = (),
    controller_port: int | None = None,
) -> Iterator[Broker]:
    """Gives a broker that is usable, the only one of its cluster; its process ends with the context.

    Args:
        folder: takes its data.
        port: where clients reach it; without one a free port.
        settings: laid over a broker's usual ones.
        controller_port: where it is reached as a controller; without one a free port.

    Raises:
        BrokerUnavailableError: Java, Maven or the jars are missing here.
    """
    own, controller = free_ports(2)
    cluster = Cluster([Node(1, port or own, controller_port or controller)], settings=tuple(settings))
    with Broker(cluster, cluster.nodes[0], folder) as broker:
        yield broker


def free_ports(count: int) -> list[int]:
    """Returns ports of this machine that nobody listens on at present, each another."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _kafka_uuid(identity: uuid.UUID) -> str:
    """Returns an id as Kafka writes it; one that began with a dash would be taken for a flag."""
    text = base64.urlsafe_b64encode(identity.bytes).decode().rstrip("=")
    return "A" + text[1:] if text.startswith("-") else text
