"""Topics of events on a real broker, written as the server's shipper writes them, and streams to write."""

import asyncio
import random
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete

from server.contract.events import encode_event

PARTITIONS = 6
HEADERS = [("content-type", b"application/cloudevents+json; charset=UTF-8")]


class EventTopic:
    """A topic of events, made under a name that no other test uses, and a consumer group's name beside it.

    Args:
        servers: the broker's address.
        partitions: how many it has.
    """

    def __init__(self, servers: str, partitions: int = PARTITIONS) -> None:
        self.servers = servers
        self.name = f"events-{uuid.uuid4().hex[:8]}"
        self.partitions = partitions
        self.make()

    @property
    def settings(self) -> dict[str, str]:
        """The variables that make a monitor read it."""
        return {
            "TILTYARD_KAFKA__BOOTSTRAP_SERVERS": self.servers,
            "TILTYARD_KAFKA__EVENTS_TOPIC": self.name,
            **self._of_group("group"),
        }

    def settings_of(self, group: str) -> dict[str, str]:
        """The same for a group of its own."""
        return {**self.settings, **self._of_group(group)}

    def _of_group(self, group: str) -> dict[str, str]:
        return {
            "TILTYARD_MONITOR_KAFKA__GROUP": f"{self.name}-{group}",
            "TILTYARD_MONITOR_KAFKA__PANES_TOPIC": f"{self.name}-{group}.panes",
            "TILTYARD_MONITOR_KAFKA__DEAD_LETTERS_TOPIC": f"{self.name}-{group}.dead-letters",
            "TILTYARD_MONITOR_KAFKA__PUBLISH_S": "0.3",
        }

    def make(self) -> None:
        """Makes it."""

        async def run(admin: AIOKafkaAdminClient) -> None:
            # Events of tests are older than a broker keeps them.
            forever = {"retention.ms": "-1"}
            await admin.create_topics([NewTopic(self.name, self.partitions, 1, topic_configs=forever)])

        self.administer(run)

    def delete(self) -> None:
        """Deletes it."""

        async def run(admin: AIOKafkaAdminClient) -> None:
            await admin.delete_topics([self.name])

        self.administer(run)

    def trim(self) -> None:
        """Removes everything that is in it, as retention does."""

        async def run(admin: AIOKafkaAdminClient) -> None:
            await admin.delete_records(
                {TopicPartition(self.name, each): RecordsToDelete(before_offset=-1) for each in range(self.partitions)}
            )

        self.administer(run)

    def administer(self, work: Any) -> Any:
        """Returns what an async function of an admin client returns."""

        async def run() -> Any:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.servers)
            await admin.start()
            try:
                return await work(admin)
            finally:
                await admin.close()

        return asyncio.run(run())

    def records(self, name: str, count: int) -> list[Any]:
        """Returns so many records of a topic that is there or is being made."""

        async def run() -> list[Any]:
            consumer = AIOKafkaConsumer(
                name,
                bootstrap_servers=self.servers,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
                metadata_max_age_ms=500,
            )
            await consumer.start()
            try:
                async with asyncio.timeout(30):
                    return [await consumer.getone() for _ in range(count)]
            finally:
                await consumer.stop()

        return asyncio.run(run())

    def write(self, events: Sequence[Any]) -> int:
        """Writes events in order and returns how many; bytes stand for themselves, and have no key."""

        async def run() -> None:
            producer = AIOKafkaProducer(
                bootstrap_servers=self.servers, acks="all", enable_idempotence=True, linger_ms=5
            )
            await producer.start()
            try:
                sent = [await producer.send(self.name, headers=HEADERS, **record_of(event)) for event in events]
                await asyncio.gather(*sent)
            finally:
                await producer.stop()

        asyncio.run(run())
        return len(events)


def record_of(event: Any) -> dict[str, Any]:
    """Returns value, key and time of an event's record."""
    if isinstance(event, bytes):
        return {"value": event, "key": None, "partition": 0, "timestamp_ms": 0}
    time_ms = round(event.time.timestamp() * 1000)
    return {"value": encode_event(event), "key": event.subject.encode(), "timestamp_ms": time_ms}


def stream(events: Any, requests: int, seed: int = 11) -> list[Any]:
    """Returns events of two versions with labels late and early, corrections, duplicates and junk."""
    chance = random.Random(seed)
    found: list[Any] = []
    for number in range(requests):
        name, at_s, p = f"r{number}", number * 0.5, chance.random()
        found += [events.answer(name, at_s, p=[p]), events.answer(name, at_s, p=[p**2], version="2", role="shadow")]
        other = chance.randrange(number + 20)
        found.append(events.label(f"r{other}", chance.randrange(2), at_s, event_id=f"l{chance.randrange(requests)}"))
        if number % 50 == 0:
            found += [b"junk", events.answer("x", version="9"), found[-3]]
    return found


def findings(monitor: Any) -> Any:
    """Returns everything a monitor has found of the model, exactly."""
    documents = [monitor.client.get(path).content for path in ("/v1/models", "/v1/models/delay?panes=100000")]
    return [msgspec.json.decode(document) for document in documents]


def counted(health: Any) -> dict[str, int]:
    """Returns the counters that do not depend on how the log is cut."""
    cut = ("late", "expired", "orphan_labels")
    return {name: count for name, count in health["counters"].items() if name not in cut}
