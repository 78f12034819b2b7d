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
