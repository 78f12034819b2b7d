"""``tiltyard log``."""

import getpass
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from pydantic import ValidationError

from server.contract.events import decode_event
from server.errors import TiltyardError
from server.eventlog.erasure import Order, find
from server.logbook.balance_table import print_findings
from server.logbook.errors import LogbookError
from server.logbook.export import export_outbox, export_topic
from server.logbook.forget import forget_here
from server.logbook.forget_client import Forgot, order_forgetting
from server.logbook.outbox_file import OutboxFile
from server.logbook.records import Topic
from server.logbook.selection import EventType, Selection, moment_of
from server.logbook.server_counters import read_counters
from server.logbook.tail import tail_outbox, tail_topic
from server.logbook.tail_line import HEADING, tail_line
from server.logbook.verification import Others, verify
from server.server_access import SERVER_PANEL, Ca, Token, TokenFile, token_of
from server.settings import KafkaSettings, load_settings

app = typer.Typer(
    name="log",
    help="Read, check and export the log of events, and let it forget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_SHOWN = 20
_SOURCE = "Log"
_SELECTION = "Selection"

Outbox = Annotated[
    Path | None,
    typer.Option(
        "--outbox",
        metavar="FILE",
        help="The embedded log; that of the settings by default, outbox.db.",
        rich_help_panel=_SOURCE,
    ),
]
Kafka = Annotated[
    str | None,
    typer.Option(
        "--kafka",
        metavar="SERVERS",
        help="Brokers to ask first, host:port,host:port (extra kafka).",
        rich_help_panel=_SOURCE,
    ),
]
TopicName = Annotated[
    str | None,
    typer.Option(
        "--topic",
        metavar="TOPIC",
        help="The topic of events; that of the settings by default, tiltyard.events.",
        rich_help_panel=_SOURCE,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings file, for the outbox and how brokers are reached; tiltyard.toml of this folder by default.",
        rich_help_panel=_SOURCE,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="MODEL", help="Only of this model; a label may name none.", rich_help_panel=_SELECTION
    ),
]
Version = Annotated[
    str | None,
    typer.Option("--version", metavar="VERSION", help="Only answers of this version.", rich_help_panel=_SELECTION),
]
Type = Annotated[EventType | None, typer.Option("--type", help="Only events of this type.", rich_help_panel=_SELECTION)]


@app.command()
def tail(
    count: Annotated[int, typer.Option("-n", metavar="N", min=0, help="How many of the newest events.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new events until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the events as they are in the log.")] = False,
    outbox: Outbox = None,
    kafka: Kafka = None,
    topic: TopicName = None,
    config: Config = None,
    model: Model = None,
    version: Version = None,
    type_: Type = None,
) -> None:
    """Show the newest events, one a line, and with --follow those that come."""
    selection = Selection(type_, model, version)
    with _ended_well(), _log(outbox, kafka, topic, config) as log:
        if isinstance(log, OutboxFile):
            found = tail_outbox(log, selection, count, follow=follow)
        else:
            found = tail_topic(log, selection, count, follow=follow)
        if not as_json:
            typer.echo(HEADING)
        for line, event in found:
            if as_json:
                sys.stdout.buffer.write(line + b"\n")
                sys.stdout.buffer.flush()
            else:
                typer.echo(tail_line(event))


@app.command()
def export(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="FILE.parquet (extra log) or FILE.ndjson.")],
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TIME",
            help="Events from then on: RFC 3339, UTC without an offset, or so long ago as 90s, 15m, 2h, 3d.",
            rich_help_panel=_SELECTION,
        ),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option("--to", metavar="TIME", help="Events before then, likewise.", rich_help_panel=_SELECTION),
    ] = None,
    outbox: Outbox = None,
    kafka: Kafka = None,
    topic: TopicName = None,
    config: Config = None,
    model: Model = None,
    version: Version = None,
    type_: Type = None,
) -> None:
    """Write events to a file: a table in Parquet, or as they are in NDJSON."""
    with _ended_well(), _log(outbox, kafka, topic, config) as log:
        now = datetime.now(UTC)
        selection = Selection(
            type_,
            model,
            version,
            None if start is None else moment_of(start, now),
            None if end is None else moment_of(end, now),
        )
        exported = (
            export_outbox(log, selection, out) if isinstance(log, OutboxFile) else export_topic(log, selection, out)
        )
    typer.echo(f"{exported.events:,} events in {out}")
    if exported.malformed:
        _tell(f"left out {exported.malformed:,} lines that are no events; `tiltyard log verify` names the first")


@app.command("verify")
def verify_log(
    outbox: Outbox = None,
    kafka: Kafka = None,
    topic: TopicName = None,
    config: Config = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            metavar="URL",
            help="The server that writes the outbox, such as http://127.0.0.1:8080; its counters are held against it.",
            rich_help_panel=SERVER_PANEL,
        ),
    ] = None,
    token_file: TokenFile = None,
    token: Token = None,
    ca: Ca = None,
    scratch: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Takes 64 bytes an event meanwhile; the system's folder by default."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the balance as JSON.")] = False,
) -> None:
    """Prove that nothing is lost, doubled or damaged: server, outbox and topic held against each other.

    Status 0 when all balances, 1 with what does not.
    """
    with _ended_well():
        secret = token_of(token_file, token)
        counters = None if url is None else partial(read_counters, url, secret, ca)
        settings = load_settings(config, outbox=outbox)
        name = topic or settings.kafka.events_topic
        with OutboxFile(settings.outbox) as log, ExitStack() as stack:
            reader = None if kafka is None else stack.enter_context(_open_topic(settings.kafka, kafka, name))
            findings = verify(log, Others(reader, name, counters), scratch)
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(findings), indent=2))
    else:
        print_findings(findings)
    if findings.faults:
        raise typer.Exit(1)


