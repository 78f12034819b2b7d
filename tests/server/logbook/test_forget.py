"""``tiltyard log forget``: what is forgotten is in no file any more, and everything else stays as it was."""

import asyncio
import base64
import contextlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec
import pytest
from click.testing import Result

from monitor.fold import Fold, FoldLimits, PaneKey
from monitor.sources.bundles import BundleFolder
from monitor.version_profile import VersionKey
from server.contract.events import Answer, Audited, Event, Label, Labelled, decode_event, encode_event
from server.eventlog import erasure
from server.eventlog.erasure import Order, erase, find
from server.eventlog.log_reader import read_log
from server.eventlog.outbox import Outbox
from server.eventlog.set_aside import SetAside, set_aside, set_aside_file
from server.eventlog.shipped import Shipped, write_shipped
from server.identifiers import uuid7
from server.settings import EventSettings
from tests.kafka.broker import Broker
from tests.server.live_server import Running, tensors
from tests.server.logbook.conftest import INFER, PARTITIONS, shipped_whole

Command = Callable[..., Result]
SECRET = "N8-secret-tail-47"
PERSON = "person-4711-secret"


def ask(client: httpx.Client, request_id: str, carrier: str = "UA", **changes: object) -> None:
    """Asks for a prediction of a request with a carrier."""
    request = tensors(id=request_id, **changes)
    request["inputs"][0]["data"] = [carrier]  # type: ignore[index]
    assert client.post(INFER, json=request).status_code == 200


def filled(server: Running) -> Running:
    """Makes events of a person and of others: answers, shadows, a refusal, labels."""
    ask(server.client, "other-1")
    ask(server.client, PERSON, SECRET)
    ask(server.client, "other-2", SECRET)
    for value in ("UA", "AA"):
        ask(server.client, "other-3", value)
    server.client.post(INFER, json={"id": PERSON, "inputs": []})
    for request_id in (PERSON, "other-2", "other-3"):
        assert server.client.post("/v1/feedback", json={"id": request_id, "label": 1}).status_code == 202
    server.events()
    return server


def stop(server: Running) -> None:
    """Ends a server as people do."""
    server.process.terminate()
    assert server.process.wait(20) == 0


@pytest.fixture
def server(serve: Callable[..., Running], packed: Path) -> Running:
    """A server with events of a person and of others."""
    return filled(serve(packed))


@pytest.fixture(scope="module")
def left(serve_module: Callable[..., Running], packed: Path) -> Path:
    """The log of a server that has ended, for all tests."""
    server = filled(serve_module(packed))
    stop(server)
    return server.outbox


@pytest.fixture
def stopped(left: Path, tmp_path: Path) -> Path:
    """A copy of the log of a server that has ended."""
    return Path(shutil.copy(left, tmp_path))


def events(log: Path) -> list[Event]:
    """Returns all events of a log."""
    return [decode_event(line) for line in read_log(log)]


def files_with(log: Path, text: str) -> list[str]:
    """Returns the names of the log's files in which a text stands."""
    return [each.name for each in log.parent.glob(log.name + "*") if text.encode() in each.read_bytes()]


def test_nothing_of_a_request_is_left_in_any_file(run: Command, stopped: Path) -> None:
    """Neither its id nor what was asked with it; offsets, event ids, times and all other events stay."""
    before = events(stopped)
    assert files_with(stopped, PERSON) == ["outbox.db"]

    result = run("forget", "--outbox", stopped, "--id", PERSON, "--reason", "asked for it")

    after = events(stopped)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "4 events of 1 requests are forgotten" in result.stdout
    assert files_with(stopped, PERSON) == []
    assert [event.id for event in before] == [event.id for event in after[:-1]]
    assert [event.time for event in before] == [event.time for event in after[:-1]]
    kept = [(one, two) for one, two in zip(before, after, strict=False) if one.subject != PERSON]
    assert all(one == two for one, two in kept)
    assert len(before) - len(kept) == 4


