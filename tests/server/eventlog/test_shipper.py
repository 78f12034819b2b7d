"""The log reaches a real topic: every event, its very bytes, in order, whoever is killed or away meanwhile."""

import asyncio
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer
from confluent_kafka import Producer

from server.contract.partition import partition_of
from server.errors import OutboxError
from server.eventlog.log_tail import LogTail
from server.eventlog.set_aside import set_aside_file
from server.eventlog.ship_status import read_status
from server.eventlog.shipment import Progress, Shipment
from server.eventlog.shipped import read_shipped, shipped_file
from server.eventlog.shipper_process import shipping
from server.identifiers import uuid7
from tests.kafka.broker import Broker
from tests.patience import until
from tests.required import missing
from tests.server.eventlog.shipping import (
    NOW,
    NOW_MS,
    Record,
    drop_topic,
    event,
    grow_topic,
    kafka_settings,
    make_topic,
    records,
    shipped_log,
)


def first_places(found: Sequence[Record]) -> dict[bytes, list[str]]:
    """Returns the ids of each key's events in the topic's order, of doubles the first."""
    order: dict[bytes, list[str]] = defaultdict(list)
    for record in found:
        if record.id not in order[record.key]:
            order[record.key].append(record.id)
    return order


def assert_nothing_lost(lines: Sequence[bytes], found: Sequence[Record]) -> int:
    """Passes when every event is there, its very bytes, in order for its request; returns how many are doubled."""
    assert {record.value for record in found} == set(lines)
    wanted: dict[bytes, list[str]] = defaultdict(list)
    for line in lines:
        content = json.loads(line)
        wanted[content["partitionkey"].encode()].append(content["id"])
    assert first_places(found) == wanted
    return len(found) - len(lines)


def test_every_event_arrives_once_as_it_was_written(broker: Broker, tmp_path: Path) -> None:
    """Its bytes, its key, its time, CloudEvents' header; one partition a request, in the log's order."""
    keys = ["", "a", "übung", "0190a5f0-7b1c-7000-8000-000000000001", *(str(uuid7()) for _ in range(500))]
    lines = [event(number, keys[number % len(keys)]) for number in range(3_000)]
    with shipped_log(tmp_path, kafka_settings(broker)) as log:
        log.append(*lines)
        log.wait(3_000)
        found = log.records()

    assert assert_nothing_lost(lines, found) == 0
    assert {record.timestamp_ms for record in found} == {NOW_MS}
    header = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
    assert all(record.headers == header for record in found)
    assert {record.partition for record in found} == set(range(12))


def test_partitions_are_those_of_other_clients(broker: Broker, tmp_path: Path) -> None:
    """librdkafka, asked for murmur2_random, puts a label of any language beside its prediction; kcat reads both."""
    if shutil.which("kcat") is None:
        missing("kcat: expected the command, got none")
    keys = ["", "a", "übung", *(str(uuid7()) for _ in range(200))]
    kafka = kafka_settings(broker)
    with shipped_log(tmp_path, kafka) as log:
        log.append(*(event(number, key) for number, key in enumerate(keys)))
        log.wait(len(keys))
        other = Producer({"bootstrap.servers": broker.bootstrap_servers, "partitioner": "murmur2_random"})
        for key in keys[1:]:  # librdkafka takes an empty key for none
            other.produce(kafka.events_topic, b'{"id": "other"}', key)
        assert other.flush(30) == 0
        places = defaultdict(set)
        for record in log.records():
            places[record.key].add(record.partition)
        command = [
            "kcat",
            "-C",
            "-b",
            broker.bootstrap_servers,
            "-t",
            kafka.events_topic,
            "-e",
            "-q",
            "-f",
            "%p %k %h\n",
        ]
        read = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    assert places == {key.encode(): {partition_of(key.encode(), 12)} for key in keys}
    header = "content-type=application/cloudevents+json; charset=UTF-8"
    ours = sorted(line for line in read if line.endswith(header))
    assert ours == sorted(f"{partition_of(key.encode(), 12)} {key} {header}" for key in keys)


