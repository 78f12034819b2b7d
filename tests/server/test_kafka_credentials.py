"""Brokers that want to know who asks are told by every client, encrypted where they speak TLS; secrets stay secret."""

import asyncio
import gc
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from pydantic import ValidationError

from server.errors import SettingsError
from server.eventlog.events_topic import ensure_events_topic
from server.identifiers import uuid7
from server.kafka_clients import administering, consuming, producing
from server.kafka_credentials import client_options
from server.settings import KafkaSettings
from tests.kafka.guarded import PASSWORD, Guarded
from tests.kafka.token_giver import TokenGiver


def settings_of(guarded: Guarded, listener: str, **changes: object) -> KafkaSettings:
    """Returns settings of a client of a listener, with a topic of its own."""
    values = {"bootstrap_servers": guarded.address(listener), "events_topic": f"events-{uuid7()}"}
    return KafkaSettings.model_validate({**values, **changes})


async def _round_trip(settings: KafkaSettings) -> bytes | None:
    """Returns a record that was written and read, by all three kinds of client."""
    await ensure_events_topic(settings)
    async with producing(settings, acks="all", enable_idempotence=True) as producer:
        await producer.send_and_wait(settings.events_topic, b"value", b"key", partition=0)
    async with consuming(settings, enable_auto_commit=False, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(settings.events_topic, 0)])
        async with asyncio.timeout(30):
            value: bytes | None = (await consumer.getone()).value
            return value


@pytest.mark.parametrize("listener", ["SASLPLAIN", "SASLSSL"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_password_lets_in(guarded: Guarded, listener: str, mechanism: str) -> None:
    """By every mechanism, with and without encryption."""
    encrypted = listener == "SASLSSL"
    settings = settings_of(
        guarded,
        listener,
        security_protocol="SASL_SSL" if encrypted else "SASL_PLAINTEXT",
        ca=guarded.ca if encrypted else None,
        sasl_mechanism=mechanism,
        username="tiltyard",
        password_file=guarded.password,
    )

    assert asyncio.run(_round_trip(settings)) == b"value"
    assert PASSWORD not in repr(settings)


# aiokafka leaves the socket of a connection that was refused to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_certificate_lets_in(guarded: Guarded) -> None:
    """Where brokers ask for one; without it none is let in."""
    settings = settings_of(guarded, "MUTUAL", security_protocol="SSL", ca=guarded.ca)

    with pytest.raises(Exception, match=r"(?i)connect|bootstrap|ssl"):
        asyncio.run(_round_trip(settings))
    gc.collect()

    shown = {"certificate": guarded.client.certificate, "key": guarded.client.key}
    assert asyncio.run(_round_trip(settings.model_copy(update=shown))) == b"value"


def test_a_token_lets_in(guarded: Guarded, token_giver: TokenGiver) -> None:
    """Asked for with the client's credentials; who has the wrong ones is told so without a word of them."""
    secret = guarded.folder / "client-secret"
    secret.write_text(PASSWORD)
    settings = settings_of(
        guarded,
        "SASLPLAIN",
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="OAUTHBEARER",
        token_url=token_giver.url,
        client_id="tiltyard",
        client_secret_file=secret,
    )
    assert asyncio.run(_round_trip(settings)) == b"value"

    secret.write_text("another")
    provider = client_options(settings)["sasl_oauth_token_provider"]
    with pytest.raises(Exception, match="expected a token, got: Unauthorized") as caught:
        asyncio.run(provider.token())
    assert "another" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # as above
def test_a_wrong_password_is_an_error_without_it(guarded: Guarded) -> None:
    """The message names no secret."""
    wrong = guarded.folder / "wrong"
    wrong.write_text("not the password")
    settings = settings_of(
        guarded,
        "SASLPLAIN",
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        username="tiltyard",
        password_file=wrong,
    )

    async def ask() -> None:
        async with administering(settings):
            raise AssertionError("let in")

    with pytest.raises(Exception, match=r"(?i)auth|bootstrap") as caught:
        asyncio.run(ask())
    gc.collect()
    assert "not the password" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xff"])
def test_a_secret_that_cannot_be_read_is_named_by_its_file(tmp_path: Path, content: bytes | None) -> None:
    """Not by what is in it."""
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    values = {"bootstrap_servers": "127.0.0.1:1", "security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"}
    settings = KafkaSettings.model_validate({**values, "username": "tiltyard", "password_file": file})

    with pytest.raises(SettingsError, match=r"kafka\.password_file .*password: expected a file with a secret, got"):
        client_options(settings)


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    """Before anything is served."""
    (tmp_path / "ca.pem").write_text("nothing")
    values = {"bootstrap_servers": "127.0.0.1:1", "security_protocol": "SSL", "ca": tmp_path / "ca.pem"}

    with pytest.raises(SettingsError, match=r"kafka\.ca .*ca\.pem: expected PEM certificates, got"):
        client_options(KafkaSettings.model_validate(values))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"certificate": "c.pem"}, "expected certificate and key together"),
        ({"ca": "ca.pem"}, "expected security_protocol SSL or SASL_SSL, got PLAINTEXT"),
        (
            {"security_protocol": "SASL_SSL"},
            "expected sasl_mechanism with security_protocol SASL_PLAINTEXT or SASL_SSL",
        ),
        ({"sasl_mechanism": "PLAIN"}, "and only there, got PLAINTEXT and PLAIN"),
        (
            {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "username": "u"},
            "password_file: expected a value with sasl_mechanism PLAIN, got none",
        ),
        (
            {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", "username": "u"},
            "username: expected none with sasl_mechanism OAUTHBEARER, got one",
        ),
    ],
)
def test_credentials_that_do_not_fit_together_are_refused(values: dict[str, str], sentence: str) -> None:
    """A part that nobody would read is a mistake, too."""
    with pytest.raises(ValidationError, match=sentence):
        KafkaSettings.model_validate({"bootstrap_servers": "127.0.0.1:1", **values})