def test_what_is_forgotten_keeps_what_counts_need(run: Command, stopped: Path) -> None:
    """Model, version, role, status, latency, rows; no bucket, no label, no error, and one new name for the request."""
    before = {event.id: event for event in events(stopped) if event.subject == PERSON}

    run("forget", "--outbox", stopped, "--id", PERSON)

    after = [event for event in events(stopped) if event.id in before]
    for event in after:
        old = before[event.id].data
        if isinstance(old, Answer):
            assert isinstance(event.data, Answer)
            kept = ("model", "version", "role", "rule", "share", "revision", "status", "latency_us", "rows")
            assert [getattr(old, name) for name in kept] == [getattr(event.data, name) for name in kept]
            assert event.data.forgotten
            assert (event.data.inputs, event.data.outputs, event.data.bucket) == (msgspec.UNSET, msgspec.UNSET, None)
            assert event.data.error == (None if old.error is None else "forgotten")
        else:
            assert event.data == Label(forgotten=True)
    names = {event.subject for event in after} | {event.partitionkey for event in after}
    assert len(names) == 1
    assert names.pop().startswith("forgotten-")


def test_an_audit_event_says_who_when_and_how_many(run: Command, stopped: Path) -> None:
    """Never the value, nor the id."""
    run("forget", "--outbox", stopped, "--column", "carrier", "--value", SECRET, "--reason", "because")

    last = events(stopped)[-1]
    assert isinstance(last, Audited)
    assert (last.data.action, last.data.reason, bool(last.data.by)) == ("log.forget", "because", True)
    assert json.loads(bytes(last.data.after)) == {"events": 7, "requests": 2, "column": "carrier"}  # type: ignore[arg-type]


def test_a_value_in_a_column_takes_all_of_its_requests(run: Command, stopped: Path) -> None:
    """Answers, shadows and labels of each request that had it; a value read from standard input stays out of `ps`."""
    result = run("forget", "--outbox", stopped, "--column", "carrier", "--value", "-", input=SECRET + "\n")

    assert result.exit_code == 0
    assert "7 events of 2 requests are forgotten" in result.stdout
    assert files_with(stopped, SECRET) == files_with(stopped, PERSON) == files_with(stopped, "other-2") == []
    assert sum(event.subject == "other-3" for event in events(stopped)) == 5


@pytest.mark.parametrize(
    ("column", "value", "requests"),
    [
        ("hour", "17", 4),
        ("hour", "18", 0),
        ("distance", "900", 4),
        ("distance", "900.0", 4),
        ("temp", "12.5", 4),
        ("temp", "warm", 0),
        ("carrier", "AA", 1),
        ("nothing", "AA", 0),
    ],
)
def test_values_are_compared_as_the_column_has_them(
    run: Command, stopped: Path, column: str, value: str, requests: int
) -> None:
    """Numbers as numbers of the tensor's type, strings as they are."""
    shown = run("forget", "--outbox", stopped, "--column", column, "--value", value, "--dry-run").stdout

    assert f" of {requests} requests" in shown.splitlines()[-1]


def test_a_dry_run_shows_and_changes_nothing(run: Command, stopped: Path) -> None:
    """The events that would go, one a line."""
    before = stopped.read_bytes()

    result = run("forget", "--outbox", stopped, "--id", PERSON, "--dry-run")

    heading, *rows, last = result.stdout.splitlines()
    assert heading.startswith("time (UTC)")
    assert [PERSON in row for row in rows] == [True] * 4
    assert last == "4 events of 1 requests would be forgotten"
    assert before == stopped.read_bytes()


def test_nobody_found_is_nothing_done(run: Command, stopped: Path) -> None:
    """No event is written, and that is no error: a second order finds what the first left."""
    count = len(events(stopped))

    first = run("forget", "--outbox", stopped, "--id", "nobody")

    assert (first.exit_code, first.stdout) == (0, "0 events of 0 requests\n")
    assert len(events(stopped)) == count


