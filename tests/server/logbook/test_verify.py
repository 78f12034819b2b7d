"""``tiltyard log verify``: the balance of a whole log, and every fault named."""

import json
import re
import sqlite3
import threading
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import httpx
import msgspec
import pytest
from click.testing import Result

from server.contract.events import Shadow, decode_event
from server.eventlog.log_reader import read_log
from server.eventlog.shipped import Shipped, write_shipped
from server.logbook.outbox_file import OutboxFile
from server.logbook.server_check import Opening, check_server
from server.logbook.server_counters import Counters, parse_counters
from tests.kafka.broker import Broker
from tests.server.live_server import Running, tensors
from tests.server.logbook.conftest import INFER, PARTITIONS, Shipment, ship, shipment

Command = Callable[..., Result]


def counts(result: Result) -> dict[str, int]:
    """Returns the balance that `--json` printed."""
    return {row["what"].strip(): row["count"] for row in json.loads(result.stdout)["rows"]}


def faults(result: Result) -> list[str]:
    """Returns what `--json` says is wrong."""
    found: list[str] = json.loads(result.stdout)["faults"]
    return found


def change(log: Path, statement: str, *values: object) -> None:
    """Does to a log what no writer does."""
    with closing(sqlite3.connect(log, isolation_level=None)) as connection:
        connection.execute(statement, values)


def chunks(log: Path) -> list[tuple[int, bytes]]:
    """Returns first offset and payload of every chunk."""
    with closing(sqlite3.connect(log)) as connection:
        return connection.execute("SELECT first_offset, payload FROM chunks ORDER BY first_offset").fetchall()


def rewrite(log: Path, first: int, payload: bytes) -> None:
    """Puts other events into a chunk, with the right checksum."""
    change(log, "UPDATE chunks SET payload = ?, crc32 = ? WHERE first_offset = ?", payload, zlib.crc32(payload), first)


def test_a_whole_log_balances(run: Command, log: Path) -> None:
    """Every offset, by type; status 0."""
    result = run("verify", "--outbox", log, "--json")

    found, events = counts(result), list(read_log(log))
    assert (result.exit_code, faults(result)) == (0, [])
    assert found["in the outbox"] == found["events ever logged"] == len(events)
    assert (found["of type prediction"], found["of type shadow"], found["of type label"]) == (23, 20, 2)
    assert sum(found[f"of type {name}"] for name in ("prediction", "shadow", "label", "audit")) == len(events)


def test_people_read_a_table(run: Command, log: Path) -> None:
    """Each line a count, and one sentence at the end."""
    shown = run("verify", "--outbox", log).stdout

    assert re.search(r"^  of type shadow +20 *$", shown, re.MULTILINE)
    assert shown.endswith("It balances.\n")


def test_a_server_at_rest_balances_exactly(run: Command, running: Running) -> None:
    """Answers + labels + changes = events by outcome, and what is logged is what the outbox has."""
    running.events()

    result = run("verify", "--outbox", running.outbox, "--url", running.client.base_url, "--json")

    found = counts(result)
    assert (result.exit_code, faults(result)) == (0, [])
    assert found["at rest"] == 1
    assert (
        found["answers, shadows included"] + found["labels accepted"] + found["changes told"] == found["events logged"]
    )
    assert found["events logged"] == found["in the outbox since the server's start"] == found["in the outbox"]
    assert "events beyond what was counted" not in found


def test_a_server_that_began_in_the_middle_of_its_log_balances(
    run: Command, serve: Callable[..., Running], packed: Path
) -> None:
    """Its counters start with its process, the log goes on: the events of its own run are compared."""
    first = serve(packed)
    for n in range(5):
        first.client.post(INFER, json=tensors(id=f"first-{n}"))
    first.events()
    first.process.terminate()
    assert first.process.wait(20) == 0
    second = serve(packed)
    second.client.post(INFER, json=tensors(id="second"))
    second.events()

    result = run("verify", "--outbox", second.outbox, "--url", second.client.base_url, "--json")

    found = counts(result)
    assert (result.exit_code, faults(result)) == (0, [])
    assert 0 < found["in the outbox since the server's start"] < found["in the outbox"]
    assert found["at rest"] == 1


def test_a_server_balances_while_it_answers(run: Command, serve: Callable[..., Running], packed: Path) -> None:
    """Requests go on while counters, outbox and counters are read: two inequalities hold."""
    server, over = serve(packed), threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=server.client.base_url, timeout=30) as client:
            while not over.is_set():
                assert client.post(INFER, json=tensors()).status_code == 200

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        results = [
            run("verify", "--outbox", server.outbox, "--url", server.client.base_url, "--json") for _ in range(5)
        ]
    finally:
        over.set()
        thread.join()

    assert [[] for _ in results] == [faults(result) for result in results]
    assert any("moving" in counts(result) for result in results)


