from pathlib import Path
from typing import Any

import pytest

from tests.kafka.broker import Broker
from tests.monitor.kafka.event_topic import EventTopic, counted, findings, stream


@pytest.fixture
def topic(broker: Broker) -> EventTopic:
    return EventTopic(broker.bootstrap_servers)


@pytest.fixture
def folder(tmp_path: Path, models: Path) -> Path:
    assert models == tmp_path / "models"
    return tmp_path


def _has_read(count: int) -> Any:
    return lambda health: health["source"]["offset"] == count == health["source"]["end"]


def test_a_topic_is_judged_as_an_outbox_of_the_same_events(
    folder: Path, topic: EventTopic, outbox_writer: Any, events: Any, monitor_process: Any
) -> None:
    """Findings and counts are those of the embedded log, to the bit, although the events stand in six partitions."""
    written = stream(events, 2500)
    writer = outbox_writer(folder / "outbox.db")
    writer.write(written)
    topic.write(written)
    embedded = monitor_process(folder, "embedded.db")
    monitor = monitor_process(folder, "kafka.db", **topic.settings)

    expected = embedded.wait_for(_has_read(len(written)))
    found = monitor.wait_for(_has_read(len(written)))

    assert ("ok", None) == (found["status"], found["reason"])
    assert topic.partitions == len(found["source"]["partitions"])
    assert all(place["offset"] > 0 for place in found["source"]["partitions"].values())
    assert findings(embedded) == findings(monitor)
    assert counted(expected) == counted(found)


def test_kill_minus_nine_changes_no_number(folder: Path, topic: EventTopic, events: Any, monitor_process: Any) -> None:
    """A monitor killed in mid-stream, twice, goes on from its state and ends where an undisturbed one does."""
    written = stream(events, 3000)
    small = {"TILTYARD_MONITOR_BATCH_EVENTS": "100", "TILTYARD_MONITOR_COMMIT_S": "0.01"}
    topic.write(written[:4500])
    for part in (1500, 3000):
        monitor = monitor_process(folder, "crashed.db", **topic.settings, **small)
        monitor.wait_for(lambda health, part=part: health["source"]["offset"] >= part)
        monitor.kill()
    topic.write(written[4500:])

    again = monitor_process(folder, "crashed.db", **topic.settings, **small)
    undisturbed = monitor_process(folder, "undisturbed.db", **topic.settings_of("another"))

    found, expected = (monitor.wait_for(_has_read(len(written))) for monitor in (again, undisturbed))
    assert findings(undisturbed) == findings(again)
    # Folding a partition is a function of its events, however they are cut: of these all counters are equal.
    assert expected["counters"] == found["counters"]


def test_a_broker_that_is_away_is_waited_for(
    folder: Path, broker: Broker, topic: EventTopic, events: Any, monitor_process: Any
) -> None:
    """Killed and started again, it costs nothing but time; meanwhile the monitor answers and says what it waits for."""
    monitor = monitor_process(folder, **topic.settings)
    topic.write([events.answer(f"a{number}", number) for number in range(50)])
    monitor.wait_for(_has_read(50))
    broker.kill()
    try:
        away = monitor.wait_for(lambda health: health["reason"] is not None)
        metrics = monitor.client.get("/metrics").text
    finally:
        broker.start()
    topic.write([events.answer(f"b{number}", number) for number in range(50)])

    back = monitor.wait_for(_has_read(100))

    assert ("ok", "waiting for Kafka") == (away["status"], away["reason"][:17])
    assert "tiltyard_monitor_connected 0.0" in metrics
    assert ("ok", None, 100) == (back["status"], back["reason"], back["counters"]["prediction"])


def test_a_topic_that_is_not_there_yet_is_waited_for(
    folder: Path, topic: EventTopic, events: Any, monitor_process: Any
) -> None:
    """Started before the topic was made, the monitor says which one it waits for, and reads it once it is there."""
    topic.delete()
    monitor = monitor_process(folder, **topic.settings)

    waiting = monitor.wait_for(lambda health: "topic" in (health["reason"] or ""))
    topic.make()
    topic.write([events.answer("a")])
    found = monitor.wait_for(_has_read(1))

    assert ("ok", f"waiting for topic {topic.name}: it is not there") == (waiting["status"], waiting["reason"])
    assert 1 == found["counters"]["prediction"]


@pytest.mark.parametrize("later", [2, 300], ids=["shorter", "longer"])
def test_a_topic_made_anew_is_not_counted_on_top(
    folder: Path, topic: EventTopic, events: Any, monitor_process: Any, later: int
) -> None:
    """Offsets mean something else in it: its partitions stand still, and the monitor says why and what to do."""
    monitor = monitor_process(folder, **topic.settings)
    topic.write([events.answer(f"a{number}", number) for number in range(100)])
    monitor.wait_for(_has_read(100))
    monitor.stop()
    topic.delete()
    topic.make()
    topic.write([events.answer(f"b{number}", number) for number in range(later)])
    monitor = monitor_process(folder, **topic.settings)

    found = monitor.wait_for(lambda health: (health["reason"] or "").count("made anew") == topic.partitions)

    assert ("failing", 503) == (found["status"], monitor.client.get("/health").status_code)
    assert "start anew with another --state" in found["reason"]
    assert 100 == found["counters"]["prediction"]


def test_what_retention_took_away_is_counted_as_a_gap(
    folder: Path, topic: EventTopic, events: Any, monitor_process: Any
) -> None:
    """A reader that retention has overtaken goes on behind the gap, and says how many events it lost."""
    monitor = monitor_process(folder, **topic.settings)
    topic.write([events.answer(f"a{number}", number) for number in range(100)])
    monitor.wait_for(_has_read(100))
    monitor.stop()
    topic.write([events.answer(f"b{number}", number) for number in range(100)])
    topic.trim()
    topic.write([events.answer(f"c{number}", number) for number in range(100)])
    monitor = monitor_process(folder, **topic.settings)

    found = monitor.wait_for(_has_read(300))

    assert (100, 200) == (found["counters"]["gap_events"], found["counters"]["prediction"])
    assert "ok" == found["status"]


def test_a_partition_that_moves_goes_on_where_the_other_monitor_was(
    folder: Path, topic: EventTopic, events: Any, monitor_process: Any
) -> None:
    """Two monitors share the partitions; when one has gone the other folds those it never had, and misses nothing."""
    written = stream(events, 1000)
    topic.write(written[:1500])
    first = monitor_process(folder, "first.db", **topic.settings)
    first.wait_for(_has_read(1500))
    second = monitor_process(folder, "second.db", **topic.settings)
    shared = [
        monitor.wait_for(lambda health: len(health["source"]["partitions"]) == topic.partitions // 2)
        for monitor in (first, second)
    ]
    topic.write(written[1500:])
    first.stop()

    second.wait_for(_has_read(len(written)))
    alone = monitor_process(folder, "alone.db", **topic.settings_of("another"))
    alone.wait_for(_has_read(len(written)))

    mine, others = (set(health["source"]["partitions"]) for health in shared)
    assert (set(), topic.partitions) == (mine & others, len(mine | others))
    assert findings(alone) == findings(second)