def label(request_id: str, value: str) -> bytes:
    """Returns the line of a label."""
    event = Labelled(
        id=uuid7(),
        source="/feedback",
        time=datetime(2026, 3, 1, tzinfo=UTC),
        subject=request_id,
        partitionkey=request_id,
        data=Label(label=value),
    )
    return encode_event(event)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A log of four large labels, a chunk each, whose values begin and end with what tells them apart."""
    outbox = Outbox(tmp_path / "outbox.db", EventSettings())
    for name in ("first", "second", "third", "fourth"):
        asyncio.run(outbox.append_durably([label(name, f"{name}-begin{'x' * 20_000}{name}-end")]))
    outbox.close()
    return tmp_path / "outbox.db"


@pytest.fixture
def careless(labelled: Path) -> Iterator[sqlite3.Connection]:
    """A connection that leaves deleted bytes where they are, as SQLite does where it was not built otherwise."""
    with closing(sqlite3.connect(labelled, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete = OFF")
        yield connection


def test_bytes_are_overwritten_where_they_were(labelled: Path, careless: sqlite3.Connection) -> None:
    """In the log's pages and in its journal, whatever SQLite does otherwise; that it does afterwards again."""
    order = Order(ids=["second"])
    assert files_with(labelled, "second-begin") == files_with(labelled, "second-end") == ["outbox.db"]

    erase(careless, find(labelled, order)[0])

    assert files_with(labelled, "second-begin") == files_with(labelled, "second-end") == []
    assert files_with(labelled, "third-begin") == files_with(labelled, "third-end") == ["outbox.db"]
    assert careless.execute("PRAGMA secure_delete").fetchone() == (0,)


def test_what_was_trimmed_earlier_leaves_no_bytes_either(
    run: Command, labelled: Path, careless: sqlite3.Connection
) -> None:
    """Pages that retention freed still have them; the file is written anew."""
    careless.execute("DELETE FROM chunks WHERE first_offset < 2")
    careless.execute("INSERT INTO meta VALUES ('trimmed_to', '2')")
    assert files_with(labelled, "first-end") != []

    run("forget", "--outbox", labelled, "--id", "third")

    assert files_with(labelled, "first-end") == files_with(labelled, "third-end") == []
    assert files_with(labelled, "fourth-end") == ["outbox.db"]


def test_a_server_that_has_the_log_open_is_named(run: Command, server: Running) -> None:
    """One sentence that says what to do, and nothing is changed."""
    result = run("forget", "--outbox", server.outbox, "--id", PERSON)

    assert result.exit_code == 1
    assert "another server has it open; name the server with --url, or stop it first" in result.stderr
    assert sum(event.subject == PERSON for event in server.events()) == 4


@contextlib.contextmanager
def reading(log: Path) -> Iterator[None]:
    """Has somebody read the log, as the monitor does, while something is done."""
    with closing(sqlite3.connect(f"file:{log}?mode=ro", uri=True)) as connection:
        connection.execute("SELECT count(*) FROM chunks").fetchall()
        yield


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_forgets_while_it_answers(
    run: Command, serve: Callable[..., Running], packed: Path, workers: str
) -> None:
    """Through the one writer, by one worker or several; the balance still holds, and requests go on."""
    server = filled(serve(packed, TILTYARD_WORKERS=workers))

    with reading(server.outbox):
        result = run("forget", "--url", server.client.base_url, "--id", PERSON, "--reason", "asked")

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "4 events of 1 requests",
        "4 events of 1 requests are forgotten",
    ]
    assert files_with(server.outbox, PERSON) == []
    ask(server.client, "later")
    found = server.events()
    assert [event.data.action for event in found if isinstance(event, Audited)][-1] == "log.forget"
    balance = run("verify", "--outbox", server.outbox, "--url", server.client.base_url, "--json")
    assert json.loads(balance.stdout)["faults"] == []
    again = run("forget", "--url", server.client.base_url, "--id", PERSON, "--dry-run")
    assert again.stdout == "0 events of 0 requests\n"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"ids": ["nobody"]}, 200),
        ({"ids": []}, 400),
        ({"ids": [""]}, 400),
        ({"column": "carrier"}, 400),
        ({"column": "carrier", "value": "nobody's"}, 200),
        ({"id": "nobody"}, 400),
    ],
)
def test_an_order_must_say_whom(server: Running, body: dict[str, object], status: int) -> None:
    """Ids, or column and value together, and nothing that is not known."""
    assert status == server.client.post("/v1/log/forget", json=body).status_code


