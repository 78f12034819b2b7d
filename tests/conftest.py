"""What tests of more than one package need."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.kafka.broker import Broker, running_broker
from tests.kafka.classpath import BrokerUnavailableError
from tests.required import missing

# A shell that starts the tests in the background has them and all their children ignore Ctrl-C, which some are about.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A real Kafka broker for all tests. One that stops it starts it again; each uses topics of its own."""
    with ExitStack() as stack:
        try:
            running = stack.enter_context(running_broker(tmp_path_factory.mktemp("kafka")))
        except BrokerUnavailableError as error:
            missing(str(error))
        yield running
