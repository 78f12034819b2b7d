"""``tiltyard log``."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from server.errors import TiltyardError
from server.logbook.errors import LogbookError
from server.logbook.export import export_outbox, export_topic
from server.logbook.outbox_file import OutboxFile
from server.logbook.records import Topic
from server.logbook.selection import EventType, Selection, moment_of
from server.logbook.tail import tail_outbox, tail_topic
from server.logbook.tail_line import HEADING, tail_line

app = typer.Typer(
    name="log",
    help="Read, check and export the log of events, and let it forget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_SOURCE = "Log"
_SELECTION = "Selection"
_OUTBOX = Path("outbox.db")

Outbox = Annotated[
    Path | None,
    typer.Option(
        "--outbox",
        metavar="FILE",
        help="The embedded log; outbox.db by default.",
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
    str, typer.Option("--topic", metavar="TOPIC", help="The topic of events.", rich_help_panel=_SOURCE)
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
TOPIC = "tiltyard.events"


@app.command()
def tail(
    count: Annotated[int, typer.Option("-n", metavar="N", min=0, help="How many of the newest events.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new events until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the events as they are in the log.")] = False,
    outbox: Outbox = None,
    kafka: Kafka = None,
    topic: TopicName = TOPIC,
    model: Model = None,
    version: Version = None,
    type_: Type = None,
) -> None:
    """Show the newest events, one a line, and with --follow those that come."""
    selection = Selection(type_, model, version)
    with _ended_well(), _topic(outbox, kafka, topic) as reader:
        if reader is None:
            found = tail_outbox(outbox or _OUTBOX, selection, count, follow=follow)
        else:
            found = tail_topic(reader, selection, count, follow=follow)
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
    topic: TopicName = TOPIC,
    model: Model = None,
    version: Version = None,
    type_: Type = None,
) -> None:
    """Write events to a file: a table in Parquet, or as they are in NDJSON."""
    with _ended_well(), _topic(outbox, kafka, topic) as reader:
        now = datetime.now(UTC)
        selection = Selection(
            type_,
            model,
            version,
            None if start is None else moment_of(start, now),
            None if end is None else moment_of(end, now),
        )
        if reader is None:
            with OutboxFile(outbox or _OUTBOX) as log:
                exported = export_outbox(log, selection, out)
        else:
            exported = export_topic(reader, selection, out)
    typer.echo(f"{exported.events:,} events in {out}")
    if exported.malformed:
        _tell(f"left out {exported.malformed:,} lines that are no events; `tiltyard log verify` names the first")


@contextmanager
def _topic(outbox: Path | None, kafka: str | None, topic: str) -> Iterator[Topic | None]:
    """Gives the topic that is to be read, None where the embedded log is."""
    if kafka is None:
        yield None
        return
    if outbox is not None:
        raise LogbookError("expected one log to read, got --outbox and --kafka")
    with _open_topic(kafka, topic) as reader:
        yield reader


@contextmanager
def _open_topic(kafka: str, topic: str) -> Iterator[Topic]:
    try:
        # Optional extra `kafka`.
        from server.logbook.topic import TopicReader
    except ImportError:
        raise LogbookError("--kafka: expected aiokafka, got none; run: pip install 'tiltyard[kafka]'") from None
    with TopicReader(kafka, topic) as reader:
        yield reader


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
