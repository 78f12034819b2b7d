"""Every setting of the monitor, in one typed object. Nothing else reads the environment.

A flag wins over ``TILTYARD_MONITOR_*`` in the environment (groups joined by two underscores, as in
``TILTYARD_MONITOR_JOIN__TTL_S``), that over the ``[monitor]`` table of tiltyard.toml, that over the
default. ``models``, ``outbox`` and ``kafka`` are shared with the server: they may also stand at the top of
tiltyard.toml and in ``TILTYARD_MODELS``, ``TILTYARD_OUTBOX`` and ``TILTYARD_KAFKA__*``, where what the server
alone knows of Kafka is passed over.
"""

import importlib.util
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from monitor.errors import SettingsError

DEFAULT_CONFIG = Path("tiltyard.toml")
_SHARED = ("models", "outbox")
_DAY_S = 86_400.0
_TOPIC = r"^[A-Za-z0-9._-]+$"
_ADDRESS = re.compile(r"[^\s,:]+:\d{1,5}|\[[^\s,\]]+\]:\d{1,5}")


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PaneSettings(_Group):
    """How event time is cut."""

    length_s: float = Field(60.0, ge=0.001, description="Length of a pane, in seconds of event time.")
    grace_s: float = Field(
        10.0, ge=0, description="How far the newest prediction must be past a pane's end before it is closed."
    )
    in_memory: int = Field(
        2000, ge=1, description="Panes kept in memory; older ones are read from the state file when needed."
    )


class JoinSettings(_Group):
    """How answers and their truth find each other."""

    ttl_s: float = Field(30 * _DAY_S, gt=0, description="How long an answer waits for its label, in event time.")
    maturity_s: float = Field(
        _DAY_S, ge=0, description="How long after its end a pane's labels count as complete, in event time."
    )
    max_open: int = Field(
        500_000, ge=1, description="Requests kept waiting; beyond, the oldest is given up and counted as expired."
    )


class DriftSettings(_Group):
    """When a shift matters."""

    psi_tolerance: float = Field(0.1, ge=0, description="Debiased PSI up to which a shift is of no interest.")


class AlertSettings(_Group):
    """The one knob of false alarms."""

    expected_run_length_s: float = Field(
        30 * _DAY_S,
        gt=0,
        description="Event time between two false alarms of one version, over all its features and checks together.",
    )


class ComparisonSettings(_Group):
    """How sure a comparison must be."""

    alpha: float = Field(
        0.05, gt=0, lt=1, description="Probability of ever naming a leader between two equally good versions."
    )


class KafkaSettings(_Group):
    """Kafka, where it carries the log; without its address the log is the outbox."""

    bootstrap_servers: str | None = Field(
        None,
        description="Brokers to ask first, `host:port,host:port` (extra `kafka`); without it the outbox is read.",
    )
    events_topic: str = Field("tiltyard.events", max_length=249, pattern=_TOPIC, description="Topic of the events.")
    dead_letters_topic: str = Field(
        "tiltyard.dead-letters",
        max_length=249,
        pattern=_TOPIC,
        description="Topic that takes what was refused, with the reason; made where there is none.",
    )
    panes_topic: str = Field(
        "tiltyard.panes",
        max_length=249,
        pattern=_TOPIC,
        description="Compacted topic through which monitors share their panes; made where there is none.",
    )
    publish_s: float = Field(2.0, gt=0, description="Shortest time between two publications of a partition's panes.")
    checkpoint_events: int = Field(
        20_000,
        ge=1,
        description="Events of a partition after which its open requests are published whole, if they are not more "
        "than a fourth of that; a monitor that takes the partition over reads again what came since.",
    )
    advertised_url: str | None = Field(
        None, description="Where the other monitors' clients reach this one; by default where it listens."
    )
    group: str = Field(
        "tiltyard-monitor", min_length=1, description="Consumer group: monitors of one group share the partitions."
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How the brokers are spoken to."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        "PLAIN", description="How the monitor says who it is, where the protocol is a SASL one."
    )
    username: str | None = Field(None, min_length=1, description="Name for `PLAIN` and `SCRAM`.")
    password_file: Path | None = Field(None, description="File that holds its password, on one line.")
    token_url: str | None = Field(
        None, pattern="^https?://", description="For `OAUTHBEARER`: where tokens are given for client credentials."
    )
    client_id: str | None = Field(None, min_length=1, description="For `OAUTHBEARER`: who asks for a token.")
    client_secret_file: Path | None = Field(None, description="File that holds its secret, read anew for each token.")
    token_scope: str | None = Field(None, description="Scope that a token is asked for, where one is wanted.")
    ca: Path | None = Field(None, description="PEM file of the authorities that brokers' certificates are checked by.")
    certificate: Path | None = Field(None, description="PEM file of the monitor's own certificate.")
    key: Path | None = Field(None, description="PEM file of that certificate's key.")

    @field_validator("bootstrap_servers")
    @classmethod
    def _addresses(cls, value: str | None) -> str | None:
        """Refuses what aiokafka would take for a host of some other port."""
        for address in [] if value is None else value.split(","):
            if not _ADDRESS.fullmatch(address) or int(address.rpartition(":")[2]) > 65_535:
                raise ValueError(f"expected host:port, several between commas, got {value!r}")
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """Refuses Kafka without its client, and half of a pair."""
        if self.bootstrap_servers is not None and importlib.util.find_spec("aiokafka") is None:
            raise ValueError("bootstrap_servers: expected aiokafka, got none; run: pip install 'tiltyard[kafka]'")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("expected certificate and key together, got one of them")
        if self.security_protocol.startswith("SASL"):
            of_token = ("token_url", "client_id", "client_secret_file")
            wanted = of_token if self.sasl_mechanism == "OAUTHBEARER" else ("username", "password_file")
            if lacking := [name for name in wanted if getattr(self, name) is None]:
                raise ValueError(
                    f"expected {', '.join(wanted)} with {self.security_protocol} and {self.sasl_mechanism}, "
                    f"got none of {', '.join(lacking)}"
                )
        return self


