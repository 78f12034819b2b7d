import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from monitor.settings import KafkaSettings
from monitor.sources.kafka import KafkaLog
from monitor.sources.source import Delivery, Mark, Message, Revoked, Stopped, TakenOver
from tests.kafka.broker import Broker
from tests.monitor.kafka.event_topic import EventTopic


class Reader:
    """Reads a topic as the consumer does, and keeps what came."""

    def __init__(self, topic: EventTopic, **options: Any) -> None:
        self._woken = threading.Event()
        name = topic.name
        settings = KafkaSettings(
            bootstrap_servers=topic.servers,
            events_topic=name,
            panes_topic=f"{name}.panes",
            dead_letters_topic=f"{name}.dead-letters",
            group=f"{name}-group",
        )
        self.log = KafkaLog(settings, 100, self._woken.set, {}, **options)
        self.lines: list[tuple[int, int, bytes]] = []
        self.stopped: list[Stopped] = []
        self.places: dict[int, tuple[int, Mark | None]] = {}

    def read_until(self, condition: Callable[[], bool]) -> None:
        """Takes what comes until a condition holds."""
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, (self.log.waiting, len(self.lines))
            message = self.log.next(100)
            if message is None:
                self._woken.wait(0.1)
                self._woken.clear()
            else:
                self._heed(message)

    def _heed(self, message: Message) -> None:
        if isinstance(message, TakenOver):
            self.log.seek(message.partition, *self.places.get(message.partition, (0, None)))
        elif isinstance(message, Revoked):
            self.log.given_up()
        elif isinstance(message, Stopped):
            self.stopped.append(message)
        elif isinstance(message, Delivery):
            expected, _ = self.places.get(message.partition, (0, None))
            assert expected == message.offset
            self.places[message.partition] = (message.batch.next_offset, message.mark)
            self.lines += [(message.partition, offset, line) for offset, line in message.batch.lines]


@pytest.fixture
def topic(broker: Broker) -> EventTopic:
    return EventTopic(broker.bootstrap_servers, 2)


@pytest.fixture
def reader_of() -> Iterator[Callable[..., Reader]]:
    readers: list[Reader] = []

    def read(topic: EventTopic, **options: Any) -> Reader:
        readers.append(Reader(topic, **options))
        return readers[-1]

    yield read
    for reader in readers:
        reader.log.close()


def _end_fetch_task(log: KafkaLog) -> None:
    log._loop.call_soon_threadsafe(lambda: log._reader._consumer._fetcher._fetch_task.cancel())  # type: ignore[union-attr]


def _starve(log: KafkaLog) -> None:
    def pause() -> None:
        consumer = log._reader._consumer  # type: ignore[union-attr]
        consumer.pause(*consumer.assignment())

    log._loop.call_soon_threadsafe(pause)


@pytest.mark.parametrize("harm", [_end_fetch_task, _starve], ids=["fetch task ended", "nothing comes"])
def test_a_client_from_which_nothing_comes_is_made_anew(
    topic: EventTopic, events: Any, reader_of: Callable[..., Reader], harm: Callable[[KafkaLog], None]
) -> None:
    """A client that has died silently is noticed by what it does not read; the next one misses nothing."""
    reader = reader_of(topic, stall_s=2.0)
    topic.write([events.answer(f"a{number}") for number in range(20)])
    reader.read_until(lambda: len(reader.lines) == 20)
    harm(reader.log)

    topic.write([events.answer(f"b{number}") for number in range(20)])
    reader.read_until(lambda: reader.log.rebuilt == 1)
    topic.write([events.answer(f"c{number}") for number in range(20)])
    reader.read_until(lambda: len(reader.lines) == 60 and reader.log.waiting is None)

    assert 1 == reader.log.rebuilt
    assert len({(partition, offset) for partition, offset, _ in reader.lines}) == 60


def test_no_more_is_read_than_can_wait(
    topic: EventTopic, events: Any, reader_of: Callable[..., Reader], until: Any
) -> None:
    """While nobody takes what was read, little more than was allowed is handed over; afterwards all of it comes."""
    reader = reader_of(topic)
    topic.write([events.answer("first")])
    reader.read_until(lambda: bool(reader.lines))
    topic.write([events.answer(f"a{number}") for number in range(1000)])
    until(lambda: reader.log._handover.full)
    waiting = reader.log._handover._events

    reader.read_until(lambda: len(reader.lines) == 1001)

    assert 100 <= waiting < 200
