"""The monitor tells brokers who it is, encrypted where they speak TLS; secrets stay secret."""

import asyncio
import gc
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from monitor.errors import SettingsError
from monitor.kafka_clients import consuming, make_topic, producing
from monitor.kafka_credentials import connection
from monitor.settings import KafkaSettings
from server.identifiers import uuid7
from tests.kafka.guarded import PASSWORD, Guarded
from tests.kafka.token_giver import TokenGiver


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


def by_token(giver: TokenGiver, secret: Path, **changes: object) -> dict[str, Any]:
    """Returns the settings of a client that asks for tokens, with its secret in a file."""
    secret.write_text(PASSWORD + "\n")
    who = {"token_url": giver.url, "client_id": "tiltyard", "client_secret_file": secret}
    return {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "OAUTHBEARER", **who, **changes}


def test_a_token_lets_in(guarded: Guarded, token_giver: TokenGiver, tmp_path: Path) -> None:
    """Asked for once for three clients and all their connections, with the scope that the settings name."""
    settings = settings_of(guarded, "SASLPLAIN", **by_token(token_giver, tmp_path / "secret", token_scope="events"))

    assert asyncio.run(round_trip(settings)) == b"value"
    [form] = token_giver.asked
    assert (["tiltyard"], ["events"]) == (form["client_id"], form["scope"])
    assert PASSWORD not in repr(settings)


@pytest.mark.parametrize(("life_s", "asked"), [(60, 1), (0, 2)], ids=["lives", "over"])
def test_a_token_is_kept_while_it_lives(token_giver: TokenGiver, tmp_path: Path, life_s: int, asked: int) -> None:
    """And then another is asked for."""
    token_giver.life_s = life_s
    settings = KafkaSettings.model_validate(by_token(token_giver, tmp_path / "secret"))
    provider = connection(settings)["sasl_oauth_token_provider"]

    async def twice() -> None:
        await provider.token()
        await provider.token()

    asyncio.run(twice())

    assert asked == len(token_giver.asked)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("another", "/token: expected a token, got: Unauthorized"), (None, "client_secret_file: .* cannot be read")],
    ids=["wrong", "gone"],
)
def test_a_secret_that_stops_to_let_in_is_waited_for(
    token_giver: TokenGiver, tmp_path: Path, content: str | None, sentence: str
) -> None:
    """It is an error of Kafka, after which the monitor tries again, and does not tell what the file holds."""
    secret = tmp_path / "secret"
    settings = KafkaSettings.model_validate(by_token(token_giver, secret))
    provider = connection(settings)["sasl_oauth_token_provider"]
    if content is None:
        secret.unlink()
    else:
        secret.write_text(content)

    with pytest.raises(KafkaError, match=sentence) as caught:
        asyncio.run(provider.token())
    assert "another" not in str(caught.value)
    secret.write_text(PASSWORD)
    assert asyncio.run(provider.token())


@pytest.mark.parametrize("file", ["client_secret_file", "ca"])
def test_a_file_that_cannot_be_used_is_named_at_the_start(token_giver: TokenGiver, tmp_path: Path, file: str) -> None:
    """Before any token is asked for."""
    settings = KafkaSettings.model_validate(by_token(token_giver, tmp_path / "secret", **{file: tmp_path / "gone"}))

    with pytest.raises(SettingsError, match=f"monitor.kafka.{file}: .*gone cannot be"):
        connection(settings)
