"""What tests of shipping share: events, a log that is shipped, and the topic read back by another client."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from server.eventlog.outbox import Outbox
from server.eventlog.ship_status import ShipStatus, read_status
from server.eventlog.shipped import read_shipped
from server.eventlog.shipper_process import shipping
from server.identifiers import uuid7
from server.settings import KafkaSettings, Settings
from tests.kafka.broker import Broker
from tests.patience import PATIENCE_S, until

# Of today: brokers delete what is older than their retention by the records' own times.
NOW = datetime.now(UTC).replace(microsecond=678_901)
NOW_MS = int(NOW.replace(microsecond=0).timestamp()) * 1000 + 678


def event(number: int, key: str | None = None, time_: str = NOW.isoformat(), pad: int = 0) -> bytes:
    """Returns a label's line; every seventh has its request id in common."""
    key = f"request-{number % 7}" if key is None else key
    return json.dumps(
        {
            "specversion": "1.0",
            "id": f"event-{number}",
            "source": "/models/flight/versions/1",
            "type": "tiltyard.label.v1",
            "time": time_,
            "subject": key,
            "partitionkey": key,
            "datacontenttype": "application/json",
            "data": {"label": number, "model": "x" * pad},
        }
    ).encode()


@dataclass(frozen=True)
class Record:
    """One record of a topic."""

    partition: int
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    timestamp_ms: int

    @property
    def id(self) -> str:
        """The event's id."""
        return str(json.loads(self.value)["id"])


def records(servers: str, topic: str) -> list[Record]:
    """Returns all records of a topic, partition by partition in their order, as librdkafka reads them."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "tests", "enable.auto.commit": False})
    found: list[Record] = []
    try:
        metadata = consumer.list_topics(topic, timeout=PATIENCE_S).topics[topic]
        assert metadata.error is None, metadata.error
        ends = {}
        for partition in metadata.partitions:
            low, high = _bounds(consumer, TopicPartition(topic, partition))
            if low < high:
                ends[partition] = (low, high)
        consumer.assign([TopicPartition(topic, partition, low) for partition, (low, _) in ends.items()])
        while ends:
            messages = consumer.consume(1_000, 1.0)
            for message in messages:
                assert message.error() is None, message.error()
                partition, offset, key, value = message.partition(), message.offset(), message.key(), message.value()
                assert partition is not None
                assert offset is not None
                assert key is not None
                assert value is not None
                found.append(Record(partition, key, value, list(message.headers() or []), message.timestamp()[1]))
                if partition in ends and offset + 1 >= ends[partition][1]:
                    del ends[partition]
    finally:
        consumer.close()
    return sorted(found, key=lambda record: record.partition)  # stable: each partition's order stays


def _bounds(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """Returns the first offset and the next one; a broker that has just come back may not lead its partitions yet."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            low, high = consumer.get_watermark_offsets(partition, timeout=PATIENCE_S)
            return low, high
        except KafkaException:
            if time.monotonic() > deadline:
                raise


def make_topic(servers: str, topic: str, partitions: int, **config: str) -> None:
    """Returns once there is a topic; dots of a setting's name are written as underscores."""
    admin = AdminClient({"bootstrap.servers": servers})
    settings = {name.replace("_", "."): value for name, value in config.items()}
    admin.create_topics([NewTopic(topic, partitions, 1, config=settings)])[topic].result(PATIENCE_S)
    until(lambda: has_topic(admin, topic), f"topic {topic}")


def grow_topic(servers: str, topic: str, partitions: int) -> None:
    """Returns once a topic has so many partitions."""
    admin = AdminClient({"bootstrap.servers": servers})
    admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(PATIENCE_S)


def drop_topic(servers: str, topic: str) -> None:
    """Returns once a topic has been deleted."""
    admin = AdminClient({"bootstrap.servers": servers})
    admin.delete_topics([topic])[topic].result(PATIENCE_S)


def has_topic(admin: AdminClient, topic: str) -> bool:
    """Says whether a topic is known."""
    with contextlib.suppress(KafkaException):
        return topic in admin.list_topics(timeout=PATIENCE_S).topics
    return False


@dataclass(frozen=True)
class ShippedLog:
    """A log of this process, and where it is shipped."""

    settings: Settings
    outbox: Outbox

    def append(self, *lines: bytes) -> None:
        """Appends events, of which none may be dropped."""
        for line in lines:
            assert self.outbox.append(line)

    def commit(self, *lines: bytes) -> None:
        """Appends events and returns once they are committed."""
        self.append(*lines)
        until(lambda: self.outbox.backlog == 0, "the commit")

    @property
    def offset(self) -> int:
        """Below it everything has been shipped."""
        shipped = read_shipped(self.settings.outbox)
        return 0 if shipped is None else shipped.offset

    @property
    def status(self) -> ShipStatus:
        """How the shipper is doing."""
        return read_status(self.settings.outbox)

    def wait(self, offset: int) -> None:
        """Returns once everything below an offset has been shipped."""
        until(lambda: self.offset >= offset, f"offset {offset} to be shipped, which {self.offset} is, {self.status}")
        assert self.offset == offset

    def records(self) -> list[Record]:
        """Returns what the topic has."""
        return records(str(self.settings.kafka.bootstrap_servers), self.settings.kafka.events_topic)

    def kill_shipper(self) -> None:
        """Ends the shipper as a power cut does."""
        os.kill(self.status.pid, signal.SIGKILL)


def kafka_settings(broker: Broker, **changes: object) -> KafkaSettings:
    """Returns settings with a topic of their own."""
    values = {"bootstrap_servers": broker.bootstrap_servers, "events_topic": f"events-{uuid7()}", **changes}
    return KafkaSettings.model_validate(values)


@contextlib.contextmanager
def shipped_log(folder: Path, kafka: KafkaSettings, **events: object) -> Iterator[ShippedLog]:
    """Gives a log, whose shipper ends after it."""
    settings = Settings.model_validate({"outbox": folder / "outbox.db", "kafka": kafka, "events": events})
    outbox = Outbox(settings.outbox, settings.events, shipped=True)
    with shipping(settings):
        try:
            yield ShippedLog(settings, outbox)
        finally:
            outbox.close()
