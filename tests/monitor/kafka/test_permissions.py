from pathlib import Path
from typing import Any

from confluent_kafka.admin import AclOperation

from tests.kafka.guarded import Guarded
from tests.kafka.permissions import denied
from tests.monitor.kafka.event_topic import EventTopic


def test_a_topic_that_may_not_be_read_is_waited_for(
    tmp_path: Path, models: Path, guarded: Guarded, events: Any, monitor_process: Any
) -> None:
    """The monitor says what is denied and goes on answering; once it may read it goes on where it was."""
    topic = EventTopic(guarded.broker.bootstrap_servers)
    who = {
        "BOOTSTRAP_SERVERS": guarded.address("SASLPLAIN"),
        "SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "SASL_MECHANISM": "PLAIN",
        "USERNAME": "tiltyard",
        "PASSWORD_FILE": str(guarded.password),
    }
    environment = {**topic.settings, **{f"TILTYARD_KAFKA__{name}": value for name, value in who.items()}}
    topic.write([events.answer(f"a{number}", number) for number in range(50)])
    monitor = monitor_process(models.parent, **environment)
    monitor.wait_for(lambda health: health["source"]["offset"] == 50)
    with denied(guarded.broker.bootstrap_servers, topic.name, AclOperation.READ):
        refused = monitor.wait_for(lambda health: health["reason"] is not None)
        topic.write([events.answer(f"b{number}", number) for number in range(50)])
        after = monitor.health()

    found = monitor.wait_for(lambda health: health["source"]["offset"] == 100 and health["reason"] is None)

    assert 50 == after["source"]["offset"]
    assert "uthoriz" in refused["reason"]
    assert (100, 0) == (found["counters"]["prediction"], found["counters"].get("gap_events", 0))