@app.command("forget")
def forget_events(
    ids: Annotated[
        list[str] | None,
        typer.Option("--id", metavar="REQUEST_ID", help="A request whose events go; may be given again."),
    ] = None,
    column: Annotated[
        str | None, typer.Option(metavar="NAME", help="An input column: all requests with --value in it go.")
    ] = None,
    value: Annotated[
        str | None, typer.Option(metavar="VALUE", help="What stands in --column, or - to read it from standard input.")
    ] = None,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; the audit event keeps it.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; without a terminal nobody is asked.")] = False,
    outbox: Outbox = None,
    config: Config = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            metavar="URL",
            help="The server that has the log open, such as http://127.0.0.1:8080; it does the work.",
            rich_help_panel=SERVER_PANEL,
        ),
    ] = None,
    token_file: TokenFile = None,
    token: Token = None,
    ca: Ca = None,
) -> None:
    """Remove for good what the log holds on requests: what was asked, answered and labelled.

    Each event stays in its place, as one that says it was forgotten; an audit event tells who ordered it and how many
    events went, never what they held.
    """
    with _ended_well():
        order = Order(ids=ids or [], column=column, value=sys.stdin.readline().rstrip("\n") if value == "-" else value)
        if order.fault is not None:
            raise LogbookError(f"--id, --column, --value: {order.fault}")
        if url is not None:
            secret = token_of(token_file, token)
            send = partial(order_forgetting, url, secret, ca, order, reason)
            hit = send(dry_run=True)
            if not _goes_on(hit.events, hit.requests, dry_run, yes):
                return
            _tell_forgotten(send(dry_run=False))
            return
        settings = load_settings(config, outbox=outbox)
        found, lines = find(settings.outbox, order)
        _show_hits(lines, found.events)
        if _goes_on(found.events, len(found.requests), dry_run, yes):
            _tell_forgotten(forget_here(settings, order, found, getpass.getuser(), reason))
        if found.damaged:
            _tell(f"{found.damaged} chunks are damaged and were not searched; `tiltyard log verify` names them")
            raise typer.Exit(1)


def _show_hits(lines: Iterator[tuple[int, bytes]], events: int) -> None:
    """Prints the first events that are hit."""
    if events:
        typer.echo(HEADING)
    for offset, line in islice(lines, _SHOWN):
        try:
            typer.echo(tail_line(decode_event(line)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            typer.echo(f"offset {offset}: no event that this version knows")
    if events > _SHOWN:
        typer.echo(f"and {events - _SHOWN:,} more")


def _goes_on(events: int, requests: int, dry_run: bool, yes: bool) -> bool:
    """Says what would be done, and whether it is to be; asks where there is somebody to ask."""
    typer.echo(f"{events:,} events of {requests:,} requests" + (" would be forgotten" if dry_run and events else ""))
    if dry_run or not events:
        return False
    if not yes and sys.stdin.isatty() and sys.stderr.isatty() and not typer.confirm("Forget them for good?", err=True):
        raise LogbookError("nothing was changed")
    return True


def _tell_forgotten(forgot: Forgot) -> None:
    typer.echo(f"{forgot.events:,} events of {forgot.requests:,} requests are forgotten")
    if forgot.set_aside:
        typer.echo(f"and {forgot.set_aside:,} entries of what was set aside")
    if forgot.shipped:
        _tell(f"{forgot.shipped:,} of them are in the Kafka topic as well, until its retention removes them there")


@contextmanager
def _log(
    outbox: Path | None, kafka: str | None, topic: str | None, config: Path | None
) -> Iterator[OutboxFile | Topic]:
    """Gives the topic where brokers are named, else the embedded log."""
    if outbox is not None and kafka is not None:
        raise LogbookError("expected one log to read, got --outbox and --kafka")
    settings = load_settings(config, outbox=outbox)
    with ExitStack() as stack:
        if kafka is None:
            yield stack.enter_context(OutboxFile(settings.outbox))
        else:
            yield stack.enter_context(_open_topic(settings.kafka, kafka, topic or settings.kafka.events_topic))


def _open_topic(settings: KafkaSettings, kafka: str, topic: str) -> AbstractContextManager[Topic]:
    """Returns a topic to open; settings: how brokers are reached; kafka: which."""
    try:
        # Optional extra `kafka`.
        from server.logbook.topic import TopicReader
    except ImportError:
        raise LogbookError("--kafka: expected aiokafka, got none; run: pip install 'tiltyard[kafka]'") from None
    try:
        found = KafkaSettings.model_validate({**settings.model_dump(), "bootstrap_servers": kafka})
    except ValidationError as error:
        raise LogbookError(f"--kafka: {error.errors()[0]['msg']}") from error
    return TopicReader(found, topic)


@contextmanager
def _ended_well() -> Iterator[None]:
    """Ends a command with what goes wrong in one sentence, and with status 0 at Ctrl-C and where nobody reads on."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    except BrokenPipeError:
        # What is still in the buffer would be written at exit, and fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except TiltyardError as error:
        _tell(str(error))
        raise typer.Exit(1) from error


def _tell(sentence: str) -> None:
    typer.echo(f"tiltyard log: {sentence}", err=True)
