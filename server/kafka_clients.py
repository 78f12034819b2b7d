"""Kafka's clients as contexts that end in bounded time, whether brokers answer or not. Needs the extra ``kafka``.

aiokafka 0.14 closes its clients well while brokers answer. What it does otherwise is seen to here, and only here are
members of it touched that it does not promise to keep:

- An idempotent producer never gives a record up, so its ``stop`` waits for ever for a broker that is away.
- A consumer's ``stop`` cancels a fetch that waits before its next try, and then ends cancelled itself, its
  connections open.
- Closing a connection waits for what was written to it, for which a frozen broker has no ear.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError

from server.kafka_credentials import client_options
from server.settings import KafkaSettings

REQUEST_MS = 5000
"""How long one request may take; aiokafka itself would wait 40 s for a broker that is gone."""

FLUSH_S = 1.0
"""How long a producer that is closed tries to get rid of what it has."""

CLOSE_S = 5.0
"""How long connections may take to close."""


@asynccontextmanager
async def consuming(settings: KafkaSettings, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """Gives a consumer that has started.

    Args:
        settings: name brokers, and say who this is to them.
        options: of AIOKafkaConsumer.

    Raises:
        KafkaError: no broker answers.
        SettingsError: a file of the credentials cannot be used.
    """
    consumer = AIOKafkaConsumer(**client_options(settings), request_timeout_ms=REQUEST_MS, **options)
    try:
        await consumer.start()
        yield consumer
    finally:
        stopping = await _ended(consumer.stop())
        if stopping.cancelled():
            await _ended(consumer._client.close())


@asynccontextmanager
async def producing(settings: KafkaSettings, **options: Any) -> AsyncIterator[AIOKafkaProducer]:
    """Gives a producer that has started; what it could not send in the end fails with KafkaConnectionError.

    Args:
        settings: name brokers, and say who this is to them.
        options: of AIOKafkaProducer.

    Raises:
        KafkaError: no broker answers.
        SettingsError: a file of the credentials cannot be used.
    """
    producer = AIOKafkaProducer(**client_options(settings), request_timeout_ms=REQUEST_MS, **options)
    try:
        await producer.start()
        yield producer
    finally:
        if producer._sender.sender_task is not None:
            await _ended(producer.flush(), FLUSH_S)
            await _end_sender(producer)
        await _ended(producer.stop())


def sends(producer: AIOKafkaProducer) -> bool:
    """Says whether a producer's background task lives; without it `send_and_wait` hangs for ever."""
    return not producer._sender.sender_task.done()


@asynccontextmanager
async def administering(settings: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    """Gives an admin client that has started.

    Args:
        settings: name brokers, and say who this is to them.

    Raises:
        KafkaError: no broker answers.
        SettingsError: a file of the credentials cannot be used.
    """
    admin = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=REQUEST_MS)
    try:
        await admin.start()
        yield admin
    finally:
        await _ended(admin.close())


async def _end_sender(producer: AIOKafkaProducer) -> None:
    """Ends a producer's task, then fails what it has not sent, so that `stop` has nothing to wait for.

    In this order: a batch that failed while its request was on the way would be a KeyError when that one ends.
    """
    sender = producer._sender.sender_task
    for _ in range(2):  # cancelled once it waits for the request on the way, cancelled again it does not
        sender.cancel()
        await asyncio.wait({sender}, timeout=FLUSH_S)
    accumulator = producer._message_accumulator
    # One that was sent in vain and waits for its next try must be among those that are on the way when it fails.
    accumulator._pending_batches.update(*accumulator._batches.values())
    accumulator._batches.clear()
    for batch in tuple(accumulator._pending_batches):
        batch.failure(KafkaConnectionError("closed before a broker has answered"))
        batch._drain_waiter.exception()  # looked at, so that asyncio does not complain


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
