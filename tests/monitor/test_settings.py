import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from monitor.errors import SettingsError
from monitor.kafka_credentials import connection
from monitor.settings import MonitorSettings, load


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


_NEEDED = {"models": "m", "outbox": "o/outbox.db"}


def test_each_source_wins_over_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flag, environment, file, default, in this order, also inside a group."""
    (tmp_path / "tiltyard.toml").write_text(
        'models = "file"\noutbox = "file.db"\n[monitor]\nport = 1\nhost = "file"\n'
        "[monitor.join]\nttl_s = 1\nmaturity_s = 1\nmax_open = 1\n"
    )
    monkeypatch.setenv("TILTYARD_OUTBOX", "shared.db")
    monkeypatch.setenv("TILTYARD_MONITOR_PORT", "2")
    monkeypatch.setenv("TILTYARD_MONITOR_JOIN__TTL_S", "2")
    monkeypatch.setenv("TILTYARD_MONITOR_JOIN__MATURITY_S", "2")

    found = load({"port": 3, "join": {"ttl_s": 3}})

    assert (Path("file"), Path("shared.db"), "file", 3) == (found.models, found.outbox, found.host, found.port)
    assert (3, 2, 1) == (found.join.ttl_s, found.join.maturity_s, found.join.max_open)
    assert found.pane.length_s == 60


def test_the_state_stands_beside_the_outbox() -> None:
    """Without --state the file is monitor.db in the outbox's folder."""
    assert load(_NEEDED).state_file == Path("o/monitor.db")
    assert load({**_NEEDED, "state": "s.db"}).state_file == Path("s.db")


def test_kafka_is_shared_with_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's table and variables hold for the monitor, whose own win; the rest of them is passed over."""
    (tmp_path / "tiltyard.toml").write_text(
        '[kafka]\nbootstrap_servers = "a:1"\nevents_topic = "file"\nroutes_topic = "r"\nusername = "file"\n'
        '[monitor.kafka]\ngroup = "own"\n'
    )
    monkeypatch.setenv("TILTYARD_KAFKA__EVENTS_TOPIC", "shared")
    monkeypatch.setenv("TILTYARD_KAFKA__COMPRESSION", "zstd")
    monkeypatch.setenv("TILTYARD_MONITOR_KAFKA__USERNAME", "own")

    found = load({}).kafka

    assert ("a:1", "shared", "own", "own") == (
        found.bootstrap_servers,
        found.events_topic,
        found.group,
        found.username,
    )


def test_no_password_is_shown(tmp_path: Path) -> None:
    """The settings hold the file's name, and what a client is told is made when it is needed."""
    (tmp_path / "password").write_text("s3cret\n")
    kafka = {
        "bootstrap_servers": "a:1",
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-256",
        "username": "me",
        "password_file": tmp_path / "password",
    }

    settings = load({"kafka": kafka})

    assert "s3cret" not in repr(settings)
    assert {"sasl_plain_username": "me", "sasl_plain_password": "s3cret"}.items() <= connection(settings.kafka).items()


@pytest.mark.parametrize(
    ("file", "sentence"),
    [("password_file", "password_file: .*gone cannot be read"), ("ca", "the files of TLS .* cannot be used")],
)
def test_a_file_of_credentials_that_cannot_be_used_is_named(tmp_path: Path, file: str, sentence: str) -> None:
    """A missing file is said at the start, not when a broker is asked."""
    kafka = {
        "security_protocol": "SASL_SSL",
        "username": "me",
        "password_file": tmp_path / "password",
        file: tmp_path / "gone",
    }
    (tmp_path / "password").write_text("secret")

    with pytest.raises(SettingsError, match=sentence):
        connection(load({"kafka": kafka}).kafka)


@pytest.mark.parametrize(
    ("flags", "toml", "sentence"),
    [
        ({"kafka": {"bootstrap_servers": "a"}}, "", "monitor.kafka.bootstrap_servers: expected host:port"),
        ({"kafka": {"key": "k"}}, "", "monitor.kafka: expected certificate and key together, got one of them"),
        ({}, "kafka = 1", r"expected a table \[kafka\], got 1"),
        (
            {"kafka": {"security_protocol": "SASL_SSL"}},
            "",
            "monitor.kafka: expected username, password_file with SASL_SSL and PLAIN, got none of username, password",
        ),
        (
            {"kafka": {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", "client_id": "c"}},
            "",
            "expected token_url, client_id, client_secret_file with .* got none of token_url, client_secret_file$",
        ),
        ({"kafka": {"token_url": "ftp://a"}}, "", "monitor.kafka.token_url: "),
        ({**_NEEDED, "join": {"ttl_s": -1}}, "", r"monitor.join.ttl_s: input should be greater than 0, got -1"),
        (_NEEDED, "[monitor]\nportt = 1", "monitor.portt is not a setting"),
        (_NEEDED, "[monitor.pane]\nlength = 1", "monitor.pane.length is not a setting"),
        (_NEEDED, "[monitor", "tiltyard.toml cannot be read"),
        (_NEEDED, "monitor = 1", r"expected a table \[monitor\], got 1"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(
    tmp_path: Path, flags: dict[str, object], toml: str, sentence: str
) -> None:
    """A mistake is one sentence that names the setting and what came."""
    config = tmp_path / "tiltyard.toml"
    config.write_text(toml)

    with pytest.raises(SettingsError, match=sentence):
        load(flags, config)


def test_a_file_that_was_named_must_exist() -> None:
    """A --config that is not there is an error, a missing default is not."""
    with pytest.raises(SettingsError, match=r"other\.toml: no such file"):
        load(_NEEDED, Path("other.toml"))


def _rows(model: type[BaseModel], prefix: str = "") -> list[str]:
    rows = []
    for name, field in model.model_fields.items():
        assert field.description or isinstance(field.default, BaseModel), f"{prefix}{name} has no description"
        if isinstance(field.default, BaseModel):
            rows += _rows(type(field.default), f"{prefix}{name}.")
        else:
            default = "" if field.is_required() or field.default is None else f"{field.default}"
            rows.append(f"| `{prefix}{name}` | {default} | {field.description} |")
    return rows


def test_the_readme_lists_every_setting() -> None:
    """The settings table in monitor/README.md is the settings, with their defaults and descriptions."""
    readme = Path(load.__code__.co_filename).with_name("README.md").read_text(encoding="utf-8")

    table = re.findall(r"^\| `.*$", readme, flags=re.MULTILINE)

    assert _rows(MonitorSettings) == table
