"""Events on their way from the log to the topic, over one producer, until something about it fails. Needs ``kafka``.

What is sent is never sent again by this code: an idempotent producer tries for as long as it lives, and whoever sends
a record a second time besides has it in the log twice. Only a producer that has failed is given up, and another goes
on behind what each partition has acknowledged (``Progress``); of what was on its way then, the topic may have a double
with the same event id.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    CorruptRecordException,
    InvalidTimestampError,
    KafkaError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    UnknownError,
)

from server.contract.partition import partitions_of
from server.errors import TiltyardError, TopicError, TopicRefusedError
from server.eventlog.events_topic import check_partitions, ensure_events_topic
from server.eventlog.lane import Batch, Lane
from server.eventlog.log_tail import LogTail
from server.eventlog.record import addressed
from server.kafka_clients import producing, sends
from server.settings import KafkaSettings

logger = logging.getLogger(__name__)

BATCH_BYTES = 256 * 1024
"""The size of a batch before compression: a quarter of what brokers take by default."""

LEAST_BATCH_BYTES = 1024
RECORD_BYTES = 64 * 1024 * 1024
"""A larger event is set aside unsent: a broker hangs up on a request beyond its limit, and would do so for ever."""

READ_BYTES = 1024 * 1024
UNACKNOWLEDGED_BYTES = 32 * 1024 * 1024
PAUSE_S = 0.1
"""How long the log is left alone once read to its end: a second's events in ten batches, not in two hundred."""

SILENCE_S = 3.0
"""After so long without an acknowledgement, with some due, the brokers are asked how they are."""

PATIENCE_S = 60.0
"""After so long, with brokers that answer, the producer is taken for hung."""

METADATA_MS = 10_000
"""How soon another number of partitions is noticed at the latest."""

DOUBTS = 5
"""So often a batch is tried again whose refusal may be the broker's own fault."""

_REFUSALS = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidTimestampError)
_DOUBTFUL = (
    CorruptRecordException,
    PolicyViolationError,
    UnknownError,
)  # of the last kind are all aiokafka cannot name


class RefusedBatchError(TopicError):
    """A broker refuses records for what they are, not for the state it is in."""

    def __init__(self, lane: Lane, batch: Batch, error: KafkaError) -> None:
        """error: what the broker said."""
        super().__init__(f"partition {lane.partition}: a batch of {batch.count} events was refused: {_said(error)}")
        self.partition = lane.partition
        self.batch = batch
        self.error = error
        self.doubtful = isinstance(error, _DOUBTFUL)


class Progress:
    """What outlives a producer: how far each partition has come, and how batches must be made."""

    def __init__(self, offset: int, partitions: int) -> None:
        """offset: every event below has been acknowledged."""
        self.offset = offset
        self.read_to = offset
        self.acknowledged_to = [0] * partitions
        self.acknowledged_events = 0
        self.batch_bytes = BATCH_BYTES
        self.cap_times = False
        self.doubts = 0


