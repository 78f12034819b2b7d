"""The server's settings: one typed object, and the only reader of the environment.

Flags win over ``TILTYARD_*`` variables, those over ``tiltyard.toml``, that over the defaults.
"""

import importlib.util
import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource
from pydantic_settings import SettingsError as UnreadableSourceError

from server.contract.sampling import MOST_EVERY
from server.errors import SettingsError

MIB = 1024 * 1024

_ADDRESS = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")


class EventSettings(BaseModel):
    """How answers become durable events."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    durability: Literal["async", "commit"] = Field(
        "async", description="`async`: answer at once, commit within milliseconds; `commit`: answer once committed"
    )
    when_full: Literal["shed", "block"] = Field(
        "shed", description="no room for events: `shed` answers and counts the dropped event, `block` answers 503"
    )
    commit_interval_ms: float = Field(5.0, gt=0, le=20, description="longest wait of an event for its group commit")
    queue_bytes: int = Field(64 * MIB, ge=MIB, description="events waiting for their commit, in bytes, at most")
    retention_bytes: int = Field(4096 * MIB, ge=MIB, description="the log's size at most; the oldest chunks go first")
    retention_s: float = Field(30 * 86400.0, gt=0, description="the age of an event at most; older chunks go")
    keep_shipped_s: float = Field(
        3600.0,
        ge=0,
        description="with Kafka: how long the log keeps what the topic has; nothing goes before it is there",
    )
    input_bytes: int = Field(
        4 * MIB, ge=0, description="inputs beyond this are left out of their event, which says so (`cut`)"
    )
    client_time: bool = Field(
        False, description="take an event's time from the request's `parameters.time` (replays and backfills)"
    )
    columns: dict[str, Literal["mask", "hash", "drop"]] = Field(
        {},
        description="what events hide of an input: `mask`, `hash` or `drop` by `column`, or by `model/column` for one "
        "model",
    )
    hash_key: Path | None = Field(None, description="file of the secret that `hash` is keyed with, 16 bytes or more")
    sample_every: int = Field(
        1,
        ge=0,
        le=MOST_EVERY,
        description="log one request in so many, and every error; `1` logs all, `0` errors alone",
    )

    @model_validator(mode="after")
    def _keyed(self) -> Self:
        """Refuses hashes without a key: of a short list of values anyone could try them all."""
        hashed = [name for name, how in self.columns.items() if how == "hash"]
        if hashed and self.hash_key is None:
            raise ValueError(f"expected hash_key, a file with a secret, to hash {hashed} with, got none")
        return self


class LimitSettings(BaseModel):
    """What a request may be at most."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    body_bytes: int = Field(64 * MIB, ge=1024, description="a request's body as sent, in bytes; more is answered 413")
    decompressed_bytes: int = Field(64 * MIB, ge=1024, description="a compressed body once decompressed; 413")
    elements: int = Field(16_000_000, ge=1, description="tensor elements of one request; 400")
    rows: int = Field(1_000_000, ge=1, description="rows of one request; 400")
    nesting: int = Field(64, ge=1, le=500, description="depth of arrays and objects in a request's JSON; 400")
    header_bytes: int = Field(64 * 1024, ge=1024, description="a request's target and headers together; 431")
    header_s: float = Field(10.0, gt=0, description="time for a request's headers to arrive; 408")
    body_s: float = Field(60.0, gt=0, description="time for a request's body to arrive after its headers; 408")
    idle_s: float = Field(15.0, gt=0, description="how long a connection without a request stays open; closed")
    concurrent_requests: int = Field(1024, ge=1, description="requests being worked on, each worker's own; 503")
    waiting_requests: int = Field(
        512, ge=1, description="requests waiting for a run of one version, each worker's own; 503"
    )
    batch_rows: int = Field(1024, ge=1, description="rows of a run that several requests share")
    feedback_items: int = Field(100_000, ge=1, description="labels in one feedback request; 400")
    shadow_queue: int = Field(1000, ge=1, description="requests waiting for their shadow; more are shed and counted")
    shadow_bytes: int = Field(
        64 * MIB,
        ge=1024,
        description="memory of requests waiting for their shadow, in bytes; more are shed and counted",
    )


