"""``tiltyard token``."""

import json
import os
import tempfile
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from server.errors import SettingsError
from server.protection.tokens import Token, hash_of, new_token, read_tokens

app = typer.Typer(
    name="token",
    help="Make, list and revoke API tokens. A running server obeys the file without a restart.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_ENTRY = "[[token]]"


class ScopeName(StrEnum):
    """What a token can be for."""

    infer = "infer"
    feedback = "feedback"
    admin = "admin"
    metrics = "metrics"


TokenFile = Annotated[Path, typer.Option("--file", metavar="FILE", help="The file of tokens.")]
_FILE = Path("tokens.toml")


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Who will have it; changes are logged under this name.")],
    scope: Annotated[list[ScopeName], typer.Option(help="What it is for; give it once for each.")],
    rate: Annotated[float | None, typer.Option(min=0.001, help="Requests a second at most.")] = None,
    burst: Annotated[
        int | None, typer.Option(min=1, help="Requests at once at most; a second's worth without.")
    ] = None,
    file: TokenFile = _FILE,
) -> None:
    """Make a token, show it once, and keep its hash."""
    if burst is not None and rate is None:
        raise _end("expected --rate beside --burst, got none")
    if file.exists() and name in {token.name for token in _read(file)}:
        raise _end(f"expected a new name, {name!r} is in {file} already; revoke it first")
    token = new_token()
    scopes = ", ".join(f'"{each.value}"' for each in dict.fromkeys(scope))
    lines = [_ENTRY, f"name = {_quoted(name)}", f'sha256 = "{hash_of(token)}"', f"scopes = [{scopes}]"]
    lines += [] if rate is None else [f"requests_per_s = {rate}"]
    lines += [] if burst is None else [f"burst = {burst}"]
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    gap = "" if not before else "\n" if before.endswith("\n") else "\n\n"
    _write(file, before + gap + "\n".join(lines) + "\n")
    typer.echo(f"{name}: kept in {file}; this is the only time the token is shown", err=True)
    typer.echo(token)


@app.command("list")
def list_tokens(file: TokenFile = _FILE) -> None:
    """Show names, scopes and rates."""
    table = Table("name", "scopes", "requests/s", "at once")
    for token in _read(file):
        rate = "" if token.requests_per_s is None else f"{token.requests_per_s:g}"
        table.add_row(token.name, ", ".join(token.scopes), rate, "" if token.burst is None else str(token.burst))
    Console().print(table)


@app.command()
def revoke(name: Annotated[str, typer.Argument(help="The name it was made under.")], file: TokenFile = _FILE) -> None:
    """Take a token away; a running server refuses it within a second."""
    tokens = _read(file)
    places = [place for place, token in enumerate(tokens) if token.name == name]
    if not places:
        raise _end(f"expected a name in {file}, among {[token.name for token in tokens]}, got {name!r}")
    text = _without(file.read_text(encoding="utf-8"), places[0])
    left = [token.name for token in tokens if token.name != name]
    try:
        found = [entry["name"] for entry in tomllib.loads(text).get("token", [])]
    except (tomllib.TOMLDecodeError, KeyError):
        found = None
    if found != left:
        raise _end(f"{file} is written in a way that only a person can edit: take the entry {name!r} out by hand")
    _write(file, text)
    typer.echo(f"{name}: revoked; left: {', '.join(left) or 'none'}", err=True)


def _without(text: str, place: int) -> str:
    """Returns the file's text without its entry of that place; comments above an entry stay with what is before it."""
    lines = text.splitlines(keepends=True)
    starts = [number for number, line in enumerate(lines) if line.split("#")[0].strip() == _ENTRY]
    if place >= len(starts):  # its header is written in another way
        return text
    end = starts[place] + 1
    while end < len(lines) and lines[end].split("#")[0].strip() not in ("", _ENTRY):
        end += 1
    return "".join(lines[: starts[place]] + lines[end:]).strip("\n") + "\n"


def _read(file: Path) -> list[Token]:
    try:
        return read_tokens(file)
    except SettingsError as error:
        raise _end(str(error)) from error


def _end(sentence: str) -> typer.Exit:
    typer.echo(f"tiltyard token: {sentence}", err=True)
    return typer.Exit(1)


def _quoted(text: str) -> str:
    return json.dumps(text)  # what JSON escapes, TOML escapes the same way


def _write(file: Path, text: str) -> None:
    """Replaces the file in one step, with its mode and owner; a new one is its owner's alone."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    with os.fdopen(handle, "w", encoding="utf-8") as new_file:
        new_file.write(text)
        new_file.flush()
        os.fsync(new_file.fileno())
    if file.exists():
        status = file.stat()
        os.chmod(name, status.st_mode & 0o777)
        if os.geteuid() == 0:
            os.chown(name, status.st_uid, status.st_gid)
    os.replace(name, file)