def test_a_shipper_that_is_killed_loses_nothing(broker: Broker, tmp_path: Path) -> None:
    """Four times while events come: another goes on within 5 s; doubles have the same id, order holds."""
    seed = random.Random(20_261_126)
    lines: list[bytes] = []
    stop = threading.Event()
    with shipped_log(tmp_path, kafka_settings(broker)) as log:

        def load() -> None:
            for number in itertools.count():
                if stop.wait(0.001):
                    return
                lines.append(event(number))
                log.append(lines[-1])

        loading = threading.Thread(target=load)
        loading.start()
        slowest_s = 0.0
        try:
            for _ in range(4):
                until(lambda: log.status.state == "connected", "a shipper")
                offset, pid = log.offset, log.status.pid
                until(lambda: log.offset > offset, "events to be shipped")  # noqa: B023  # waited for here
                threading.Event().wait(seed.random() * 0.3)
                log.kill_shipper()
                killed_s = time.monotonic()
                until(lambda: log.status.pid != pid, "another shipper")  # noqa: B023
                slowest_s = max(slowest_s, time.monotonic() - killed_s)
        finally:
            stop.set()
            loading.join()
        log.wait(len(lines))
        found = log.records()

    doubles = assert_nothing_lost(lines, found)
    said = f"{len(lines)} events, 4 kills, 0 lost, {doubles} doubled, the next shipper {slowest_s:.1f} s later at most"
    sys.stdout.write(said + "\n")
    assert slowest_s < 5.0


def test_of_two_shippers_of_a_log_one_ships(broker: Broker, tmp_path: Path) -> None:
    """The other waits, and takes over when the first has gone."""
    with shipped_log(tmp_path, kafka_settings(broker)) as log, shipping(log.settings):
        log.append(*map(event, range(100)))
        log.wait(100)
        first = log.status.pid
        log.append(*map(event, range(100, 200)))
        log.wait(200)
        assert log.status.pid == first

        log.kill_shipper()
        until(lambda: log.status.pid != first, "another shipper", 5.0)
        log.append(*map(event, range(200, 300)))
        log.wait(300)
        found = log.records()

    assert assert_nothing_lost([event(number) for number in range(300)], found) == 0


def test_a_broker_that_is_away_is_waited_for(broker: Broker, tmp_path: Path) -> None:
    """What was on its way is neither lost nor sent twice; meanwhile the status says why nothing goes."""
    with shipped_log(tmp_path, kafka_settings(broker)) as log:
        log.append(*map(event, range(500)))
        log.wait(500)
        broker.stop()
        try:
            log.append(*map(event, range(500, 1_000)))
            until(lambda: log.status.state == "disconnected", "the outage to be told")
            assert "expected a broker that" in str(log.status.fault)
            assert log.offset == 500
        finally:
            broker.start()
        log.wait(1_000)
        until(lambda: log.status.state == "connected", "the end of the outage to be told")
        found = log.records()

    assert assert_nothing_lost([event(number) for number in range(1_000)], found) == 0


def test_a_broker_that_stands_still_gets_nothing_twice(broker: Broker, tmp_path: Path) -> None:
    """Its request times out and goes again under the same sequence number."""
    with shipped_log(tmp_path, kafka_settings(broker)) as log:
        log.append(*map(event, range(500)))
        log.wait(500)
        broker.freeze()
        try:
            log.append(*map(event, range(500, 1_000)))
            until(lambda: log.status.state == "disconnected", "the outage to be told")
        finally:
            broker.thaw()
        log.wait(1_000)
        found = log.records()

    assert assert_nothing_lost([event(number) for number in range(1_000)], found) == 0


def test_what_a_shipper_left_is_shipped_by_the_next_server(broker: Broker, tmp_path: Path) -> None:
    """The position is the log's, not the process's."""
    kafka = kafka_settings(broker)
    with shipped_log(tmp_path, kafka) as log:
        log.append(*map(event, range(100)))
        log.wait(100)
    with shipped_log(tmp_path, kafka) as log:
        log.append(*map(event, range(100, 200)))
    # At its end a server that has time ships what is left.
    assert log.offset == 200

    assert assert_nothing_lost([event(number) for number in range(200)], log.records()) == 0


def test_another_number_of_partitions_is_refused(broker: Broker, tmp_path: Path) -> None:
    """Events of one request would be in two of them: nothing is shipped, and the status says which and how many."""
    kafka = kafka_settings(broker)
    make_topic(broker.bootstrap_servers, kafka.events_topic, 3)
    with shipped_log(tmp_path, kafka) as log:
        log.append(*map(event, range(10)))
        until(lambda: log.status.state == "refused", "the refusal")
        assert "expected 12 partitions (kafka.events_partitions), got 3" in str(log.status.fault)
        assert log.records() == []

        grow_topic(broker.bootstrap_servers, kafka.events_topic, 12)
        log.wait(10)


def test_partitions_that_are_added_end_the_shipping(broker: Broker, tmp_path: Path) -> None:
    """They are noticed while events go, and a setting that follows them is refused as well."""
    kafka = kafka_settings(broker, events_partitions=2)
    with shipped_log(tmp_path, kafka) as log:
        log.append(*map(event, range(10)))
        log.wait(10)
        grow_topic(broker.bootstrap_servers, kafka.events_topic, 3)
        until(lambda: log.status.state == "refused", "the refusal")
        log.commit(event(10))
    with shipped_log(tmp_path, kafka.model_copy(update={"events_partitions": 3})) as log:
        until(lambda: "expected 2, with which events were shipped" in str(log.status.fault), "the refusal")
        assert log.offset == 10


