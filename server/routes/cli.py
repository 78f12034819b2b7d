"""``tiltyard route``."""

import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from server.contract.events import AUDIT_TYPE, decode_event
from server.errors import SettingsError, TiltyardError
from server.eventlog.log_reader import read_log
from server.routes.client import (
    AdminError,
    Answer,
    Change,
    Held,
    RouteClient,
    promoting,
    rolling_back,
    setting,
    sharing,
)
from server.routes.tables import (
    console_for,
    print_difference,
    print_entry,
    print_history,
    print_route,
)
from server.routes.watch import Away, Back, Changed, follow
from server.routing.changes import difference
from server.routing.document import format_route, route_schema
from server.routing.replay import route_at
from server.server_access import SERVER_PANEL, Ca, Token, TokenFile, token_of

app = typer.Typer(
    name="route",
    help="See and change which version of a model answers whom, on a running server.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_CHANGE = "Change"
_URL = "http://127.0.0.1:8080"

Model = Annotated[str, typer.Argument(metavar="MODEL", help="The name clients call.")]
Url = Annotated[
    str, typer.Option("--url", envvar="TILTYARD_URL", help="Where the server answers.", rich_help_panel=SERVER_PANEL)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Reason = Annotated[
    str | None, typer.Option("--reason", metavar="TEXT", help="Why; the history keeps it.", rich_help_panel=_CHANGE)
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would change, and change nothing.", rich_help_panel=_CHANGE)
]
Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="Do not ask; without a terminal nobody is asked.", rich_help_panel=_CHANGE)
]
Base = Annotated[
    int | None,
    typer.Option(
        "--revision",
        metavar="N",
        min=0,
        help="Change the route only if this revision holds; by default the one that holds as the command starts.",
        rich_help_panel=_CHANGE,
    ),
]


@dataclass(frozen=True, slots=True)
class _How:
    """How a change is made."""

    base: int | None
    dry_run: bool
    yes: bool
    as_json: bool


@app.command()
def show(
    model: Model,
    as_json: AsJson = False,
    url: Url = _URL,
    token_file: TokenFile = None,
    token: Token = None,
    ca: Ca = None,
) -> None:
    """Show which version answers whom.

    `--json` prints the whole document, which `set` takes back.
    """
    with _client(url, token_file, token, ca) as client:
        held = client.read(model)
    if as_json:
        typer.echo(format_route(held.route), nl=False)
    else:
        print_route(console_for(), model, held.route, held.revision)


@app.command("set")
def set_route(
    model: Model,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="The document: a .json or .toml file, or - for standard input.")
    ],
    reason: Reason = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    base: Base = None,
    as_json: AsJson = False,
    url: Url = _URL,
    token_file: TokenFile = None,
    token: Token = None,
    ca: Ca = None,
) -> None:
    """Replace the whole route by a document.

    A challenger that stays keeps its units as far as its share allows.
    """
    change = setting(*_document(file), reason)
    with _client(url, token_file, token, ca) as client:
        _make(client, model, change, _How(base, dry_run, yes, as_json))


@app.command()
def shares(
    model: Model,
    wanted: Annotated[
        list[str], typer.Argument(metavar="VERSION=SHARE", help="Challengers and their shares, as 0.1 or 10%.")
    ],
    reason: Reason = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    base: Base = None,
    as_json: AsJson = False,
    url: Url = _URL,
    token_file: TokenFile = None,
    token: Token = None,
    ca: Ca = None,
) -> None:
    """Give some challengers other shares.

    Units move between the champion and these challengers only.
    """
    change = sharing(_shares(wanted), reason)
    with _client(url, token_file, token, ca) as client:
        _make(client, model, change, _How(base, dry_run, yes, as_json))


@app.command()
def promote(
    model: Model,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="The new champion.")],
    reason: Reason = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    base: Base = None,
    as_json: AsJson = False,
    url: Url = _URL,
    token_file: TokenFile = None,
    token: Token = None,
    ca: Ca = None,
) -> None:
    """Make a version the champion; the one before leaves the route."""
    with _client(url, token_file, token, ca) as client:
        _make(client, model, promoting(version, reason), _How(base, dry_run, yes, as_json))


@app.command()
def rollback(
    model: Model,
    to: Annotated[int, typer.Argument(metavar="REVISION", min=0, help="The revision to return to; see `history`.")],
    reason: Reason = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    base: Base = None,
    as_json: AsJson = False,
    url: Url = _URL,
    token_file: TokenFile = None,
    token: Token = None,
    ca: Ca = None,
) -> None:
    """Return to an earlier revision, which becomes a new one."""
    with _client(url, token_file, token, ca) as client:
        _make(client, model, rolling_back(to, reason), _How(base, dry_run, yes, as_json))


@app.command()
def history(
    model: Model,
    limit: Annotated[int, typer.Option(min=1, help="How many revisions at most.")] = 20,
    as_json: AsJson = False,
    url: Url = _URL,
    token_file: TokenFile = None,
    token: Token = None,
    ca: Ca = None,
) -> None:
    """Show who changed the route when and why, the newest first."""
    with _client(url, token_file, token, ca) as client:
        entries = client.history(model, limit)
    if as_json:
        _print_json(entries)
    elif entries:
        print_history(console_for(), entries)
    else:
        typer.echo("nobody has changed the route yet", err=True)


