import signal
from pathlib import Path
from typing import Any

import pytest

from tests.kafka.broker import Broker
from tests.monitor.kafka.event_topic import EventTopic, findings, stream


@pytest.fixture
def topic(broker: Broker) -> EventTopic:
    return EventTopic(broker.bootstrap_servers)


@pytest.fixture
def folder(tmp_path: Path, models: Path) -> Path:
    assert models == tmp_path / "models"
    return tmp_path


def _has_read(count: int) -> Any:
    return lambda health: health["source"]["offset"] == count == health["source"]["end"]


def _findings_of(monitors: list[Any]) -> Any:
    """Returns what each of several monitors answers, following where it sends."""
    for monitor in monitors:
        monitor.client.follow_redirects = True
    return [findings(monitor)[1] for monitor in monitors]


def test_three_monitors_find_what_one_finds(
    folder: Path, topic: EventTopic, events: Any, monitor_process: Any, until: Any
) -> None:
    """Whoever of the three is asked, the findings are those of one monitor over the same log, to the bit."""
    written = stream(events, 2000)
    alone = monitor_process(folder, "alone.db", **topic.settings_of("alone"))
    three = [monitor_process(folder, f"{number}.db", **topic.settings) for number in range(3)]
    for monitor in three:
        monitor.wait_for(lambda health: len(health["source"]["partitions"]) == topic.partitions // 3)
    topic.write(written)

    alone.wait_for(_has_read(len(written)))
    expected = findings(alone)[1]

    until(lambda: _findings_of(three) == [expected] * 3)
    offsets = [monitor.health()["source"]["offset"] for monitor in three]
    assert len(written) == sum(offsets)
    assert all(offsets)


def test_a_monitor_killed_and_one_that_joins_change_no_number(
    folder: Path, topic: EventTopic, events: Any, monitor_process: Any, until: Any
) -> None:
    """One of three is killed in mid-stream, one without any state joins: what is found stays what one alone finds."""
    written = stream(events, 3000)
    small = {
        "TILTYARD_MONITOR_BATCH_EVENTS": "100",
        "TILTYARD_MONITOR_COMMIT_S": "0.01",
        "TILTYARD_MONITOR_KAFKA__CHECKPOINT_EVENTS": "100",
        "TILTYARD_MONITOR_JOIN__TTL_S": "60",
    }
    three = [monitor_process(folder, f"{number}.db", **topic.settings, **small) for number in range(3)]
    for monitor in three:
        monitor.wait_for(lambda health: len(health["source"]["partitions"]) == topic.partitions // 3)
    topic.write(written[:3000])
    until(lambda: sum(monitor.health()["source"]["offset"] for monitor in three) > 1000)
    three[1].kill()
    three[1] = monitor_process(folder, "new.db", **topic.settings, **small)
    topic.write(written[3000:6000])
    until(lambda: three[1].health()["source"]["offset"] > 0)
    three[0].kill()
    topic.write(written[6000:])

    alone = monitor_process(folder, "alone.db", **{**small, **topic.settings_of("alone")})
    expected = alone.wait_for(_has_read(len(written)))
    until(lambda: sum(monitor.health()["source"]["offset"] for monitor in three[1:]) == len(written))
    until(lambda: _findings_of(three[1:]) == [findings(alone)[1]] * 2)
    counters = [monitor.health()["counters"] for monitor in three[1:]]
    assert expected["counters"] == {name: sum(each[name] for each in counters) for name in counters[0]}


def test_a_frozen_monitor_that_wakes_up_changes_nothing(
    folder: Path, topic: EventTopic, events: Any, monitor_process: Any, until: Any
) -> None:
    """Stopped beyond its session it loses its partitions; awake again it can tell nobody what it folded before."""
    written = stream(events, 2000)
    two = [monitor_process(folder, f"{number}.db", **topic.settings) for number in range(2)]
    for monitor in two:
        monitor.wait_for(lambda health: len(health["source"]["partitions"]) == topic.partitions // 2)
    topic.write(written[:2000])
    until(lambda: sum(monitor.health()["source"]["offset"] for monitor in two) == 2000)
    two[0].process.send_signal(signal.SIGSTOP)
    topic.write(written[2000:4000])
    two[1].wait_for(_has_read(4000))
    two[0].process.send_signal(signal.SIGCONT)
    topic.write(written[4000:])

    alone = monitor_process(folder, "alone.db", **topic.settings_of("alone"))
    alone.wait_for(_has_read(len(written)))
    until(lambda: sum(monitor.health()["source"]["offset"] for monitor in two) == len(written))
    until(lambda: _findings_of(two) == [findings(alone)[1]] * 2)
    assert [topic.partitions // 2] * 2 == [len(monitor.health()["source"]["partitions"]) for monitor in two]


def test_a_model_has_one_judge(folder: Path, topic: EventTopic, events: Any, monitor_process: Any, until: Any) -> None:
    """One monitor answers for it and tells its series; the others send whoever asks there."""
    two = [monitor_process(folder, f"{number}.db", **topic.settings) for number in range(2)]
    for monitor in two:
        monitor.wait_for(lambda health: len(health["source"]["partitions"]) == topic.partitions // 2)
    topic.write(stream(events, 200))
    until(lambda: sorted(monitor.client.get("/v1/models/delay").status_code for monitor in two) == [200, 307])

    judge, other = sorted(two, key=lambda monitor: monitor.client.get("/v1/models/delay").status_code)
    sent = other.client.get("/v1/models/delay/versions/1/window?start=2026-01-05T12:00:00Z")
    sent_twice = other.client.get("/v1/models/delay?sent_on=1")

    assert str(judge.client.base_url).rstrip("/") == sent.headers["location"].split("/v1/")[0]
    assert "/v1/models/delay/versions/1/window?start=2026-01-05T12:00:00Z" in sent.headers["location"]
    series = ["tiltyard_label_coverage_ratio{" in monitor.client.get("/metrics").text for monitor in (judge, other)]
    assert [True, False] == series
    assert (503, True) == (sent_twice.status_code, "try again" in sent_twice.json()["error"])


def test_what_is_refused_goes_to_a_topic_of_its_own(
    folder: Path, topic: EventTopic, events: Any, monitor_process: Any
) -> None:
    """A poison record is there with its bytes, the reason, and where it stands; the key tells one sent twice."""
    monitor = monitor_process(folder, **topic.settings)
    topic.write([events.answer("a"), b"junk", events.answer("b")])
    monitor.wait_for(_has_read(3))

    [record] = topic.records(f"{topic.name}-group.dead-letters", 1)

    headers = {name: value.decode() for name, value in record.headers}
    assert (b"junk", topic.name, "0", "malformed") == (
        record.value,
        *(headers[name] for name in ("topic", "partition", "reason")),
    )
    assert headers["detail"]
    assert f"{topic.name}/0/{headers['offset']}".encode() == record.key


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"TILTYARD_MONITOR_KAFKA__GROUP": "another"}, "give each group a kafka.panes_topic of its own"),
        ({"TILTYARD_MONITOR_PANE__LENGTH_S": "30"}, "has panes of 60 s: give all the same"),
    ],
    ids=["group", "panes"],
)
def test_a_monitor_that_does_not_fit_the_others_stands_still(
    folder: Path, topic: EventTopic, events: Any, monitor_process: Any, change: dict[str, str], sentence: str
) -> None:
    """Panes that cannot be added up are not: the monitor says why, leaves the group, and the others go on."""
    first = monitor_process(folder, "first.db", **topic.settings)
    topic.write([events.answer("a"), events.answer("b")])
    first.wait_for(_has_read(2))
    topic.records(f"{topic.name}-group.panes", 1)

    second = monitor_process(folder, "second.db", **{**topic.settings, **change})
    failing = second.wait_for(lambda health: health["status"] == "failing")

    assert sentence in failing["reason"]
    topic.write([events.answer("c")])
    first.wait_for(_has_read(3))