class Shipment:
    """One producer's work. ``position`` and ``fault`` may be read at any time."""

    def __init__(
        self,
        settings: KafkaSettings,
        tail: LogTail,
        progress: Progress,
        set_aside: Callable[[int, bytes, str, int], None],
        missed: Callable[[int], None],
    ) -> None:
        """set_aside: keeps offset, content, reason and count of what cannot be shipped; missed: is told of gaps."""
        self.fault: str | None = None
        self.connected = False
        self._settings = settings
        self._tail = tail
        self._progress = progress
        self._set_aside = set_aside
        self._missed = missed
        self._read_to = progress.offset
        self._unacknowledged_bytes = 0
        self._heard_s = time.monotonic()
        self._room = asyncio.Event()
        self._lanes: list[Lane] = []

    @property
    def position(self) -> int:
        """The offset below which the topic has every event, or it was set aside."""
        waiting = [lane.waiting_from for lane in self._lanes]
        return min((each for each in waiting if each is not None), default=self._read_to)

    @property
    def idle(self) -> bool:
        """Whether everything that was read has been acknowledged."""
        return self.position == self._read_to

    async def run(self) -> None:
        """Ships until it is cancelled.

        Raises:
            ExceptionGroup: of what went wrong with the producer, the topic or the log.
            KafkaError, TiltyardError: no broker answers, or the files of the credentials cannot be used.
        """
        compression = None if self._settings.compression == "none" else self._settings.compression
        async with producing(
            self._settings,
            acks="all",
            enable_idempotence=True,
            compression_type=compression,
            max_batch_size=self._progress.batch_bytes,
            max_request_size=2 * RECORD_BYTES,
            metadata_max_age_ms=METADATA_MS,
        ) as producer:
            # A batch without a leader would be given up after the time of one request, sent or not.
            producer._message_accumulator._batch_ttl = math.inf
            self._lanes = [
                Lane(partition, producer.create_batch, acknowledged_to)
                for partition, acknowledged_to in enumerate(self._progress.acknowledged_to)
            ]
            self.connected = True
            try:
                async with asyncio.TaskGroup() as tasks:
                    for lane in self._lanes:
                        tasks.create_task(self._send_forever(producer, lane))
                    tasks.create_task(self._read_forever())
                    tasks.create_task(self._watch(producer))
            finally:
                self.connected = False
                with suppress(TimeoutError):  # the acknowledgements of what is on its way save doubles
                    async with asyncio.timeout(1.0):
                        await producer.flush()

    def close(self) -> None:
        """Hands on how far this has come."""
        self._progress.offset = self.position
        self._progress.acknowledged_to = [
            lane.acknowledged_to for lane in self._lanes
        ] or self._progress.acknowledged_to

    async def _read_forever(self) -> None:
        while True:
            while self._unacknowledged_bytes >= UNACKNOWLEDGED_BYTES:
                self._room.clear()
                await self._room.wait()
            span = self._tail.read(self._read_to, READ_BYTES)
            if span.end == self._read_to:
                await asyncio.sleep(PAUSE_S)
                continue
            new = self._read_to >= self._progress.read_to  # what another shipment has read is told of already
            if span.missed and new:
                self._missed(span.missed)
            for first, count, payload in span.damaged:
                self._put_aside(first, payload, "the chunk is damaged", count)
            self._take(span.offsets, span.lines)
            self._read_to = span.end
            self._progress.read_to = max(self._progress.read_to, span.end)
            await asyncio.sleep(0)

    def _take(self, offsets: list[int], lines: list[bytes]) -> None:
        """Puts events into the lanes of their partitions."""
        addresses = addressed(lines)
        keys = [address[0] if address else b"" for address in addresses]
        places = partitions_of(keys, len(self._lanes))
        latest_ms = time.time_ns() // 1_000_000 if self._progress.cap_times else 2**63 - 1
        lanes = self._lanes
        if not self._unacknowledged_bytes:
            self._heard_s = time.monotonic()  # nothing was due before
        for offset, line, address, place in zip(offsets, lines, addresses, places, strict=True):
            if address is None:
                self._put_aside(offset, line, "it is no event with a key and a time")
            elif len(line) > RECORD_BYTES:
                self._put_aside(offset, line, f"it is larger than {RECORD_BYTES} bytes")
            else:
                self._unacknowledged_bytes += lanes[place].add(offset, address[0], line, min(address[1], latest_ms))

    def _put_aside(self, offset: int, content: bytes, reason: str, count: int = 1) -> None:
        if offset >= self._progress.read_to:
            self._set_aside(offset, content, reason, count)

    async def _send_forever(self, producer: AIOKafkaProducer, lane: Lane) -> None:
        topic = self._settings.events_topic
        while True:
            batch = await lane.next()
            future = await producer.send_batch(batch.builder, topic, partition=lane.partition)
            # Called even when this task has been cancelled meanwhile: an acknowledgement is one.
            future.add_done_callback(partial(self._acknowledged, lane, batch))
            try:
                await asyncio.shield(future)
            except (*_REFUSALS, *_DOUBTFUL) as error:
                raise RefusedBatchError(lane, batch, error) from error

    def _acknowledged(self, lane: Lane, batch: Batch, future: "asyncio.Future[Any]") -> None:
        if future.cancelled() or future.exception() is not None:
            return  # whoever waits raises it
        lane.acknowledged(batch)
        self.fault = None
        self._heard_s = time.monotonic()
        self._unacknowledged_bytes -= batch.size_bytes
        self._progress.acknowledged_events += batch.count
        self._room.set()

    async def _watch(self, producer: AIOKafkaProducer) -> None:
        """Ends the shipment when its producer cannot go on, which aiokafka tells nobody."""
        settings = self._settings
        asked_s = time.monotonic()
        healthy_s: float | None = None
        while True:
            await asyncio.sleep(PAUSE_S)
            if not sends(producer):
                raise TopicError("expected aiokafka's sender to live, got its end")
            known = producer.client.cluster.partitions_for_topic(settings.events_topic)
            if known:
                check_partitions(settings, len(known))
            now_s = time.monotonic()
            if self._unacknowledged_bytes == 0 or now_s - self._heard_s < SILENCE_S:
                healthy_s = None
                continue
            if now_s - asked_s < SILENCE_S:
                continue
            try:
                await ensure_events_topic(settings)  # one that was deleted is made again
            except TopicRefusedError:
                raise
            except Exception as error:  # noqa: BLE001  # aiokafka's inner errors share no other class
                self.fault, healthy_s = broker_fault(settings, error), None
            else:
                self.fault = f"topic {settings.events_topic!r}: expected acknowledgements, got none for {SILENCE_S:g} s"
                healthy_s = healthy_s or now_s
            asked_s = time.monotonic()
            if healthy_s is not None and asked_s - healthy_s > PATIENCE_S:
                raise TopicError(
                    f"expected an acknowledgement within {PATIENCE_S:g} s, got none, though brokers answer"
                )


