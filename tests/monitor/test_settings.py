import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from monitor.errors import SettingsError
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


@pytest.mark.parametrize(
    ("flags", "toml", "sentence"),
    [
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