@pytest.mark.parametrize("which", [slice(3, 4), slice(0, -1)])
def test_missing_offsets_are_named(run: Command, log: Path, which: slice) -> None:
    """A chunk that is gone from the middle, or all but the newest from the front without having been trimmed."""
    gone = chunks(log)[which]
    first, last = gone[0][0], gone[-1][0] + gone[-1][1].count(b"\n") - 1
    change(log, "DELETE FROM chunks WHERE first_offset BETWEEN ? AND ?", first, last)

    result = run("verify", "--outbox", log, "--json")

    assert result.exit_code == 1
    assert [f"{last - first + 1} offsets of the outbox are missing: {first} to {last}"] == faults(result)


def test_what_was_trimmed_is_not_missing(run: Command, log: Path) -> None:
    """It is counted by its range."""
    end = chunks(log)[4][0]
    change(log, "DELETE FROM chunks WHERE first_offset < ?", end)
    change(log, "INSERT INTO meta VALUES ('trimmed_to', ?)", str(end))

    result = run("verify", "--outbox", log, "--json")

    assert (result.exit_code, counts(result)["trimmed from the outbox"]) == (0, end)


def test_overlapping_chunks_are_named(run: Command, log: Path) -> None:
    """Two events at one offset."""
    payload = chunks(log)[0][1]
    rewrite(log, 0, payload + payload.splitlines(keepends=True)[0])
    change(log, "UPDATE chunks SET count = count + 1 WHERE first_offset = 0")
    first = chunks(log)[1][0]

    result = run("verify", "--outbox", log, "--json")

    assert result.exit_code == 1
    assert f"1 chunks of the outbox begin before the end of the one before: at offset {first}" in faults(result)


def test_a_damaged_chunk_is_named(run: Command, log: Path) -> None:
    """By its offset, with both checksums; all others are read."""
    first, payload = chunks(log)[2]
    change(log, "UPDATE chunks SET payload = ? WHERE first_offset = ?", payload.replace(b"flight", b"fright"), first)

    result = run("verify", "--outbox", log, "--json")

    [fault] = faults(result)
    events = payload.count(b"\n")
    assert result.exit_code == 1
    assert f"1 chunks of the outbox, of {events} events, are damaged: at offset {first} (expected CRC" in fault
    assert counts(result)["in the outbox"] == len(events_of(log)) - events


def events_of(log: Path) -> Sequence[bytes]:
    """Returns all lines, of damaged chunks too."""
    return [line for _, payload in chunks(log) for line in payload.splitlines()]


def test_a_line_that_is_no_event_is_named(run: Command, log: Path) -> None:
    """Though its chunk is whole."""
    first, payload = chunks(log)[2]
    events = payload.count(b"\n")
    rewrite(log, first, b"nothing\n" * events)

    result = run("verify", "--outbox", log, "--json")

    [fault] = faults(result)
    assert result.exit_code == 1
    assert fault.startswith(f"{events} lines of the outbox are no events: at offset {first}")


def test_an_answer_that_is_there_twice_is_named(run: Command, log: Path) -> None:
    """Its id is the server's own, so there is one of it."""
    events = [(number, line) for number, line in enumerate(read_log(log)) if isinstance(decode_event(line), Shadow)]
    (one, line), (two, other) = events[0], events[-1]
    first, payload = next((first, payload) for first, payload in chunks(log) if other in payload)
    rewrite(log, first, payload.replace(other, line))

    result = run("verify", "--outbox", log, "--json")

    assert result.exit_code == 1
    assert [f"2 answers have an id that another has: at offset {one}, {two}"] == faults(result)


def test_a_label_sent_again_is_no_fault(run: Command, serve: Callable[..., Running], packed: Path) -> None:
    """Whoever was answered 503 sends it again under the same event id; it is counted."""
    server = serve(packed)
    for _ in range(3):
        label = {"id": "somebody", "label": 1, "event_id": "the same"}
        assert server.client.post("/v1/feedback", json=label).status_code == 202

    result = run("verify", "--outbox", server.outbox, "--json")

    assert (result.exit_code, counts(result)["labels and audit events logged again"]) == (0, 2)


@pytest.fixture
def kafka(broker: Broker, topic: str, log: Path) -> list[str]:
    """What `verify` is told to hold the log against a topic."""
    return ["--outbox", str(log), "--kafka", broker.bootstrap_servers, "--topic", topic, "--json"]


Faulty = Callable[[list[Shipment]], list[Shipment]]


def send(broker: Broker, topic: str, log: Path, make: Faulty = list, offset: int | None = None) -> None:
    """Ships a log as a faulty shipper would, and says that all was shipped, or so much."""
    ship(broker, topic, make([shipment(line) for line in read_log(log)]))
    position(log, topic, offset)