def learn(
    progress: Progress, refused: RefusedBatchError, find: Callable[[int], bytes]
) -> tuple[int, bytes, str] | None:
    """Takes from a refused batch how to make the next ones; returns an event that must be set aside, if it is known.

    Args:
        progress: of the shipment that failed; batches become half as large until the refused event is alone.
        refused: a broker's word.
        find: returns the event at an offset.
    """
    batch, error = refused.batch, refused.error
    if refused.doubtful and progress.doubts < DOUBTS:
        progress.doubts += 1
        return None
    if isinstance(error, InvalidTimestampError) and not progress.cap_times:
        progress.cap_times = True  # the topic takes no time far ahead of its own: the event itself still tells it
        return None
    if batch.count > 1:
        progress.batch_bytes = max(LEAST_BATCH_BYTES, min(progress.batch_bytes, batch.size_bytes) // 2)
        return None
    progress.acknowledged_to[refused.partition] = batch.first + 1
    if refused.doubtful:  # its neighbours were not what was refused
        progress.batch_bytes = BATCH_BYTES
        progress.doubts = 0
    return batch.first, find(batch.first), f"no broker takes it: {_said(error)}"


def broker_fault(settings: KafkaSettings, error: BaseException) -> str:
    """Returns what was expected of brokers and what came."""
    if isinstance(error, TiltyardError):
        return str(error)
    if isinstance(error, OSError):
        return f"{settings.bootstrap_servers}: expected a broker that answers, got: {type(error).__name__}"
    if isinstance(error, KafkaError):
        return f"{settings.bootstrap_servers}: expected a broker that acknowledges events, got: {_said(error)}"
    return f"expected Kafka's client to go on, got: {error!r}"


def now_text() -> str:
    """Returns the present time as events tell it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _said(error: BaseException) -> str:
    return f"{type(error).__name__} {error}".strip()