def test_a_topic_that_was_deleted_is_made_again(broker: Broker, tmp_path: Path) -> None:
    """Events go on from the one after the last that was acknowledged."""
    kafka = kafka_settings(broker)
    with shipped_log(tmp_path, kafka) as log:
        log.append(*map(event, range(100)))
        log.wait(100)
        drop_topic(broker.bootstrap_servers, kafka.events_topic)
        log.append(*map(event, range(100, 200)))
        log.wait(200)
        found = log.records()

    assert {record.value for record in found} == {event(number) for number in range(100, 200)}


def test_an_event_that_no_broker_takes_is_set_aside(broker: Broker, tmp_path: Path) -> None:
    """It is counted, its line is kept beside the log, and all others arrive."""
    noise = random.Random(7).randbytes(900_000).hex()  # does not compress below the broker's limit of 1 MiB... by half
    large = event(50).replace(b'"label": 50', b'"label": "' + (noise + noise[::-1]).encode() + b'"')
    lines = [*map(event, range(50)), large, *map(event, range(51, 100))]
    with shipped_log(tmp_path, kafka_settings(broker)) as log:
        log.append(*lines)
        log.wait(100)
        until(lambda: log.status.set_aside == 1, "the count")
        found = log.records()

    assert assert_nothing_lost([line for line in lines if line != large], found) == 0
    [kept] = map(json.loads, set_aside_file(log.settings.outbox).read_text().splitlines())
    assert (kept["offset"], kept["event"].encode(), kept["reason"].split(":")[0]) == (50, large, "no broker takes it")


def test_a_topic_of_small_records_gets_small_batches(broker: Broker, tmp_path: Path) -> None:
    """What it refuses in one batch it is given in several."""
    kafka = kafka_settings(broker, events_partitions=1, compression="none")
    make_topic(broker.bootstrap_servers, kafka.events_topic, 1, max_message_bytes="20000")
    lines = [event(number, pad=500) for number in range(1_000)]
    with shipped_log(tmp_path, kafka) as log:
        log.append(*lines)
        log.wait(1_000)
        assert log.status.set_aside == 0
        found = log.records()

    assert assert_nothing_lost(lines, found) == 0


def test_a_time_far_ahead_of_the_topics_does_not_stop_the_log(broker: Broker, tmp_path: Path) -> None:
    """Where a topic of somebody else's making refuses such a record, it is one of now; the event stays as it is."""
    kafka = kafka_settings(broker)
    make_topic(broker.bootstrap_servers, kafka.events_topic, 12)
    begun_ms = time.time_ns() // 1_000_000
    lines = [event(1), event(2, time_="2099-01-01T00:00:00Z"), event(3)]
    with shipped_log(tmp_path, kafka) as log:
        log.append(*lines)
        log.wait(3)
        found = log.records()

    assert assert_nothing_lost(lines, found) == 0
    [ahead] = [record for record in found if record.id == "event-2"]
    assert begun_ms <= ahead.timestamp_ms <= time.time_ns() // 1_000_000


def test_what_is_no_event_is_set_aside(broker: Broker, tmp_path: Path) -> None:
    """A line without a key or an offset of its time, and a damaged chunk, are named and kept; the rest arrives."""
    kafka = kafka_settings(broker)
    with shipped_log(tmp_path, kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})) as log:
        log.commit(event(0), b'{"id": "no key"}', event(2, time_=NOW.replace(tzinfo=None).isoformat()))
        log.commit(event(3))
        log.commit(event(4))
        until(lambda: log.status.fault is not None, "a shipper")
    with contextlib.closing(sqlite3.connect(log.settings.outbox)) as connection, connection:
        connection.execute(
            "UPDATE chunks SET payload = CAST(replace(payload, 'event-3', 'event-4') AS BLOB) WHERE first_offset = 3"
        )
    with shipped_log(tmp_path, kafka) as log:
        log.wait(5)
        until(lambda: log.status.set_aside == 3, "the count")
        found = log.records()

    assert {record.value for record in found} == {event(0), event(4)}
    kept = [json.loads(line) for line in set_aside_file(log.settings.outbox).read_text().splitlines()]
    assert sorted(each["offset"] for each in kept) == [1, 2, 3]


