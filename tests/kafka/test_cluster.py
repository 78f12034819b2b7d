"""Three brokers go on when one of them goes, and none of what was acknowledged goes with it."""

from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.kafka.broker import Broker
from tests.kafka.classpath import BrokerUnavailableError
from tests.kafka.cluster import Brokers, running_brokers
from tests.required import missing
from tests.server.eventlog.shipping import records


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    """Three brokers."""
    try:
        with running_brokers(tmp_path_factory.mktemp("brokers")) as running:
            yield running
    except BrokerUnavailableError as error:
        missing(str(error))


@pytest.mark.parametrize("end", [Broker.stop, Broker.kill, Broker.freeze], ids=["stopped", "killed", "standing still"])
def test_others_lead_what_a_broker_led(brokers: Brokers, end: Callable[[Broker], None]) -> None:
    """Every record that all had acknowledged is there, and more are taken; when it is back, it has them, too."""
    topic = f"moved-{end.__name__}"
    admin = AdminClient({"bootstrap.servers": brokers.bootstrap_servers})
    admin.create_topics([NewTopic(topic, 3, 3)])[topic].result(30)
    brokers.until_whole(topic)
    producer = Producer(
        {
            "bootstrap.servers": brokers.bootstrap_servers,
            "acks": "all",
            "enable.idempotence": True,
            "request.timeout.ms": 5000,
            "socket.timeout.ms": 5000,  # after it the producer leaves a broker that stands still
        }
    )
    for number in range(100):
        producer.produce(topic, b"before", b"%d" % number)
    assert producer.flush(30) == 0
    leader = brokers.leader(topic, 0)

    end(leader)
    brokers.until_led_without(topic, leader)
    for number in range(100):
        producer.produce(topic, b"after", b"%d" % number)
    unsent = producer.flush(120)
    leader.thaw() if end is Broker.freeze else leader.start()
    brokers.until_whole(topic)

    assert unsent == 0
    assert len(records(brokers.bootstrap_servers, topic)) == 200
