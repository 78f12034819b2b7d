"""Kafka's clients as the monitor uses them: contexts that end in bounded time. Needs the extra ``kafka``.

What aiokafka 0.14 does when brokers do not answer is seen to here, and only here are members of it touched that it
does not promise to keep:

- A consumer's ``stop`` waits for its coordinator, which may wait for a broker, and ends cancelled itself when it
  cancels a fetch that waits before its next try, its connections open.
- A consumer's fetch task that has died is told by nobody (aiokafka #983).
- An idempotent producer never gives a record up, so its ``stop`` waits for ever for a broker that is away.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, for_code

FLUSH_S = 1.0
"""How long a producer that is closed tries to get rid of what it has."""

CLOSE_S = 5.0
"""How long connections may take to close."""


@asynccontextmanager
async def consuming(options: dict[str, Any], **more: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """Gives a consumer that has started.

    Args:
        options: what ``connection`` returned.
        more: of AIOKafkaConsumer.

    Raises:
        KafkaError: no broker answers.
    """
    consumer = AIOKafkaConsumer(**options, **more)
    try:
        await consumer.start()
        yield consumer
    finally:
        stopping = await _ended(consumer.stop())
        if stopping.cancelled():
            await _ended(consumer._client.close())


def fetches(consumer: AIOKafkaConsumer) -> bool:
    """Says whether a consumer's fetch task lives; without it ``getmany`` returns nothing for ever."""
    return not consumer._fetcher._fetch_task.done()


@asynccontextmanager
async def producing(options: dict[str, Any], **more: Any) -> AsyncIterator[AIOKafkaProducer]:
    """Gives a producer that has started; what it could not send in the end is given up.

    Args:
        options: what ``connection`` returned.
        more: of AIOKafkaProducer.

    Raises:
        KafkaError: no broker answers.
    """
    producer = AIOKafkaProducer(**options, **more)
    try:
        await producer.start()
        yield producer
    finally:
        if producer._sender.sender_task is not None:
            await _ended(producer.flush(), FLUSH_S)
            producer._sender.sender_task.cancel()
            await asyncio.wait({producer._sender.sender_task}, timeout=FLUSH_S)
        await _ended(producer.stop())


async def in_time(work: Awaitable[Any], limit_s: float) -> Any:
    """Returns what the work returns, or raises KafkaError when it takes too long: a sender that died answers nobody."""
    try:
        async with asyncio.timeout(limit_s):
            return await work
    except TimeoutError as error:
        raise KafkaError(f"no answer within {limit_s:g} s") from error


async def make_topic(options: dict[str, Any], name: str, partitions: int, configs: dict[str, str]) -> None:
    """Makes a topic where there is none; copies are the brokers' default.

    Raises:
        KafkaError: it cannot be made.
    """
    admin = AIOKafkaAdminClient(**options)
    try:
        await admin.start()
        # -1 is "the brokers' default" to a broker, and to NewTopic "see the assignments", of which there are none.
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, topic_configs=configs)
        topic.replication_factor = -1
        answer = await admin.create_topics([topic])
        for _, code, *detail in answer.topic_errors:
            kind = for_code(code)
            if kind.__name__ not in ("NoError", "TopicAlreadyExistsError"):
                raise kind(f"topic {name} cannot be made: {detail[0] if detail else kind.__name__}")
    finally:
        await _ended(admin.close())


async def partition_count(consumer: AIOKafkaConsumer, topic: str) -> int:
    """Returns how many partitions a topic has that was seen to be there."""
    return len(await consumer._client._wait_on_metadata(topic))


def positions_of(consumer: AIOKafkaConsumer, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """Returns where partitions are read on, without waiting; those without a valid place are left out."""
    return {place: state.position for place, state in _states(consumer, places) if state.has_valid_position}


def ends_of(consumer: AIOKafkaConsumer, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """Returns up to where partitions can be read, as of their last fetch; those not yet fetched from are left out."""
    ends = {place: state.lso for place, state in _states(consumer, places)}
    return {place: end for place, end in ends.items() if end is not None and end >= 0}


def _states(consumer: AIOKafkaConsumer, places: Iterable[TopicPartition]) -> list[tuple[TopicPartition, Any]]:
    subscription = consumer._subscription.subscription
    assignment = None if subscription is None else subscription.assignment
    if assignment is None or not assignment.active:
        return []
    return [(place, assignment.state_value(place)) for place in places if place in assignment.tps]


async def _ended(closing: Coroutine[Any, Any, None], limit_s: float = CLOSE_S) -> "asyncio.Task[None]":
    """Returns the task of a closing that has ended, by itself or by force; its error is not the caller's."""
    task = asyncio.create_task(closing)
    try:
        await asyncio.wait({task}, timeout=limit_s)
    finally:
        task.cancel()
    await asyncio.wait({task}, timeout=limit_s)
    if task.done() and not task.cancelled():
        task.exception()  # looked at, so that asyncio does not complain
    return task
