"""Commands that ask a running server get its token from a file or the environment, and from nowhere else."""

import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from server.errors import SettingsError
from server.logbook.cli import app as log
from server.routes.cli import app as route
from server.server_access import token_of

TOKEN = "tyd_secret"
COMMANDS = [
    pytest.param(route, ["show", "flight"], id="route"),
    pytest.param(log, ["verify", "--url", "http://127.0.0.1:1"], id="log"),
    pytest.param(log, ["forget", "--id", "r", "--url", "http://127.0.0.1:1"], id="forget"),
]


@pytest.mark.parametrize(("app", "command"), COMMANDS)
def test_a_token_in_the_command_is_refused(app: typer.Typer, command: list[str]) -> None:
    """Other users of the machine see what stands there; the sentence says where it may be, and never repeats it."""
    result = CliRunner().invoke(app, [*command, "--token", TOKEN])

    assert (result.exit_code, result.stdout) == (1, "")
    assert f"tiltyard {app.info.name}: expected the token in --token-file or TILTYARD_TOKEN" in result.stderr
    assert TOKEN not in result.output


@pytest.mark.parametrize(("app", "command"), COMMANDS)
def test_no_help_offers_it(app: typer.Typer, command: list[str]) -> None:
    """Of the two ways that there are, both are named."""
    shown = CliRunner().invoke(app, [command[0], "--help"], env={"COLUMNS": "300"}).stdout

    assert re.search(r"--token\s", shown) is None
    assert "--token-file" in shown
    assert "TILTYARD_TOKEN" in shown


def test_the_file_wins_over_the_environment(tmp_path: Path) -> None:
    """Without the newline at its end; without either there is no token."""
    (tmp_path / "token").write_text("of-file\n")

    assert ["of-file", "of-environment", None] == [
        token_of(tmp_path / "token", "of-environment"),
        token_of(None, "of-environment"),
        token_of(None, None),
    ]


@pytest.mark.parametrize(
    ("content", "sentence"), [(None, "expected a readable file"), (b"\xff\xfe", "expected a token, got something else")]
)
def test_a_file_without_a_token_is_refused(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    """It is named; what is in it is not repeated."""
    if content is not None:
        (tmp_path / "token").write_bytes(content)

    with pytest.raises(SettingsError, match=f"{tmp_path / 'token'}: {sentence}"):
        token_of(tmp_path / "token", None)
