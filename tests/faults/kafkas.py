"""The brokers that faults of Kafka are tried on, started when the first fault needs them."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.faults.proxy import Proxy, running_proxy
from tests.faults.unavailable import UnavailableError
from tests.kafka.broker import Broker, free_ports, running_broker
from tests.kafka.classpath import BrokerUnavailableError
from tests.kafka.cluster import Brokers, running_brokers


@dataclass(frozen=True)
class Reached:
    """One broker, which is reached through a network that can be cut."""

    broker: Broker
    proxy: Proxy

    @property
    def bootstrap_servers(self) -> str:
        """Where clients ask for it."""
        return f"127.0.0.1:{self.proxy.port}"


class Kafkas:
    """One broker behind a proxy, and three of one cluster. Leaving ``stack`` ends them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        """folder: takes their data."""
        self._folder = folder
        self._stack = stack
        self._one: Reached | None = None
        self._three: Brokers | None = None

    def one(self) -> Reached:
        """Returns the single broker.

        Raises:
            UnavailableError: no broker can be started here.
        """
        if self._one is None:
            port, near, controller = free_ports(3)
            advertised = f"PLAINTEXT://127.0.0.1:{near},CONTROLLER://127.0.0.1:{controller}"
            proxy = self._stack.enter_context(running_proxy(near, port))
            settings = (("advertised.listeners", advertised),)
            folder = self._folder / "one"
            folder.mkdir()
            try:
                context = running_broker(folder, port, settings, controller)
                self._one = Reached(self._stack.enter_context(context), proxy)
            except BrokerUnavailableError as error:
                raise UnavailableError(str(error)) from error
        return self._one

    def three(self) -> Brokers:
        """Returns the three.

        Raises:
            UnavailableError: no broker can be started here.
        """
        if self._three is None:
            folder = self._folder / "three"
            folder.mkdir()
            try:
                self._three = self._stack.enter_context(running_brokers(folder))
            except BrokerUnavailableError as error:
                raise UnavailableError(str(error)) from error
        return self._three
