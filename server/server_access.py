"""How commands reach a running server: the options that say so, and the token.

Each command adds ``--url`` itself: some need a server, to others it is one more source.
"""

from pathlib import Path
from typing import Annotated

import typer

from server.errors import SettingsError

SERVER_PANEL = "Server"


def _never_in_command(context: typer.Context, token: str | None) -> str | None:
    source = context.get_parameter_source("token")
    if token is not None and source is not None and source.name == "COMMANDLINE":
        assert context.parent is not None  # all commands that ask a server are of a group
        typer.echo(
            f"tiltyard {context.parent.info_name}: expected the token in --token-file or TILTYARD_TOKEN, got it in the "
            "command, where others read it",
            err=True,
        )
        raise typer.Exit(1)
    return token


TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="File with nothing but an API token; the variable TILTYARD_TOKEN may have the token itself instead.",
        rich_help_panel=SERVER_PANEL,
    ),
]
Token = Annotated[
    str | None,
    typer.Option("--token", envvar="TILTYARD_TOKEN", hidden=True, show_envvar=False, callback=_never_in_command),
]
Ca = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        metavar="FILE",
        help="Trust servers whose certificate this authority signed.",
        rich_help_panel=SERVER_PANEL,
    ),
]


def token_of(file: Path | None, token: str | None) -> str | None:
    """Returns the token to ask a server with, None without any.

    Args:
        file: of ``--token-file``, which wins.
        token: of the environment.

    Raises:
        SettingsError: the file cannot be read, or holds no token.
    """
    if file is None:
        return token
    try:
        return file.read_text("ascii").strip()
    except OSError as error:
        raise SettingsError(f"{file}: expected a readable file, got: {error.strerror}") from error
    except UnicodeDecodeError:
        raise SettingsError(f"{file}: expected a token, got something else") from None
