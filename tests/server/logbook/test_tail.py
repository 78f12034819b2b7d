"""``tiltyard log tail``: the newest events for people, and those that come."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from server.contract.events import decode_event
from server.eventlog.log_reader import read_log
from tests.kafka.broker import Broker
from tests.server.live_server import Running, tensors
from tests.server.logbook.conftest import INFER, ship, shipment, shipped_whole

Command = Callable[..., Result]
Start = Callable[..., "subprocess.Popen[str]"]


def lines_of(log: Path) -> list[str]:
    """Returns all events of a log as text."""
    return [line.decode() for line in read_log(log)]


def test_the_newest_events_are_shown_one_a_line(run: Command, log: Path) -> None:
    """Time, type, request, version, role, status, latency, rows and the beginning of the outputs."""
    heading, *rows = run("tail", "--outbox", log, "-n", 1000).stdout.splitlines()

    assert heading.split() == "time (UTC) type request model/version role status latency rows outputs".split()
    events = [decode_event(line) for line in read_log(log)]
    assert [event.subject for event in events] == [row.split()[3] for row in rows]
    [answer] = [row for row in rows if "request-7 " in row and "prediction" in row]
    assert answer.split()[2:7] == ["prediction", "request-7", "flight/1", "champion", "200"]
    assert answer.split()[8:10] == ["ms", "1"]
    assert "label=[" in answer
    assert len(answer) < 220
    assert any("shadow" in row and "flight/2" in row for row in rows)
    assert any("label" in row and "[0], reward 2.5" in row for row in rows)
    assert any("audit" in row and "unload" in row for row in rows)
    assert any("refused-1" in row and "400" in row and "expected" in row for row in rows)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_as_many_are_shown_as_are_asked_for(run: Command, log: Path, count: int) -> None:
    """The newest, in the order of the log; --json leaves them as they are."""
    shown = run("tail", "--outbox", log, "-n", count, "--json").stdout.splitlines()

    assert lines_of(log)[len(lines_of(log)) - count :] == shown


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--type", "shadow"], 20),
        (["--type", "prediction", "--model", "flight"], 23),
        (["--version", "2"], 20),
        (["--type", "label"], 2),
        (["--model", "nobody"], 0),
    ],
)
def test_only_what_is_wanted_is_shown(run: Command, log: Path, options: list[str], count: int) -> None:
    """By type, model and version together."""
    assert count == len(run("tail", "--outbox", log, "-n", 1000, "--json", *options).stdout.splitlines())


def test_what_is_committed_later_follows_until_ctrl_c(running: Running, started: Start) -> None:
    """Each event appears once it is committed; Ctrl-C ends with status 0 and no word."""
    process = started("tail", "--outbox", running.outbox, "-n", 1, "--follow", "--json", "--type", "prediction")
    assert process.stdout is not None
    process.stdout.readline()

    for n in range(3):
        running.client.post(INFER, json=tensors(id=f"later-{n}"))
        assert json.loads(process.stdout.readline())["subject"] == f"later-{n}"

    process.send_signal(signal.SIGINT)
    rest, said = process.communicate(timeout=20)
    assert (process.returncode, rest, said) == (0, "", "")


def test_a_topic_is_shown_like_the_log(run: Command, broker: Broker, topic: str, log: Path) -> None:
    """The newest over all partitions by time, further back where few are wanted."""
    shipped_whole(broker, topic, log)
    kafka = ["--kafka", broker.bootstrap_servers, "--topic", topic, "--json"]

    newest = run("tail", *kafka, "-n", 1).stdout.splitlines()
    labels = run("tail", *kafka, "-n", 2, "--type", "label").stdout.splitlines()

    newest_time = max(decode_event(line).time for line in read_log(log))
    assert [decode_event(line.encode()).time for line in newest] == [newest_time]
    assert [line for line in lines_of(log) if "tiltyard.label" in line] == labels


def test_a_topic_is_followed(broker: Broker, topic: str, log: Path, started: Start) -> None:
    """What is produced later comes from every partition."""
    line, *others = read_log(log)
    ship(broker, topic, [shipment(line)])
    process = started("tail", "--kafka", broker.bootstrap_servers, "--topic", topic, "-n", 1, "--follow", "--json")
    assert process.stdout is not None
    first = process.stdout.readline()

    ship(broker, topic, [shipment(each) for each in others[:9]])
    rest = [process.stdout.readline() for _ in range(9)]

    assert [line.decode(), *sorted(each.decode() for each in others[:9])] == [
        first.strip(),
        *sorted(each.strip() for each in rest),
    ]
    process.send_signal(signal.SIGINT)
    assert (*process.communicate(timeout=20), process.returncode) == ("", "", 0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--outbox", "nowhere.db"], "outbox nowhere.db: expected the file of an event log, found none"),
        (["--outbox", "outbox.db", "--kafka", "127.0.0.1:1"], "expected one log to read, got --outbox and --kafka"),
        (["--kafka", "127.0.0.1:1"], "topic tiltyard.events at 127.0.0.1:1: expected to read it, got Kafka"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_sentence(run: Command, options: list[str], sentence: str) -> None:
    """On standard error, with status 1."""
    result = run("tail", *options)

    assert result.exit_code == 1
    assert result.stderr.startswith(f"tiltyard log: {sentence}")


def test_a_topic_that_is_not_there_is_named(run: Command, broker: Broker) -> None:
    """And is not made by asking for it."""
    result = run("tail", "--kafka", broker.bootstrap_servers, "--topic", "nothing")

    assert (result.exit_code, "expected the topic, got a cluster without it" in result.stderr) == (1, True)
