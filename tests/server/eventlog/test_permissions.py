"""A shipper that may not write says so and waits: what is denied to it is neither lost nor set aside."""

from pathlib import Path

from confluent_kafka.admin import AclOperation

from server.identifiers import uuid7
from server.settings import KafkaSettings
from tests.kafka.guarded import Guarded
from tests.kafka.permissions import denied
from tests.patience import until
from tests.server.eventlog.shipping import event, make_topic, records, shipped_log


def test_events_that_may_not_be_written_wait(guarded: Guarded, tmp_path: Path) -> None:
    """The status names topic and refusal; once it is granted again everything arrives, once and in order."""
    servers = guarded.broker.bootstrap_servers
    kafka = KafkaSettings(
        bootstrap_servers=guarded.address("SASLPLAIN"),
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        username="tiltyard",
        password_file=guarded.password,
        events_topic=f"events-{uuid7()}",
        events_partitions=1,
    )
    make_topic(servers, kafka.events_topic, 1)
    lines = [event(number) for number in range(300)]
    with shipped_log(tmp_path, kafka) as log:
        log.append(*lines[:100])
        log.wait(100)
        with denied(servers, kafka.events_topic, AclOperation.WRITE):
            log.append(*lines[100:200])
            until(lambda: log.status.state != "connected", "the refusal to be told")
            said = str(log.status.fault)
            log.append(*lines[200:])
            assert log.offset == 100
        log.wait(300)
        until(lambda: log.status.state == "connected", "the end of the refusal to be told")
        assert (log.status.set_aside, log.status.missed) == (0, 0)
        found = records(servers, kafka.events_topic)

    assert "TopicAuthorizationFailed" in said
    assert kafka.events_topic in said
    assert [record.value for record in found] == lines
