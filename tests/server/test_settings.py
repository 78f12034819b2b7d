"""Where settings come from, and what is said of one that cannot be used."""

import re
from pathlib import Path

import pytest

from server.errors import SettingsError
from server.settings import EventSettings, LimitSettings, load_settings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without a tiltyard.toml."""
    monkeypatch.chdir(tmp_path)


def test_without_any_source_the_defaults_hold() -> None:
    """An empty folder and an empty environment are enough to start."""
    settings = load_settings()

    assert (settings.host, settings.port, settings.models) == ("127.0.0.1", 8080, "models")
    assert (settings.events, settings.limits) == (EventSettings(), LimitSettings())  # type: ignore[call-arg]


def test_the_file_of_the_present_folder_is_read_and_a_named_one_instead_of_it(tmp_path: Path) -> None:
    """`tiltyard.toml` needs no flag; --config replaces it and is not laid over it."""
    (tmp_path / "tiltyard.toml").write_text('port = 1\nhost = "here"\n')
    (tmp_path / "other.toml").write_text("port = 2\n")

    here, other = load_settings(), load_settings(tmp_path / "other.toml")

    assert (here.port, here.host) == (1, "here")
    assert (other.port, other.host) == (2, "127.0.0.1")


def test_a_table_is_completed_and_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One member from the environment leaves the file's other members of the same table as they are."""
    (tmp_path / "tiltyard.toml").write_text('[events]\nwhen_full = "block"\ndurability = "commit"\n')
    monkeypatch.setenv("TILTYARD_EVENTS__DURABILITY", "async")

    events = load_settings().events

    assert (events.when_full, events.durability, events.commit_interval_ms) == ("block", "async", 5.0)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("TILTYARD_PORT", "x", "port: "),
        ("TILTYARD_PORT", "70000", "port: "),
        ("TILTYARD_LIMITS__BODY_BYTES", "1", "limits.body_bytes: "),
        ("TILTYARD_EVENTS__TYPO", "1", "events.typo: "),
        ("TILTYARD_EVENTS__COMMIT_INTERVAL_MS", "nan", "events.commit_interval_ms: "),
        ("TILTYARD_EVENTS__COMMIT_INTERVAL_MS", "21", "events.commit_interval_ms: "),
        ("TILTYARD_EVENTS", "few", '"events"'),
        ("TILTYARD_LOG_LEVEL", "loud", "log_level: "),
        ("TILTYARD_KAFKA__BOOTSTRAP_SERVERS", "here", "kafka.bootstrap_servers: "),
        ("TILTYARD_KAFKA__BOOTSTRAP_SERVERS", "here:9092, there:9092", "kafka.bootstrap_servers: "),
        ("TILTYARD_KAFKA__BOOTSTRAP_SERVERS", "here:99999", "kafka.bootstrap_servers: "),
        ("TILTYARD_KAFKA__BOOTSTRAP_SERVERS", "", "kafka.bootstrap_servers: "),
        ("TILTYARD_KAFKA__ROUTES_TOPIC", "a/b", "kafka.routes_topic: "),
        ("TILTYARD_KAFKA__REPLICATION_FACTOR", "0", "kafka.replication_factor: "),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    """The sentence names the setting, and never blames the file for it."""
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError, match=re.escape(sentence)) as caught:
        load_settings()

    assert str(caught.value).startswith("settings: ")


@pytest.mark.parametrize("content", [b"port = ", b"\xff\xfe", b"port = 1\nport = 2", b"[events", b"= 1"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes) -> None:
    """Cut short, not UTF-8, a key twice: the file is named."""
    (tmp_path / "tiltyard.toml").write_bytes(content)

    with pytest.raises(SettingsError, match=r"config tiltyard\.toml: expected TOML, got a file that is not"):
        load_settings()


def test_a_file_that_is_a_folder_or_none_is_refused(tmp_path: Path) -> None:
    """A file that is asked for must be there."""
    for path in (tmp_path, tmp_path / "none.toml"):
        with pytest.raises(SettingsError, match="expected a TOML file, found none"):
            load_settings(path)


@pytest.mark.parametrize("servers", ["here:9092", "10.0.0.1:9092,kafka-2.example.org:9093", "[::1]:9092"])
def test_brokers_are_named_by_host_and_port(monkeypatch: pytest.MonkeyPatch, servers: str) -> None:
    """Names, addresses of both families, one or several."""
    monkeypatch.setenv("TILTYARD_KAFKA__BOOTSTRAP_SERVERS", servers)

    assert load_settings().kafka.bootstrap_servers == servers


def test_kafka_without_its_client_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever installed the server without the extra is told what to run, and not by a traceback later."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("TILTYARD_KAFKA__BOOTSTRAP_SERVERS", "here:9092")

    with pytest.raises(SettingsError, match=re.escape("run: pip install 'tiltyard[kafka]'")):
        load_settings()