@app.command()
def watch(
    model: Model,
    url: Url = _URL,
    token_file: TokenFile = None,
    token: Token = None,
    ca: Ca = None,
) -> None:
    """Show the route, and then every change as it comes, until Ctrl-C."""
    console = console_for()
    try:
        with _client(url, token_file, token, ca) as client:
            for seen in follow(client, model, time.sleep):
                if isinstance(seen, Held):
                    print_route(console, model, seen.route, seen.revision)
                elif isinstance(seen, Changed):
                    console.print()
                    if seen.entry is None:
                        console.print(f"revision {seen.after.revision}, which the history does not explain")
                    else:
                        print_entry(console, seen.entry)
                    print_difference(console, difference(seen.before, seen.after), seen.after)
                elif isinstance(seen, Away):
                    _tell(f"{seen.reason}; asking again every second")
                elif isinstance(seen, Back):
                    _tell("the server answers again")
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


@app.command("at")
def route_at_time(
    model: Model,
    moment: Annotated[
        str, typer.Argument(metavar="TIME", help="RFC 3339, such as 2026-03-01T12:00:00Z; without Z or offset, UTC.")
    ],
    outbox: Annotated[Path, typer.Option("--outbox", metavar="FILE", help="The event log.")] = Path("outbox.db"),
    as_json: AsJson = False,
) -> None:
    """Show which route held at a time of the past, out of the audit events of a server's log.

    Needs no server: the log's file is enough, and any replica's has every change.
    """
    when = _moment(moment)
    try:
        audits = (decode_event(line) for line in read_log(outbox) if AUDIT_TYPE in line)
        route = route_at(audits, model, when)
    except (TiltyardError, msgspec.DecodeError) as error:
        raise _end(str(error)) from error
    if route is None:
        raise _end(f"expected a change of the route of {model!r} in {outbox} by {moment}, found none")
    if as_json:
        typer.echo(format_route(route), nl=False)
    else:
        print_route(console_for(), model, route, route.revision)


@app.command()
def schema() -> None:
    """Print the JSON Schema of route documents."""
    _print_json(route_schema())


def _moment(text: str) -> datetime:
    try:
        when = msgspec.convert(text, datetime)
    except msgspec.ValidationError as error:
        raise _end(f"expected a time such as 2026-03-01T12:00:00Z, got {text}") from error
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)


def _make(client: RouteClient, model: str, change: Change, how: _How) -> None:
    """Shows what a change means, asks where there is somebody to ask, and makes it."""
    base = client.read(model).revision if how.base is None else how.base
    asks = not how.yes and not how.dry_run and sys.stdin.isatty() and sys.stderr.isatty()
    if asks:
        answer = client.change(model, change, base, dry_run=True)
        print_difference(console_for(stderr=how.as_json or not sys.stdout.isatty()), answer.difference, answer.route)
        if answer.route.revision != base and not typer.confirm("Change it?", err=True):
            raise _end("nothing was changed")
    answer = client.change(model, change, base, dry_run=how.dry_run)
    if how.as_json:
        _print_json(answer)
        return
    console = console_for()
    if not asks:
        print_difference(console, answer.difference, answer.route)
    _print_outcome(model, base, answer)


def _print_outcome(model: str, base: int, answer: Answer) -> None:
    if answer.route.revision == base:
        typer.echo(f"{model}: revision {base} stays")
    elif answer.dry_run:
        typer.echo(f"{model}: a dry run, revision {base} still holds")
    else:
        typer.echo(f"{model}: revision {answer.route.revision} holds, after {base}")


def _document(file: str) -> tuple[bytes, Literal["json", "toml"]]:
    """Returns a document's bytes and what they are; of standard input, TOML never begins with a brace."""
    if file == "-":
        document = sys.stdin.buffer.read()
        return document, "json" if document.lstrip().startswith(b"{") else "toml"
    form = Path(file).suffix.lower()
    if form not in (".json", ".toml"):
        raise _end(f"expected a .json or .toml file, or - for standard input, got {file}")
    return _read(Path(file)), "json" if form == ".json" else "toml"


def _shares(wanted: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for each in wanted:
        version, equals, text = each.rpartition("=")
        if not version or not equals:
            raise _end(f"expected VERSION=SHARE, such as 3=10%, got {each}")
        if version in found:
            raise _end(f"expected every version once, got {version} twice")
        found[version] = _share(text)
    return found


def _share(text: str) -> float:
    number = text.strip()
    is_percent = number.endswith("%")
    try:
        share = Decimal(number.removesuffix("%").strip()) / (100 if is_percent else 1)
    except InvalidOperation:
        share = Decimal("nan")
    if not share.is_finite() or not 0 <= share <= 1:
        raise _end(f"expected a share from 0 to 1, or from 0% to 100%, got {text}")
    return float(share)


@contextmanager
def _client(url: str, token_file: Path | None, token: str | None, ca: Path | None) -> Iterator[RouteClient]:
    """Opens a client for a command, which ends with what goes wrong."""
    try:
        with closing(RouteClient(url, token_of(token_file, token), ca)) as client:
            yield client
    except SettingsError as error:
        raise _end(str(error)) from error
    except AdminError as error:
        raise _end(str(error), error.faults) from error


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise _end(f"{file}: expected a readable file, got: {error.strerror}") from error


def _print_json(value: object) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def _tell(sentence: str) -> None:
    typer.echo(f"tiltyard route: {sentence}", err=True)


def _end(sentence: str, faults: list[str] | None = None) -> typer.Exit:
    """Says why a command ends; a route's faults one a line."""
    if faults:
        sentence = "the server refused the route; its faults:" + "".join(f"\n  {fault}" for fault in faults)
    _tell(sentence)
    return typer.Exit(1)
