"""The compacted topic through which monitors tell each other of their partitions. Needs the extra ``kafka``.

What is told of partition p of the log stands in partition p of this topic, so that its state is one log by itself. A
publication is a transaction of a producer whose transactional id is the group's and the partition's: whoever takes
the partition over fences the one before, which can then publish nothing any more, wakes it up however late.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from monitor.kafka_clients import consuming, in_time, make_topic, partition_count, positions_of, producing
from monitor.publication import SNAPSHOT, Publication, decode_snapshot, encode_snapshot
from monitor.settings import KafkaSettings
from monitor.sources.source import Letter, Received

_TRANSACTION_S: Final = 30.0
_TAKE_OVER_S: Final = 120.0
_POLL_MS: Final = 250
_MOST_RECORDS: Final = 2000
_SNAPSHOT_KEY: Final = SNAPSHOT.encode()


class PanesMisfitError(Exception):
    """The topic has another number of partitions than the log."""


class PanesTopic:
    """Reads what all monitors tell, and tells of the partitions that are taken over. Its methods run in one loop.

    Args:
        options: what clients are told of the brokers.
        settings: names of topics and group.
        partitions: how many the log has.
        followed: where each partition is read on.
        received: takes what was told.
    """

    def __init__(
        self,
        options: dict[str, Any],
        settings: KafkaSettings,
        partitions: int,
        followed: Mapping[int, int],
        received: Callable[[Received], None],
    ) -> None:
        self._options = options
        self._settings = settings
        self._partitions = partitions
        self._followed = followed
        self._received = received
        self._pending: dict[int, dict[str, bytes | None]] = {}
        self._producers: dict[int, AIOKafkaProducer] = {}
        self._stacks: list[AsyncExitStack] = []
        self._consumer: AIOKafkaConsumer | None = None
        self._read_on = asyncio.Condition()

    async def prepare(self) -> None:
        """Makes the topics where there are none.

        Raises:
            KafkaError: they cannot be made.
        """
        compacted = {"cleanup.policy": "compact"}
        await make_topic(self._options, self._settings.panes_topic, self._partitions, compacted)
        await make_topic(self._options, self._settings.dead_letters_topic, 1, {})

    async def follow(self, has_room: Callable[[], Any]) -> None:
        """Reads what is told until something fails, which is raised.

        Args:
            has_room: returns once more may be handed over.
        """
        topic = self._settings.panes_topic
        async with consuming(
            self._options,
            client_id="tiltyard-monitor-panes",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            isolation_level="read_committed",
        ) as consumer:
            count = await partition_count(consumer, topic)
            if count != self._partitions:
                raise PanesMisfitError(
                    f"topic {topic} has {count} partitions, but the log has {self._partitions}: delete it, or give "
                    f"another kafka.panes_topic"
                )
            places = [TopicPartition(topic, number) for number in range(count)]
            consumer.assign(places)
            for place in places:
                consumer.seek(place, self._followed.get(place.partition, 0))
            self._consumer = consumer
            while True:
                await has_room()
                found = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_MOST_RECORDS)
                for place, records in found.items():
                    for record in records:
                        self._take_in(place.partition, record)
                async with self._read_on:
                    self._read_on.notify_all()

    def _take_in(self, partition: int, record: ConsumerRecord) -> None:
        pending = self._pending.setdefault(partition, {})
        if record.key != _SNAPSHOT_KEY:
            pending[(record.key or b"").decode()] = record.value
            return
        publication = Publication(partition, pending, decode_snapshot(record.value or b""))
        self._pending[partition] = {}
        self._received(Received(publication, record.offset + 1))

    async def take_over(self, partition: int) -> int:
        """Fences whoever told of a partition before, and returns where the topic ends, once it is read up to there.

        Raises:
            KafkaError: it does not work, or not in time.
        """
        # The transaction of one that was fenced is ended before this returns.
        stack = AsyncExitStack()
        self._stacks.append(stack)
        self._producers[partition] = await stack.enter_async_context(
            producing(
                self._options,
                client_id=f"tiltyard-monitor-{partition}",
                transactional_id=f"{self._settings.group}-{self._settings.panes_topic}-{partition}",
            )
        )
        place = TopicPartition(self._settings.panes_topic, partition)
        end: int = await in_time(self._read_to_end(place), _TAKE_OVER_S)
        return end

    async def _read_to_end(self, place: TopicPartition) -> int:
        async with self._read_on:
            await self._read_on.wait_for(lambda: self._consumer is not None)
        assert self._consumer is not None  # waited for
        end: int = (await self._consumer.end_offsets([place]))[place]
        consumer = self._consumer
        async with self._read_on:
            await self._read_on.wait_for(lambda: positions_of(consumer, [place]).get(place, -1) >= end)
        return end

    async def publish(self, publication: Publication, letters: list[Letter]) -> bool:
        """Tells the others of a partition, whole or not at all; returns False where it is not taken over.

        Raises:
            KafkaError: another monitor has taken it over, or no broker answers.
        """
        producer = self._producers.get(publication.partition)
        if producer is None:
            return False
        await in_time(self._transact(producer, publication, letters), _TRANSACTION_S)
        return True

    async def _transact(self, producer: AIOKafkaProducer, publication: Publication, letters: list[Letter]) -> None:
        partition = publication.partition
        async with producer.transaction():
            for key, value in publication.records.items():
                await producer.send(self._settings.panes_topic, value, key.encode(), partition)
            value = encode_snapshot(publication.snapshot)
            await producer.send(self._settings.panes_topic, value, _SNAPSHOT_KEY, partition)
            for letter in letters:
                await self._set_aside(producer, partition, letter)

    async def _set_aside(self, producer: AIOKafkaProducer, partition: int, letter: Letter) -> None:
        """Sends a refused entry to the topic of such; the key tells one that is sent twice."""
        topic = self._settings.events_topic
        headers = {
            "reason": letter.reason,
            "detail": letter.detail,
            "topic": topic,
            "partition": str(partition),
            "offset": str(letter.offset),
        }
        await producer.send(
            self._settings.dead_letters_topic,
            letter.payload,
            f"{topic}/{partition}/{letter.offset}".encode(),
            headers=[(name, text.encode()) for name, text in headers.items()],
        )

    async def release(self) -> None:
        """Tells of no partition any more."""
        self._producers.clear()
        stacks, self._stacks = self._stacks, []
        # At once, for each may have to wait for a broker that is away.
        await asyncio.gather(*(stack.aclose() for stack in stacks))


def sentence_of(error: BaseException) -> str | None:
    """Returns what a person must see to, None for an error that is none of this topic's."""
    if isinstance(error, PanesMisfitError):
        return str(error)
    if isinstance(error, msgspec.DecodeError):
        return f"the topic of panes holds what no monitor of this version has written: {error}"
    return None