class TlsSettings(BaseModel):
    """Encryption; without a certificate the server speaks plain HTTP."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    certificate: Path | None = Field(None, description="PEM file of the server's certificate and its chain")
    key: Path | None = Field(None, description="PEM file of its private key")
    client_ca: Path | None = Field(
        None, description="PEM file of authorities; with it every client must show a certificate of theirs"
    )


class KafkaSettings(BaseModel):
    """Kafka, which carries what several servers share; without its address each keeps to itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bootstrap_servers: str | None = Field(
        None,
        description="brokers to ask first, `host:port,host:port` (extra `kafka`); without it routes are not shared and "
        "events stay in the log",
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="how brokers are spoken to: with `SSL` encrypted, with `SASL` as somebody they know"
    )
    ca: Path | None = Field(
        None, description="PEM file of the authorities that brokers' certificates are of; without it the system's"
    )
    certificate: Path | None = Field(None, description="PEM file of the certificate that brokers are shown")
    key: Path | None = Field(None, description="PEM file of its private key")
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = Field(
        None, description="how brokers are told who this is; expected with `SASL_PLAINTEXT` and `SASL_SSL`"
    )
    username: str | None = Field(None, min_length=1, description="of `PLAIN` and `SCRAM`")
    password_file: Path | None = Field(None, description="file of its password, read anew for each connection")
    token_url: str | None = Field(
        None, pattern="^https?://", description="of `OAUTHBEARER`: where tokens are given for client credentials"
    )
    client_id: str | None = Field(None, min_length=1, description="of `OAUTHBEARER`: who asks for a token")
    client_secret_file: Path | None = Field(None, description="file of its secret, read anew for each token")
    token_scope: str | None = Field(None, description="scope that a token is asked for, where one is wanted")
    routes_topic: str = Field(
        "tiltyard.routes",
        min_length=1,
        max_length=249,
        pattern=r"^[A-Za-z0-9._-]+$",
        description="topic of all changes of routes, which every server reads; created where there is none",
    )
    events_topic: str = Field(
        "tiltyard.events",
        min_length=1,
        max_length=249,
        pattern=r"^[A-Za-z0-9._-]+$",
        description="topic that all events are shipped to, keyed by request id; created where there is none",
    )
    events_partitions: int = Field(
        12, ge=1, le=10_000, description="its partitions; with another number than the topic has nothing is shipped"
    )
    events_retention_s: float | None = Field(
        None,
        ge=-1,
        description="how long after its own time it keeps an event, set when it is created, -1 for ever; without it "
        "the brokers' default",
    )
    compression: Literal["none", "gzip", "lz4", "snappy", "zstd"] = Field(
        "zstd", description="how batches of events are compressed"
    )
    replication_factor: int | None = Field(
        None, ge=1, le=32767, description="copies of a topic that is created; without it the brokers' default"
    )

    @field_validator("bootstrap_servers")
    @classmethod
    def _addresses(cls, value: str | None) -> str | None:
        """Refuses what aiokafka would take for a host of some other port."""
        for address in [] if value is None else value.split(","):
            if not _ADDRESS.fullmatch(address) or int(address.rpartition(":")[2]) > 65535:
                raise ValueError(f"expected host:port, several between commas, got {value!r}")
        return value

    @model_validator(mode="after")
    def _credentials(self) -> Self:
        """Refuses a way to log in that lacks a part, and a part of one that is not taken."""
        if (self.certificate is None) != (self.key is None):
            raise ValueError("expected certificate and key together, got one of them")
        if not self.security_protocol.endswith("SSL") and (self.ca is not None or self.certificate is not None):
            raise ValueError(
                f"ca, certificate: expected security_protocol SSL or SASL_SSL, got {self.security_protocol}"
            )
        if self.security_protocol.startswith("SASL") != (self.sasl_mechanism is not None):
            raise ValueError(
                "expected sasl_mechanism with security_protocol SASL_PLAINTEXT or SASL_SSL and only there, "
                f"got {self.security_protocol} and {self.sasl_mechanism}"
            )
        password = {"username": self.username, "password_file": self.password_file}
        token = {
            "token_url": self.token_url,
            "client_id": self.client_id,
            "client_secret_file": self.client_secret_file,
        }
        wanted = {} if self.sasl_mechanism is None else token if self.sasl_mechanism == "OAUTHBEARER" else password
        for name, value in {**password, **token}.items():
            if (value is not None) != (name in wanted):
                expected = "a value" if name in wanted else "none"
                raise ValueError(
                    f"{name}: expected {expected} with sasl_mechanism {self.sasl_mechanism}, "
                    f"got {'none' if value is None else 'one'}"
                )
        return self


