"""The broker that tests use is one that clients of any kind would find in production."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from tests.kafka.broker import Broker, free_ports
from tests.kafka.classpath import BrokerUnavailableError, broker_classpath


async def _brokers(servers: str) -> int:
    """Returns how many brokers answer there."""
    producer = AIOKafkaProducer(bootstrap_servers=servers)
    await producer.start()
    try:
        return len(producer.client.cluster.brokers())
    finally:
        await producer.stop()


@pytest.mark.parametrize("end", [Broker.stop, Broker.kill], ids=["stopped", "killed"])
def test_a_broker_that_was_away_comes_back_at_the_same_address(broker: Broker, end: Callable[[Broker], None]) -> None:
    """Clients that know it need not be told anything."""
    servers = broker.bootstrap_servers

    end(broker)
    broker.start()

    assert (broker.bootstrap_servers, asyncio.run(_brokers(servers))) == (servers, 1)


def test_a_broker_in_the_foreground_says_where_it_answers_and_ends_at_ctrl_c(broker: Broker) -> None:
    """`make kafka` leaves neither process nor data behind. (`broker` is here for its jars, or the reason of a skip.)"""
    [port] = free_ports(1)
    command = [sys.executable, "-m", "tests.kafka", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = asyncio.run(_brokers(f"127.0.0.1:{port}"))
        process.send_signal(signal.SIGINT)

        assert (said.split(";")[0], found) == (f"Kafka answers at 127.0.0.1:{port}", 1)
        assert process.wait(30) == 0


def test_a_machine_without_maven_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests are then skipped with this sentence, and fail where everything must be there."""
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(BrokerUnavailableError, match="expected Maven, which finds the broker's jars, got none"):
        broker_classpath(cache=tmp_path / "cache")