def position(log: Path, name: str, offset: int | None = None, **changes: object) -> None:
    """Writes how much of a log was shipped."""
    with OutboxFile(log) as file:
        members = {
            "log_id": file.log_id,
            "offset": file.bounds().end if offset is None else offset,
            "topic": name,
            "partitions": PARTITIONS,
            "cluster": "a",
        }
    write_shipped(log, Shipped(**{**members, **changes}))  # type: ignore[arg-type]


def test_a_log_and_its_topic_balance(run: Command, broker: Broker, topic: str, log: Path, kafka: list[str]) -> None:
    """What was shipped is there, what waits is counted, also where it is in the topic before its time."""
    total = len(list(read_log(log)))
    send(broker, topic, log, lambda all_: all_[:-5], offset=total - 9)

    result = run("verify", *kafka)

    found = counts(result)
    assert (result.exit_code, faults(result)) == (0, [])
    assert (found["of the outbox, shipped"], found["of the outbox, waiting to be shipped"]) == (total - 9, 9)
    assert (found["in the topic already"], found["in the topic more than once"]) == (4, 0)
    assert found["records in the topic that are events"] == total - 5


def test_what_a_shipper_sends_again_is_counted(
    run: Command, broker: Broker, topic: str, log: Path, kafka: list[str]
) -> None:
    """After a crash it goes on from its last position: the same bytes twice, and no fault."""
    send(broker, topic, log, lambda all_: [*all_[:30], *all_[20:]])

    result = run("verify", *kafka)

    assert (result.exit_code, counts(result)["in the topic more than once"]) == (0, 10)


def test_an_event_that_is_lost_is_named(run: Command, broker: Broker, topic: str, log: Path, kafka: list[str]) -> None:
    """By its offset in the outbox."""
    send(broker, topic, log, lambda all_: [*all_[:11], *all_[12:]])

    result = run("verify", *kafka)

    assert result.exit_code == 1
    assert ["1 events below the shipped position are not in the topic: offset 11"] == faults(result)


def test_an_event_with_other_bytes_is_named(
    run: Command, broker: Broker, topic: str, log: Path, kafka: list[str]
) -> None:
    """By its place in the topic."""
    place = next(n for n, line in enumerate(read_log(log)) if b'"status"' not in line and b"prediction" in line)

    def alter(all_: list[Shipment]) -> list[Shipment]:
        key, line, partition = all_[place]
        return [*all_[:place], (key, line.replace(b'"latency_us":', b'"latency_us":9'), partition), *all_[place + 1 :]]

    send(broker, topic, log, alter)

    result = run("verify", *kafka)

    [fault] = faults(result)
    assert result.exit_code == 1
    assert re.fullmatch(r"1 records of the topic have an event's id and other bytes: partition \d offset \d+", fault)


def test_a_record_in_a_wrong_partition_is_named(
    run: Command, broker: Broker, topic: str, log: Path, kafka: list[str]
) -> None:
    """With the one it belongs into; a key that is not the event's as well."""

    def misplace(all_: list[Shipment]) -> list[Shipment]:
        key, line, _ = all_[0]
        return [(key, line, partition) for partition in range(PARTITIONS)] + [(b"other", all_[1][1], None), *all_[2:]]

    send(broker, topic, log, misplace)

    result = run("verify", *kafka)

    wrong = [fault for fault in faults(result) if "another partition than murmur2 of their key" in fault]
    assert result.exit_code == 1
    assert int(wrong[0].split()[0]) in (2, 3)  # the other key may lead to the same partition
    assert "instead of partition" in wrong[0]
    assert any("1 records have another key than their event's partitionkey" in fault for fault in faults(result))


def test_an_order_that_is_not_kept_is_named(
    run: Command, broker: Broker, topic: str, log: Path, kafka: list[str]
) -> None:
    """An answer that follows the label of its request, though it came first."""
    label = next(n for n, line in enumerate(read_log(log)) if b"label-3" in line)
    answer = next(n for n, line in enumerate(read_log(log)) if b'"request-3"' in line)

    def swap(all_: list[Shipment]) -> list[Shipment]:
        return [*all_[:answer], *all_[answer + 1 : label + 1], all_[answer], *all_[label + 1 :]]

    send(broker, topic, log, swap)

    result = run("verify", *kafka)

    [fault] = faults(result)
    assert result.exit_code == 1
    assert re.match(r"1 events stand in the topic before an earlier one of their request: partition \d offset", fault)
    assert f"(outbox {answer})" in fault