class Settings(BaseSettings):
    """Everything ``tiltyard serve`` can be told."""

    model_config = SettingsConfigDict(
        env_prefix="TILTYARD_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        nested_model_default_partial_update=True,
    )

    models: str = Field(
        "models", min_length=1, description="bundles, MODELS/<model>/<version>/: a folder, or a URL that fsspec knows"
    )
    repository: Literal["explicit", "watched"] = Field(
        "explicit",
        description="after the start, versions come and go by the load/unload API (`explicit`) or with their folders "
        "(`watched`)",
    )
    watch_s: float = Field(0.5, gt=0, le=60, description="how often folders and route documents are looked at")
    routes: Path | None = Field(
        None, description="folder of route documents and their history; without one they stand beside the bundles"
    )
    cache: Path = Field(Path("bundle-cache"), description="where bundles of a URL are kept, by their digests")
    outbox: Path = Field(Path("outbox.db"), description="file of the embedded event log")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    workers: int = Field(1, ge=1, le=64, description="processes that answer, on one socket and with one event log")
    fast_lane: bool = Field(
        True, description="requests that score are answered straight from the HTTP parser, without ASGI"
    )
    tokens: Path | None = Field(
        None, description="file of API tokens (`tiltyard token`); without one nobody needs a token"
    )
    stop_delay_s: float = Field(
        0.0, ge=0, description="how long a stopping server says it is not ready and still serves"
    )
    drain_s: float = Field(10.0, ge=0, description="how long running requests may take after a stop is asked for")
    flush_s: float = Field(5.0, gt=0, description="how long the last events may take to reach the disk at the end")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="what is logged at least")
    log_format: Literal["text", "json"] = Field("text", description="one line a record, for people or for machines")
    tracing: bool = Field(False, description="OpenTelemetry spans (extra `otel`), sent as OTEL_* variables say")
    events: EventSettings = Field(default_factory=EventSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    tls: TlsSettings = Field(default_factory=TlsSettings)
    kafka: KafkaSettings = Field(default_factory=KafkaSettings)

    @model_validator(mode="before")
    @classmethod
    def _without_the_monitors(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Leaves out the table that ``tiltyard.toml`` keeps for the monitor."""
        return {name: value for name, value in values.items() if name != "monitor"}

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """Refuses half of a pair of TLS files, and Kafka without its client."""
        tls = self.tls
        if (tls.certificate is None) != (tls.key is None):
            raise ValueError("tls: expected certificate and key together, got one of them")
        if tls.client_ca is not None and tls.certificate is None:
            raise ValueError("tls: expected a certificate and key beside client_ca, got none")
        if self.kafka.bootstrap_servers is not None and "://" in self.models and self.routes is None:
            raise ValueError("routes: expected a folder for the routes beside models of a URL with kafka, got none")
        if self.kafka.bootstrap_servers is not None and importlib.util.find_spec("aiokafka") is None:
            raise ValueError("kafka.bootstrap_servers: expected aiokafka, got none; run: pip install 'tiltyard[kafka]'")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Returns the sources in the order that wins: flags, environment, file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_settings(config: Path | None = None, **flags: Any) -> Settings:
    """Returns the settings of this run.

    Args:
        config: a TOML file; without one, ``tiltyard.toml`` of the present folder where it exists.
        flags: values from the command line by setting name; None counts as not given.

    Raises:
        SettingsError: the file cannot be read, or a value is not what its setting takes.
    """
    if config is not None and not config.is_file():
        raise SettingsError(f"config {config}: expected a TOML file, found none")
    file = config or Path("tiltyard.toml")

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=file)

    try:
        return FromFile(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise SettingsError(f"settings: {faults}") from error
    except UnreadableSourceError as error:  # a variable such as TILTYARD_EVENTS whose JSON is none
        raise SettingsError(f"settings: {error}") from error
    except ValueError as error:  # tomllib.TOMLDecodeError is one
        raise SettingsError(f"config {file}: expected TOML, got a file that is not: {error}") from error