def test_a_journal_that_is_held_is_told(run: Command, stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader in the middle of a long read keeps bytes in the journal: that is an error, not a success."""
    monkeypatch.setattr(erasure, "_TRIES", 1)
    with closing(sqlite3.connect(stopped, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM chunks").fetchall()

        result = run("forget", "--outbox", stopped, "--id", PERSON)

        assert result.exit_code == 1
        assert "their bytes are still in the log's journal" in result.stderr


def test_a_topic_is_told_apart(run: Command, broker: Broker, topic: str, stopped: Path) -> None:
    """What was shipped is there still: that is said, and `verify` takes no forgotten event for an altered one."""
    shipped_whole(broker, topic, stopped)
    lines = list(read_log(stopped))
    with closing(sqlite3.connect(stopped)) as connection:
        (log_id,) = connection.execute("SELECT value FROM meta WHERE key = 'log_id'").fetchone()
    write_shipped(stopped, Shipped(log_id=log_id, offset=len(lines), topic=topic, partitions=PARTITIONS, cluster="a"))

    result = run("forget", "--outbox", stopped, "--id", PERSON)
    balance = run("verify", "--outbox", stopped, "--kafka", broker.bootstrap_servers, "--topic", topic, "--json")

    assert "4 of them are in the Kafka topic as well" in result.stderr
    report = json.loads(balance.stdout)
    assert (balance.exit_code, report["faults"]) == (0, [])
    assert {row["what"].strip(): row["count"] for row in report["rows"]}["forgotten since"] == 4


def test_what_was_set_aside_is_forgotten_too(run: Command, stopped: Path) -> None:
    """In its place, so that an entry added meanwhile stays."""
    lines = [line for line in read_log(stopped) if PERSON.encode() in line]
    set_aside(stopped, "log", 1, lines[0], "too large", "2026-03-01T12:00:00Z")
    set_aside(stopped, "log", 2, label("other", "kept"), "too large", "2026-03-01T12:00:00Z")
    set_aside(stopped, "log", 3, b"\xff" + lines[1], "damaged", "2026-03-01T12:00:00Z", 5)

    result = run("forget", "--outbox", stopped, "--id", PERSON)

    entries = [msgspec.json.decode(entry, type=SetAside) for entry in set_aside_file(stopped).read_bytes().splitlines()]
    assert "and 2 entries of what was set aside" in result.stdout
    assert [(entry.offset, entry.event is not None, entry.raw) for entry in entries] == [
        (1, False, None),
        (2, True, None),
        (3, False, None),
    ]
    assert base64.b64encode(PERSON.encode())[:12].decode() not in set_aside_file(stopped).read_text()
    assert files_with(stopped, PERSON) == []


def test_a_monitor_counts_what_was_forgotten(run: Command, stopped: Path, packed: Path) -> None:
    """From the log's start it has the same requests, rows and errors; nothing is refused, no truth is made up."""
    before = panes(stopped, packed)

    run("forget", "--outbox", stopped, "--id", PERSON)

    after = panes(stopped, packed)
    assert before == after
    assert sum(requests for requests, _, _ in after.values()) == 11


def panes(log: Path, packed: Path) -> dict[PaneKey, tuple[int, int, int]]:
    """Returns requests, rows and errors of each pane that a monitor makes of a log."""
    bundles = BundleFolder(packed)
    for version in ("1", "2"):
        bundles.load(VersionKey("flight", version))
    fold = Fold(bundles.profiles, FoldLimits(60_000_000, 0, 3_600_000_000, 1000))
    delta = fold.fold_lines(enumerate(read_log(log)))
    assert delta.dead_letters == []
    return {key: (pane.requests, pane.rows, pane.errors) for key, pane in delta.panes.items()}


def test_a_line_that_is_no_event_goes_as_well(run: Command, tmp_path: Path) -> None:
    """One that names the request and that this version does not know; the writer goes on."""
    path = tmp_path / "outbox.db"
    outbox = Outbox(path, EventSettings())
    strange = msgspec.json.encode({"type": "tiltyard.future.v9", "subject": PERSON, "data": {"what": SECRET}})
    asyncio.run(outbox.append_durably([strange, label("other", "kept")]))
    outbox.close()

    result = run("forget", "--outbox", path, "--id", PERSON)

    assert "offset 0: no event that this version knows" in result.stdout
    assert result.exit_code == 0
    assert files_with(path, PERSON) == files_with(path, SECRET) == []
    assert [b'{"forgotten":true}', True] == [next(read_log(path)), b"kept" in list(read_log(path))[1]]
