"""Routes in Kafka: one compacted topic that every server writes changes to and reads from the start.

What holds is what every reader finds in it, by the rule of ``server/routing/chain.py``: of several changes of one
revision the first in the topic's one order. A writer does not know whether its change holds before it has read it
back, and nobody decides for the others.

Compaction keeps the last record of every key. Were the key the model, that could be a change that had lost against
one before it, and for readers that come later it would hold. So every change has a key of its own,
``<model>/<revision>/<id>``: compaction takes nothing away, and the topic is the history. A writer that sees its
change lose deletes it with a tombstone. No reader needs that, as long as the winner stands before the loser; it
keeps the loser from being the first record that is left, should somebody trim the topic.

A record must not be written twice: compaction would keep the later place, behind those that lost against it.
Hence the idempotent producer, and a change is sent once and then waited for, however long that takes.

aiokafka neither tells its user that brokers are away nor that one of its tasks has died, so the end of the topic is
asked for all the time: no answer, or records that do not arrive, and everything is connected anew.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError, NodeNotReadyError

from server.errors import RouteError, RouteStoreError, SettingsError, StaleRouteError, TiltyardError
from server.kafka_clients import consuming, producing, sends
from server.routes.compacted_topic import ensure_compacted_topic
from server.routes.record import decode_record, encode_record
from server.routing.chain import Chain
from server.routing.revision import Revision
from server.settings import KafkaSettings

logger = logging.getLogger(__name__)

CHANGE_S = 10.0
"""How long whoever changes a route waits to learn whether the change holds."""

ANSWER_S = 5.0
"""How long brokers may take to say where the topic ends, or to hand out the next record before it."""

LOOK_S = 1.0
"""How often they are asked."""

_CONNECT_S = 20.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 3.0
_MOST_CHANGES = 1000

# A request that was on the way when its connection broke may reach a broker that wakes up later.
_UNSURE = "; the change may still come to hold"


class Accepted(Protocol):
    """What is told of revisions that hold."""

    async def __call__(self, revisions: Sequence[Revision], *, history: bool) -> None:
        """Takes over revisions that hold, in the topic's order.

        The first call brings all that stood there at the start, maybe nothing, with ``history`` true. When a call
        raises, its revisions come again, with those that were read meanwhile.
        """


@dataclass(slots=True)
class _Change:
    """A change of this server's that it has not read back yet.

    ``sent`` is done once brokers have it for good, or cannot be given it; ``outcome`` becomes None when the change
    holds, else the error that says why it does not.
    """

    revision: Revision
    outcome: "asyncio.Future[TiltyardError | None]"
    sent: "asyncio.Future[Any] | None" = None


class RouteTopic:
    """The topic of routes, as one server has it. ``run_forever`` must run for anything to happen.

    ``fault`` says why the topic cannot be read at present, None while it can; ``caught_up`` is set once all that
    stood there at the start has been handed over.
    """

    def __init__(self, settings: KafkaSettings, accepted: Accepted) -> None:
        """accepted: is given every revision that holds, its own server's as well.

        Raises:
            SettingsError: the settings name no broker.
        """
        if settings.bootstrap_servers is None:
            raise SettingsError("kafka.bootstrap_servers: expected host:port, got none")
        self.where = f"topic {settings.routes_topic!r} at {settings.bootstrap_servers}"
        self.caught_up = asyncio.Event()
        self.fault: str | None = f"{self.where}: not read yet"
        self._settings = settings
        self._partition = TopicPartition(settings.routes_topic, 0)
        self._accepted = accepted
        self._chain = Chain()
        self._next_offset = 0
        self._pause_s = _FIRST_PAUSE_S
        self._told: str | None = None
        self._producer: AIOKafkaProducer | None = None
        self._ready: list[Revision] = []
        self._changes: dict[str, _Change] = {}
        self._decided: list[tuple[_Change, TiltyardError | None]] = []
        self._lost: list[bytes] = []

    async def run_forever(self) -> None:
        """Reads the topic until it is cancelled, and connects anew whenever that fails."""
        try:
            while True:
                try:
                    await self._read_while_it_works()
                except Exception as error:  # noqa: BLE001  # aiokafka's inner errors share no other class
                    self._tell(error)
                await asyncio.sleep(self._pause_s)
                self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        finally:
            self.fault = f"{self.where}: not read any more"
            self._give_up(self.fault)
            self._resolve()

    def current(self, model: str) -> int | None:
        """Returns the number of a model's revision that holds, None where the topic has none."""
        return self._chain.current(model)

    async def publish(self, revision: Revision) -> None:
        """Returns once brokers have a change for good. Whether it holds is known when it has been read back.

        Raises:
            StaleRouteError: another revision than its base holds.
            RouteError: no reader would accept it.
            RouteStoreError: it could not be written, or nobody knows whether it was.
        """
        if revision.id in self._chain:
            return
        change = await self._send(revision)
        assert change.sent is not None
        await asyncio.wait({change.sent}, timeout=CHANGE_S)
        if not change.sent.done():
            raise self._unsure(revision, f"expected a broker to confirm it within {CHANGE_S:g} s, got nothing")
        if (error := change.sent.exception()) is not None:
            raise self._unsure(revision, _reason(error)) from error

    async def change(self, revision: Revision) -> Revision:
        """Publishes a change, and returns it once it holds and ``accepted`` has taken it over.

        Called again with the same revision it is not published again.

        Raises:
            StaleRouteError: another change of its base was first; that one was handed over.
            RouteError: no reader would accept it.
            RouteStoreError: it could not be written, or nobody knows whether it holds.
        """
        if revision.id in self._chain:
            return revision
        change = await self._send(revision)
        assert change.sent is not None
        try:
            async with asyncio.timeout(CHANGE_S):
                await asyncio.wait({change.sent, change.outcome}, return_when=asyncio.FIRST_COMPLETED)
                error = change.sent.exception() if change.sent.done() else None
                # One that brokers may have after all is looked for in the topic; one they refused is not.
                if isinstance(error, KafkaError) and not error.retriable:
                    raise self._unsure(revision, _reason(error)) from error
                fault = await asyncio.shield(change.outcome)
        except TimeoutError as late:
            raise self._unsure(revision, f"expected to read it back within {CHANGE_S:g} s, got nothing") from late
        if fault is not None:
            raise fault
        return revision

    async def _send(self, revision: Revision) -> _Change:
        """Gives a change to the producer, which never gives it up by itself."""
        key, value = encode_record(revision)
        said = _name(revision)
        if self.fault is not None or self._producer is None:
            raise RouteStoreError(f"{said}: {self.fault}; nothing has changed")
        if revision.id in self._changes:
            raise RouteStoreError(f"{said}: expected a new change, got one that is on its way; it may come to hold")
        if len(self._changes) >= _MOST_CHANGES:
            raise RouteStoreError(
                f"{said}: expected fewer than {_MOST_CHANGES} changes on their way, got them; nothing has changed"
            )
        if (current := self._chain.current(revision.model)) is not None and revision.base < current:
            raise _stale(revision, current)
        change = _Change(revision, asyncio.get_running_loop().create_future())
        self._changes[revision.id] = change
        try:
            async with asyncio.timeout(CHANGE_S):
                change.sent = await self._producer.send(self._partition.topic, value, key, self._partition.partition)
            change.sent.add_done_callback(asyncio.Future.exception)  # looked at, also when nobody waits any more
        except (KafkaError, TimeoutError) as error:
            raise RouteStoreError(f"{said}: {self.where}: {_reason(error)}; nothing has changed") from error
        finally:
            if change.sent is None:
                self._changes.pop(revision.id, None)
        return change

    async def _read_while_it_works(self) -> None:
        """Connects, catches up and follows the topic; returns only by an error."""
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(_CONNECT_S):
                await ensure_compacted_topic(self._settings)
                consumer = await stack.enter_async_context(
                    consuming(
                        self._settings,
                        group_id=None,
                        enable_auto_commit=False,
                        auto_offset_reset="earliest",
                        isolation_level="read_committed",
                    )
                )
                producer = await stack.enter_async_context(
                    producing(self._settings, acks="all", enable_idempotence=True)
                )
                await producer.partitions_for(self._partition.topic)  # so that no change waits for it at a bad moment
            stack.push(self._disconnect)  # clients may take seconds to close
            consumer.assign([self._partition])
            await self._read_up_to(consumer, await self._begin(consumer))
            self._give_up(f"{self.where}: expected the change in it after the connection was lost, got none yet")
            await self._hand_over()
            self._producer = producer
            self._tell(None)
            await self._follow(consumer, producer)

    async def _begin(self, consumer: AIOKafkaConsumer) -> int:
        """Goes on where the last connection ended, and returns where the topic ends."""
        async with asyncio.timeout(ANSWER_S):
            start = (await consumer.beginning_offsets([self._partition]))[self._partition]
            end: int = (await consumer.end_offsets([self._partition]))[self._partition]
        if not start <= self._next_offset <= end:
            if self._next_offset > 0:
                said = "%s: expected to go on at record %d, got records %d to %d; it is read from the start"
                logger.warning(said, self.where, self._next_offset, start, end)
            self._next_offset = start
        consumer.seek(self._partition, self._next_offset)
        return end

    async def _follow(self, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer) -> None:
        """Hands over what is written from now on, and raises when brokers or tasks are gone."""
        clock = asyncio.get_running_loop().time
        looked_at_s = clock()
        while True:
            await self._fetch(consumer)
            await self._hand_over()
            await self._bury_lost(producer)
            if clock() - looked_at_s < LOOK_S:
                continue
            if not sends(producer):
                raise RouteStoreError("expected a producer that sends, got one that has ended")
            async with asyncio.timeout(ANSWER_S):
                end = (await consumer.end_offsets([self._partition]))[self._partition]
            await self._read_up_to(consumer, end)
            await self._hand_over()
            looked_at_s = clock()

    async def _read_up_to(self, consumer: AIOKafkaConsumer, end: int) -> None:
        """Decides every record before an offset."""
        clock = asyncio.get_running_loop().time
        moved_at_s = clock()
        while self._next_offset < end:
            before = self._next_offset
            await self._fetch(consumer)
            if self._next_offset != before:
                moved_at_s = clock()
            elif clock() - moved_at_s > ANSWER_S:
                raise RouteStoreError(f"expected record {before} of {end} within {ANSWER_S:g} s, got none")

    async def _fetch(self, consumer: AIOKafkaConsumer) -> None:
        """Decides the records that come next, once there are some or a look is due."""
        fetched = await consumer.getmany(self._partition, timeout_ms=round(1000 * LOOK_S))
        for record in fetched.get(self._partition, ()):
            self._decide(record)
            self._next_offset = record.offset + 1
        async with asyncio.timeout(ANSWER_S):
            self._next_offset = await consumer.position(self._partition)  # beyond what compaction has taken away

    def _decide(self, record: ConsumerRecord) -> None:
        if record.value is None:
            return  # a tombstone
        try:
            revision = decode_record(record.key, record.value)
        except RouteError as error:
            logger.warning("%s: record %d is passed over: %s", self.where, record.offset, error)
            return
        fault = None
        change = self._changes.pop(revision.id, None)
        if self._chain.add(revision):
            self._ready.append(revision)
        elif change is not None:
            fault = _stale(revision, self._chain.current(revision.model))
            self._lost.append(record.key)
        if change is not None:
            self._decided.append((change, fault))

    async def _hand_over(self) -> None:
        """Gives what holds to the server, then tells those who wait for it."""
        history = not self.caught_up.is_set()
        if self._ready or history:
            await self._accepted(tuple(self._ready), history=history)
            self._ready.clear()
            self.caught_up.set()
        self._resolve()

    def _resolve(self) -> None:
        for change, fault in self._decided:
            if not change.outcome.done():
                change.outcome.set_result(fault)
        self._decided.clear()

    def _give_up(self, reason: str) -> None:
        """Decides the changes that were sent by a producer that is gone and were not found."""
        for change in self._changes.values():
            self._decided.append((change, RouteStoreError(f"{_name(change.revision)}: {reason}{_UNSURE}")))
        self._changes.clear()

    async def _bury_lost(self, producer: AIOKafkaProducer) -> None:
        """Deletes this server's changes that lost. Nothing depends on it, so nobody waits for the brokers."""
        while self._lost:
            buried = await producer.send(self._partition.topic, None, self._lost[-1], self._partition.partition)
            buried.add_done_callback(asyncio.Future.exception)
            self._lost.pop()

    def _disconnect(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._producer = None
        if isinstance(error, Exception):
            self._tell(error)

    def _tell(self, error: Exception | None) -> None:
        """Sets the fault, and logs it when it is another than before."""
        self.fault = None if error is None else f"{self.where}: {_reason(error)}"
        if self.fault == self._told:
            return
        self._told = self.fault
        if error is None:
            logger.info("%s: is read and written", self.where)
            self._pause_s = _FIRST_PAUSE_S
        else:
            expected = isinstance(error, TiltyardError | KafkaError | OSError)
            logger.warning("%s", self.fault, exc_info=None if expected else error)

    def _unsure(self, revision: Revision, reason: str) -> RouteStoreError:
        return RouteStoreError(f"{_name(revision)}: {self.where}: {reason}{_UNSURE}")


def _name(revision: Revision) -> str:
    return f"model {revision.model!r} revision {revision.number}"


def _stale(revision: Revision, current: int | None) -> StaleRouteError:
    return StaleRouteError(
        f"model {revision.model!r}: expected a change of revision {current}, which holds, got one of {revision.base}",
        current,
    )


def _reason(error: BaseException) -> str:
    """Returns what was expected of brokers and what came, for the end of a sentence."""
    if isinstance(error, TiltyardError):
        return str(error)
    if isinstance(error, OSError | KafkaConnectionError | NodeNotReadyError):  # TimeoutError is an OSError
        return "expected a broker that answers, got none"
    if isinstance(error, KafkaError):
        return f"expected an answer of a broker, got: {type(error).__name__}"
    return f"expected Kafka's client to go on, got: {error!r}"