class MonitorSettings(BaseSettings):
    """What ``tiltyard monitor`` can be told."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="TILTYARD_MONITOR_", env_nested_delimiter="__"
    )

    models: Path = Field(Path("models"), description="Folder of the bundles, MODELS/<model>/<version>/.")
    outbox: Path = Field(Path("outbox.db"), description="The server's event log, an SQLite file.")
    state: Path | None = Field(None, description="The monitor's own file; by default monitor.db beside the outbox.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8090, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="How much to log.")
    poll_s: float = Field(0.1, gt=0, description="Pause before an idle log is looked at again.")
    batch_events: int = Field(5000, ge=1, description="Events folded at a time, and at most between two commits.")
    commit_s: float = Field(0.5, gt=0, description="Longest time between folding an event and committing it.")
    max_dead_letters: int = Field(10_000, ge=0, description="Refused events kept for inspection; older ones go first.")
    pane: PaneSettings = PaneSettings()
    join: JoinSettings = JoinSettings()
    drift: DriftSettings = DriftSettings()
    alerts: AlertSettings = AlertSettings()
    comparison: ComparisonSettings = ComparisonSettings()
    kafka: KafkaSettings = KafkaSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Returns the one source there is: ``load`` has put the others together."""
        return (init_settings,)

    @property
    def state_file(self) -> Path:
        """The state file, also when it was not named."""
        return self.state or self.outbox.with_name("monitor.db")

    @property
    def log_name(self) -> str:
        """What the log is called in messages: the outbox's file, or topic and brokers."""
        kafka = self.kafka
        at_kafka = f"topic {kafka.events_topic} at {kafka.bootstrap_servers}"
        return str(self.outbox) if kafka.bootstrap_servers is None else at_kafka


def load(flags: Mapping[str, Any], config: Path | None = None) -> MonitorSettings:
    """Returns the settings, from flags, environment, file and defaults.

    Args:
        flags: settings given on the command line, groups as mappings.
        config: tiltyard.toml; None reads the one in the working directory, if there is one.

    Raises:
        SettingsError: the file cannot be read, or a value cannot be used.
    """
    document = _document(config)
    shared = {name: document[name] for name in _SHARED if name in document}
    table = document.get("monitor", {})
    if not isinstance(table, dict):
        raise SettingsError(f"{config or DEFAULT_CONFIG}: expected a table [monitor], got {table!r}")
    of_server = document.get("kafka", {})
    if not isinstance(of_server, dict):
        raise SettingsError(f"{config or DEFAULT_CONFIG}: expected a table [kafka], got {of_server!r}")
    shared["kafka"] = {name: value for name, value in of_server.items() if name in KafkaSettings.model_fields}
    shared_environment: dict[str, Any] = {
        name: os.environ[f"TILTYARD_{name.upper()}"] for name in _SHARED if f"TILTYARD_{name.upper()}" in os.environ
    }
    of_kafka = {name: os.environ.get(f"TILTYARD_KAFKA__{name.upper()}") for name in KafkaSettings.model_fields}
    shared_environment["kafka"] = {name: value for name, value in of_kafka.items() if value is not None}
    merged: dict[str, Any] = {}
    for source in (shared, table, shared_environment, EnvSettingsSource(MonitorSettings)(), flags):
        merged = _merge(merged, source)
    try:
        return MonitorSettings(**merged)
    except ValidationError as error:
        raise SettingsError("; ".join(_sentence(fault) for fault in error.errors())) from None


def _document(config: Path | None) -> dict[str, Any]:
    path = config or DEFAULT_CONFIG
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if config is None:
            return {}
        raise SettingsError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        merged[name] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _sentence(fault: Any) -> str:
    name = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"monitor.{name} is not a setting"
    if fault["type"] == "value_error":
        return f"monitor.{name}: {fault['ctx']['error']}"
    return f"monitor.{name}: {fault['msg'].lower()}, got {fault['input']!r}"