def test_a_log_that_was_trimmed_before_says_how_much_is_missing(broker: Broker, tmp_path: Path) -> None:
    """A gap is never silent."""
    kafka = kafka_settings(broker)
    with shipped_log(tmp_path, kafka) as log:
        log.append(event(0))
        log.wait(1)
    with shipped_log(tmp_path, kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})) as log:
        log.commit(event(1))
        log.commit(event(2))
    with contextlib.closing(sqlite3.connect(log.settings.outbox)) as connection, connection:
        connection.execute("DELETE FROM chunks WHERE first_offset < 2")
    with shipped_log(tmp_path, kafka) as log:
        log.wait(3)
        until(lambda: log.status.missed == 1, "the count")

    assert {record.value for record in log.records()} == {event(0), event(2)}


def test_a_position_of_another_log_is_not_used(broker: Broker, tmp_path: Path) -> None:
    """A new log at the same place is shipped from its start."""
    kafka = kafka_settings(broker)
    with shipped_log(tmp_path, kafka) as log:
        log.append(*map(event, range(10)))
        log.wait(10)
    for file in tmp_path.glob("outbox.db*"):
        if file != shipped_file(log.settings.outbox):
            file.unlink()
    with shipped_log(tmp_path, kafka) as log:
        log.append(*map(event, range(10, 13)))
        until(lambda: log.offset == 3, "the new log")

    assert len(log.records()) == 13


def test_it_ends_with_a_server_that_is_killed(broker: Broker, tmp_path: Path) -> None:
    """Its channel closes; whoever succeeds the server finds the log free."""
    kafka = kafka_settings(broker)
    program = (
        "import sys; from server.eventlog.shipper_process import shipping; from server.settings import Settings;\n"
        "from server.eventlog.outbox import Outbox\n"
        "settings = Settings.model_validate_json(sys.argv[1]); outbox = Outbox(settings.outbox, settings.events)\n"
        "with shipping(settings): outbox.append(sys.argv[2].encode()); sys.stdin.read()\n"
    )
    settings = {"outbox": str(tmp_path / "outbox.db"), "kafka": kafka.model_dump(mode="json")}
    command = [sys.executable, "-c", program, json.dumps(settings), event(0).decode()]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as server:
        until(lambda: (shipped := read_shipped(tmp_path / "outbox.db")) and shipped.offset == 1, "the shipper")
        pid = read_status(tmp_path / "outbox.db").pid
        server.send_signal(signal.SIGKILL)

    until(lambda: not _lives(pid), "the shipper's end", 5.0)


def test_a_sender_that_has_died_ends_the_shipment(broker: Broker, tmp_path: Path) -> None:
    """aiokafka would let everybody wait for ever (#1039)."""
    kafka = kafka_settings(broker)
    with shipped_log(tmp_path, kafka) as log:
        log.append(event(0))
        log.wait(1)

    async def ship() -> None:
        topic = AIOKafkaConsumer(
            kafka.events_topic, bootstrap_servers=broker.bootstrap_servers, auto_offset_reset="earliest"
        )
        shipment = Shipment(kafka, LogTail(log.settings.outbox), Progress(0, 12), lambda *_: None, lambda _: None)
        running = asyncio.create_task(shipment.run())
        async with asyncio.timeout(30), topic:
            for _ in range(2):  # once from the log's shipper, and once from this one, whose sender is at work then
                await topic.getone()
        [sender] = [task for task in asyncio.all_tasks() if "_sender_routine" in repr(task.get_coro())]
        sender.cancel()
        async with asyncio.timeout(30):
            await running

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(ship())
    assert "expected aiokafka's sender to live" in str(caught.value.exceptions[0])


def test_a_damaged_position_is_refused(broker: Broker, tmp_path: Path) -> None:
    """It is named, and not taken for none: all of the log would be in the topic twice."""
    kafka = kafka_settings(broker)
    with shipped_log(tmp_path, kafka) as log:
        log.append(event(0))
        log.wait(1)
    shipped_file(log.settings.outbox).write_bytes(b"{")

    with pytest.raises(OutboxError, match="expected the position of a shipped log, got a damaged file"):
        with shipped_log(tmp_path, kafka):
            raise AssertionError("it was opened")

    assert len(records(broker.bootstrap_servers, kafka.events_topic)) == 1


def test_a_log_that_lost_its_end_goes_on_behind_what_was_shipped(broker: Broker, tmp_path: Path) -> None:
    """After a power cut new events get offsets of their own, and none is taken for one that Kafka has."""
    kafka = kafka_settings(broker)
    with shipped_log(tmp_path, kafka) as log:
        log.commit(event(0))
        log.commit(event(1))
        log.wait(2)
    with contextlib.closing(sqlite3.connect(log.settings.outbox)) as connection, connection:
        connection.execute("DELETE FROM chunks WHERE first_offset = 1")
    with shipped_log(tmp_path, kafka) as log:
        log.append(event(2))
        log.wait(3)

    assert {record.value for record in log.records()} == {event(0), event(1), event(2)}


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