def test_records_of_others_are_counted(run: Command, broker: Broker, topic: str, log: Path, kafka: list[str]) -> None:
    """Labels that were produced elsewhere, events that the outbox has trimmed, and what is no event."""
    send(broker, topic, log)
    end = chunks(log)[4][0]
    change(log, "DELETE FROM chunks WHERE first_offset < ?", end)
    change(log, "INSERT INTO meta VALUES ('trimmed_to', ?)", str(end))

    result = run("verify", *kafka)

    found = counts(result)
    assert (result.exit_code, faults(result)) == (0, [])
    assert found["in the topic, not in the outbox"] == end == found["trimmed from the outbox"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"log_id": "another"}, "expected the position of log"),
        ({"topic": "another"}, "expected the position of topic"),
        ({"partitions": 7}, "expected the position of number of partitions 3, got that of 7"),
    ],
)
def test_a_position_of_another_log_is_refused(
    run: Command, topic: str, log: Path, kafka: list[str], changes: dict[str, object], sentence: str
) -> None:
    """It says nothing about this one."""
    position(log, topic, **changes)

    result = run("verify", *kafka)

    assert (result.exit_code, sentence in result.stderr) == (1, True)


def test_an_outbox_that_has_lost_its_end_is_named(run: Command, topic: str, log: Path, kafka: list[str]) -> None:
    """More was shipped than there is."""
    total = len(list(read_log(log)))
    position(log, topic, total + 5)

    result = run("verify", *kafka)

    assert f"the outbox ends at {total}, before the shipped position {total + 5}" in faults(result)


REST = Counters(answers=10, labels=2, audits=1, outcomes={"logged": 12, "dropped": 1}, waiting=0, refused_labels=0)
OPENED = Opening(at_ms=1, offset=100)


@pytest.mark.parametrize(
    ("after", "end", "reopened", "sentence"),
    [
        ({}, 112, False, None),
        ({"answers": 11}, 112, False, None),  # asked in between, and not yet anything's outcome
        (
            {"outcomes": {"logged": 12, "dropped": 0}, "audits": 0},
            112,
            False,
            "1 answers, labels or changes are neither",
        ),
        ({}, 113, False, "counts 12 events logged, the outbox has 13 events since its start"),
        ({}, 111, False, "counts 12 events logged, the outbox has 11 events since its start"),
        ({"outcomes": {"logged": 13, "dropped": 1}, "answers": 11}, 113, False, None),
        ({"outcomes": {"logged": 13, "dropped": 1}, "answers": 11}, 111, False, "had counted 12 events logged"),
        ({"outcomes": {"logged": 13, "dropped": 1}, "answers": 11}, 114, False, "13 events logged and 0 waiting"),
        ({"outcomes": {"logged": 13, "dropped": 1}, "waiting": 1}, 114, False, None),
        ({}, 112, True, "started again while its log was read"),
    ],
)
def test_counters_and_outbox_must_agree(
    after: dict[str, object], end: int, reopened: bool, sentence: str | None
) -> None:
    """Exactly at rest, by two inequalities while anything moves."""
    found = check_server(REST, msgspec.structs.replace(REST, **after), OPENED, reopened, end)

    if sentence is None:
        assert found.faults == []
    else:
        assert any(sentence in fault for fault in found.faults), found.faults


def test_at_rest_an_answer_without_an_event_is_named() -> None:
    """More answers than outcomes, and nothing moves."""
    lossy = msgspec.structs.replace(REST, answers=12)

    assert ["2 answers, labels or changes are neither in the log nor counted as dropped"] == check_server(
        lossy, lossy, OPENED, False, 112
    ).faults


def test_only_answers_with_an_event_are_counted() -> None:
    """Not those whose client had left, nor refusals before a version was known, nor a challenger's that fell back."""
    text = """\
# TYPE tiltyard_requests_total counter
tiltyard_requests_total{code="200",model="m",role="champion",version="1"} 10.0
tiltyard_requests_total{code="499",model="m",role="champion",version="1"} 3.0
tiltyard_requests_total{code="500",model="m",role="challenger",version="2"} 2.0
tiltyard_requests_total{code="404",model="",role="none",version=""} 5.0
# TYPE tiltyard_fallbacks_total counter
tiltyard_fallbacks_total{model="m",version="2"} 2.0
# TYPE tiltyard_events_total counter
tiltyard_events_total{outcome="logged"} 9.0
tiltyard_events_total{outcome="dropped"} 1.0
"""

    found = parse_counters(text)

    assert (found.answers, found.made, found.settled, found.logged) == (10, 10, 10, 9)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [("http://127.0.0.1:1", "expected a server that answers"), ("nonsense", "expected a server that answers")],
)
def test_a_server_that_is_away_is_told(run: Command, log: Path, url: str, sentence: str) -> None:
    """One sentence, status 1."""
    result = run("verify", "--outbox", log, "--url", url)

    assert (result.exit_code, sentence in result.stderr) == (1, True)
