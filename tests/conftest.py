"""What tests of more than one package need."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.kafka.broker import Broker, running_broker
from tests.kafka.classpath import BrokerUnavailableError
from tests.kafka.guarded import Guarded, guarded_broker
from tests.kafka.token_giver import TokenGiver, running_token_giver
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


@pytest.fixture(scope="session")
def guarded(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A broker that wants to know who asks. (`broker` is here for its jars, or the reason of a skip.)"""
    with guarded_broker(tmp_path_factory.mktemp("guarded")) as running:
        yield running


@pytest.fixture
def token_giver() -> Iterator[TokenGiver]:
    """Who gives the tokens that the broker which wants to know who asks accepts."""
    with running_token_giver() as giver:
        yield giver
