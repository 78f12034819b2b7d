"""The monitor tells brokers who it is, encrypted where they speak TLS; secrets stay secret."""

import asyncio
import gc
from typing import Any

import pytest
from aiokafka import TopicPartition

from monitor.kafka_clients import connection, consuming, make_topic, producing
from monitor.settings import KafkaSettings
from server.identifiers import uuid7
from tests.kafka.guarded import PASSWORD, Guarded


def settings_of(guarded: Guarded, listener: str, **changes: object) -> KafkaSettings:
    """Returns settings of a client of a listener, with a topic of its own."""
    values = {"bootstrap_servers": guarded.address(listener), "events_topic": f"events-{uuid7()}"}
    return KafkaSettings.model_validate({**values, **changes})


async def round_trip(settings: KafkaSettings) -> bytes | None:
    """Returns a record that was written and read, by all three kinds of client."""
    options = connection(settings)
    await make_topic(options, settings.events_topic, 1, {})
    async with producing(options, acks="all", enable_idempotence=True) as producer:
        await producer.send_and_wait(settings.events_topic, b"value", b"key", partition=0)
    async with consuming(options, enable_auto_commit=False, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(settings.events_topic, 0)])
        async with asyncio.timeout(30):
            value: bytes | None = (await consumer.getone()).value
            return value


@pytest.mark.parametrize("listener", ["SASLPLAIN", "SASLSSL"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_password_lets_in(guarded: Guarded, listener: str, mechanism: str) -> None:
    """By every mechanism, with and without encryption."""
    more: dict[str, Any] = {"security_protocol": "SASL_PLAINTEXT"}
    if listener == "SASLSSL":
        more = {"security_protocol": "SASL_SSL", "ca": guarded.ca}
    who = {"sasl_mechanism": mechanism, "username": "tiltyard", "password_file": guarded.password}
    settings = settings_of(guarded, listener, **more, **who)

    assert asyncio.run(round_trip(settings)) == b"value"
    assert PASSWORD not in repr(settings)


# aiokafka leaves the socket of a connection that was refused to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_certificate_lets_in(guarded: Guarded) -> None:
    """Where brokers ask for one; without it none is let in."""
    settings = settings_of(guarded, "MUTUAL", security_protocol="SSL", ca=guarded.ca)

    with pytest.raises(Exception, match=r"(?i)connect|bootstrap|ssl"):
        asyncio.run(round_trip(settings))
    gc.collect()

    shown = {"certificate": guarded.client.certificate, "key": guarded.client.key}
    assert asyncio.run(round_trip(settings.model_copy(update=shown))) == b"value"
