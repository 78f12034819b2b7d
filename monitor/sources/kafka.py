"""Kafka as the log: a consumer group shares the topic's partitions among the monitors. Needs the extra ``kafka``.

aiokafka runs in a thread of its own with its own event loop, so that heartbeats go out however long folding takes;
what it reads is handed over in bounded numbers. Offsets live with the monitor's state: the group's are written for
others to see how far it is, and never read.

A broker that is away is waited for. What waiting cannot mend stops the partition rather than count twice: a topic
that was made anew, in which offsets mean something else.
"""

import asyncio
import contextlib
import logging
import threading
import time
import zlib
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import IllegalStateError, KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from monitor.kafka_clients import consuming, ends_of, fetches, partition_count, positions_of
from monitor.kafka_credentials import connection
from monitor.publication import Publication
from monitor.settings import KafkaSettings
from monitor.sources.handover import Handover
from monitor.sources.panes_topic import PanesTopic, sentence_of
from monitor.sources.source import (
    Acknowledged,
    Assigned,
    Batch,
    Delivery,
    Letter,
    Mark,
    Message,
    Received,
    Revoked,
    Stopped,
    TakenOver,
)

_logger = logging.getLogger(__name__)

SESSION_MS = 10_000
HEARTBEAT_MS = 3_000
# The others wait so long for one that gives its partitions up; then they have them all the same.
REBALANCE_MS = 30_000
GIVE_UP_S = 10.0
METADATA_MS = 5_000
FETCH_BYTES = 4 * 1024 * 1024
POLL_MS = 250
LOOK_S = 1.0
AGAIN_S = 1.0
# A new leader may know of less for a moment than the old one had given out.
BEYOND_S = 5.0


class _TopicGoneError(Exception):
    """The topic is not there, or not any more."""


class _StalledError(Exception):
    """Nothing comes of a partition that has more."""


class KafkaLog:
    """A topic of events. Its methods are called by one thread; Kafka's clients live in another.

    Args:
        settings: brokers, topic, group.
        most_events: about how many events are handed over at a time; as many may wait.
        wake: called when there is something to read.
        followed: where each partition of the topic of panes is read on.
        stall_s: how long nothing may come of a partition that has more before the client is made anew.

    Raises:
        SettingsError: a file of a password or of TLS cannot be read.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        most_events: int,
        wake: Callable[[], None],
        followed: Mapping[int, int],
        stall_s: float = 30.0,
    ) -> None:
        self._settings = settings
        self._options = connection(settings)
        self._most_events = most_events
        self._stall_s = stall_s
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._room, self._ended, self._given_up = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._handover = Handover(most_events, wake, lambda: self._in_loop(self._room.set))
        self._epoch = 0
        self._taken_epoch = 0
        self._followed = dict(followed)
        self._reader: _Reader | None = None
        self._panes: PanesTopic | None = None
        # What goes on beside reading; what it fails with ends the client's life.
        self._errands: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] | None = None
        self._to_commit: dict[int, int] = {}
        # Replaced, never changed, so that any thread may read it.
        self._ends: Mapping[int, int] = {}
        self.waiting: str | None = f"waiting for Kafka at {settings.bootstrap_servers}"
        self.rebuilt = 0
        self.shared = True
        self._thread = threading.Thread(target=self._run, name="tiltyard-kafka", daemon=True)
        self._thread.start()

    def next(self, limit: int) -> Message | None:
        """Returns the oldest message that was not taken yet, whatever the limit."""
        taken = self._handover.take()
        if taken is None:
            return None
        epoch, message = taken
        if isinstance(message, Assigned):
            self._taken_epoch = epoch
        return message

    def seek(self, partition: int, offset: int, mark: Mark | None) -> None:
        """Says from where on a partition is read; without effect when it was shared out anew meanwhile."""
        self._in_loop(self._seek, self._taken_epoch, partition, offset, mark)

    def ends(self) -> Mapping[int, int]:
        """Returns where the partitions end: up to where all transactions are through."""
        return self._ends

    def committed(self, offsets: Iterable[tuple[int, int]]) -> None:
        """Has the group told, before long, how far partitions were read; it matters to nobody whether it hears."""
        self._in_loop(self._to_commit.update, dict(offsets))

    def publish(self, publication: Publication, letters: list[Letter]) -> None:
        """Tells the others of a partition; without effect when it was shared out anew meanwhile."""
        self._in_loop(self._publish, self._taken_epoch, publication, letters)

    def given_up(self) -> None:
        """Lets the others have the partitions."""
        self._in_loop(self._given_up.set)

    def close(self) -> None:
        """Leaves the group and ends the thread, in bounded time."""
        self._in_loop(self._ended.set)
        self._thread.join()

    def _in_loop(self, call: Callable[..., object], *values: Any) -> None:
        # The loop is closed by its own thread, which may have died.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *values)

    def _seek(self, epoch: int, partition: int, offset: int, mark: Mark | None) -> None:
        if self._reader is not None and epoch == self._epoch:
            self._reader.seek(partition, offset, mark)

    def _publish(self, epoch: int, publication: Publication, letters: list[Letter]) -> None:
        if epoch == self._epoch:
            self._run_errand(self._tell(epoch, publication, letters))

    async def _tell(self, epoch: int, publication: Publication, letters: list[Letter]) -> None:
        if self._panes is not None and await self._panes.publish(publication, letters) and epoch == self._epoch:
            self.put(Acknowledged(publication.partition))

    async def _take_over(self, epoch: int, partitions: list[int]) -> None:
        assert self._panes is not None  # there is none without an assignment
        for partition in partitions:
            end = await self._panes.take_over(partition)
            if epoch != self._epoch:
                return
            self.put(TakenOver(partition, end))

    def _run_errand(self, errand: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._end_errand)

    def _end_errand(self, task: "asyncio.Task[None]") -> None:
        self._errands.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)

    async def _end_errands(self) -> None:
        errands = set(self._errands)
        for errand in errands:
            errand.cancel()
        if errands:
            await asyncio.wait(errands)

    def _receive(self, message: Received) -> None:
        self._followed[message.publication.partition] = message.next_offset
        self.put(message)

    def _run(self) -> None:
        with self._runner:
            self._runner.run(self._live())

    async def _live(self) -> None:
        """Keeps a client until told to end; one that fails is followed by another."""
        while not self._ended.is_set():
            life = asyncio.create_task(self._life())
            ended = asyncio.create_task(self._ended.wait())
            await asyncio.wait({life, ended}, return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            life.cancel()
            await asyncio.wait({life})
            if not life.cancelled():
                self.explain(life.exception())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), AGAIN_S)

    def explain(self, error: BaseException | None) -> None:
        """Says why there is no client at the moment."""
        at = f"Kafka at {self._settings.bootstrap_servers}"
        if isinstance(error, _TopicGoneError):
            self.waiting = f"waiting for topic {self._settings.events_topic}: it is not there"
        elif isinstance(error, KafkaError):
            self.waiting = f"waiting for {at}: {error}"
        elif error is not None and (sentence := sentence_of(error)):
            self.waiting = sentence
        else:
            self.rebuilt += 1
            self.waiting = f"waiting for {at}: the client is made anew"
            _logger.error("Kafka's client is made anew: %s: %s", type(error).__name__, error, exc_info=error)

    async def _life(self) -> None:
        """Reads until something fails.

        Raises:
            KafkaError, _TopicGoneError, _StalledError: what failed.
        """
        async with consuming(
            self._options,
            client_id="tiltyard-monitor",
            group_id=self._settings.group,
            partition_assignment_strategy=(RangePartitionAssignor,),
            auto_offset_reset="none",
            enable_auto_commit=False,
            isolation_level="read_committed",
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            rebalance_timeout_ms=REBALANCE_MS,
            metadata_max_age_ms=METADATA_MS,
            max_partition_fetch_bytes=FETCH_BYTES,
        ) as consumer:
            if self._settings.events_topic not in await consumer.topics():
                raise _TopicGoneError
            count = await partition_count(consumer, self._settings.events_topic)
            self._panes = PanesTopic(self._options, self._settings, count, self._followed, self._receive)
            await self._panes.prepare()
            self._failed = asyncio.get_running_loop().create_future()
            self._reader = _Reader(self, consumer, self._settings.events_topic)
            self.waiting = None
            lives: set[asyncio.Future[None]] = {
                asyncio.create_task(self._reader.run(self._stall_s)),
                asyncio.create_task(self._panes.follow(self.has_room)),
            }
            try:
                done, _ = await asyncio.wait({*lives, self._failed}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._failed.cancel()
                for life in lives:
                    life.cancel()
                await asyncio.wait(lives)
                self._reader = None
                await self.revoke()
            for life in done:
                life.result()

    # What the reader calls, in the loop.

    async def has_room(self) -> None:
        """Returns once more may be handed over."""
        while self._handover.full:
            self._room.clear()
            if self._handover.full:
                await self._room.wait()

    @property
    def is_full(self) -> bool:
        """Whether what was handed over has not been taken."""
        return self._handover.full

    @property
    def most_events(self) -> int:
        """About how many events are handed over at a time."""
        return self._most_events

    def put(self, message: Message) -> None:
        """Hands a message over."""
        self._handover.put(self._epoch, message)

    def tell_ends(self, ends: Mapping[int, int]) -> None:
        """Takes note of where partitions end."""
        self._ends = {**self._ends, **ends}

    def assign(self, partitions: Iterable[int], of: int) -> None:
        """Hands an assignment over; what is sought from now on belongs to it."""
        self._epoch += 1
        self._ends = {}
        mine = sorted(partitions)
        self.put(Assigned(f"kafka:{self._settings.events_topic}", tuple(mine), of))
        self._run_errand(self._take_over(self._epoch, mine))

    async def revoke(self) -> None:
        """Returns once all that was read is committed; after GIVE_UP_S, or when told to end, in any case."""
        self._epoch += 1
        await self._end_errands()
        if self._panes is not None:
            await self._panes.release()
        self._given_up.clear()
        self.put(Revoked())
        answers = {asyncio.create_task(event.wait()) for event in (self._given_up, self._ended)}
        done, pending = await asyncio.wait(answers, timeout=GIVE_UP_S, return_when=asyncio.FIRST_COMPLETED)
        for answer in pending:
            answer.cancel()
        if not done:
            _logger.warning("partitions are given up before everything read of them was committed")

    def to_commit(self) -> dict[int, int]:
        """Returns what the group has not been told yet, and forgets it."""
        offsets = dict(self._to_commit)
        self._to_commit.clear()
        return offsets


class _Reader(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka's classes have no types
    """One client's life in the group. Its methods run in the loop.

    aiokafka swallows what its listener raises, so ``_fault`` keeps it for the loop of fetches.
    """

    def __init__(self, log: KafkaLog, consumer: AIOKafkaConsumer, topic: str) -> None:
        self._log = log
        self._consumer = consumer
        self._topic = topic
        self._had_some = False
        self._fault: BaseException | None = None
        # By partition that was sought: what is handed over up to, and since when nothing was.
        self._next: dict[int, int] = {}
        self._moved_at: dict[int, float] = {}
        self._expected: dict[int, Mark] = {}
        self._beyond_since: dict[int, float] = {}

    async def run(self, stall_s: float) -> None:
        """Reads until something fails, which is raised."""
        self._consumer.subscribe([self._topic], listener=self)
        tasks = {
            asyncio.create_task(self._fetch()),
            asyncio.create_task(self._watch(stall_s)),
            asyncio.create_task(self._tell_group()),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in done:
            task.result()

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Waits until the partitions' state is committed, before the others have them."""
        try:
            self._next.clear()
            if self._had_some:
                await self._log.revoke()
        except Exception as error:
            _logger.exception("partitions were not given up in order")
            self._fault = error

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Holds the partitions until it is known from where they are read."""
        try:
            self._had_some = True
            for known in (self._next, self._moved_at, self._expected, self._beyond_since):
                known.clear()
            for place in assigned:
                self._consumer.seek(place, 0)
            self._consumer.pause(*assigned)
            known_partitions = self._consumer.partitions_for_topic(self._topic)
            if known_partitions:
                self._log.assign([place.partition for place in assigned], len(known_partitions))
            else:  # a group shares out a topic that has been deleted, too, as one of no partitions
                self._fault = _TopicGoneError()
        except Exception as error:
            _logger.exception("partitions were not taken over")
            self._fault = error

    def seek(self, partition: int, offset: int, mark: Mark | None) -> None:
        """Reads a partition from an offset on; the event before, if known, is read again to be compared."""
        place = TopicPartition(self._topic, partition)
        if place not in self._consumer.assignment():
            return
        self._next[partition] = offset
        self._moved_at[partition] = time.monotonic()
        if mark is not None:
            self._expected[partition] = mark
        self._consumer.seek(place, offset if mark is None else mark.offset)
        self._consumer.resume(place)

    async def _fetch(self) -> None:
        while True:
            await self._log.has_room()
            if self._fault is not None:
                raise self._fault
            try:
                found = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=self._log.most_events)
            except NoOffsetForPartitionError:
                continue  # asked before it was said from where to read
            except OffsetOutOfRangeError as error:
                await self._find_place(error.args[0])
                continue
            self._hand_over(found)

    def _hand_over(self, found: Mapping[TopicPartition, list[ConsumerRecord]]) -> None:
        now = time.monotonic()
        sought = [TopicPartition(self._topic, partition) for partition in self._next]
        self._log.tell_ends({place.partition: end for place, end in ends_of(self._consumer, sought).items()})
        for place, after in positions_of(self._consumer, sought).items():
            partition, records = place.partition, found.get(place, [])
            if partition in self._expected and records:
                if not self._is_known(partition, records[0]):
                    continue
                records = records[1:]
            begin = self._next[partition]
            if after <= begin:
                continue
            mark = None
            if records:
                mark = Mark(records[-1].offset, zlib.crc32(records[-1].value or b""))
            lines = [(record.offset, record.value or b"") for record in records]
            self._log.waiting = None
            self._next[partition] = after
            self._moved_at[partition] = now
            self._beyond_since.pop(partition, None)
            self._log.put(Delivery(partition, begin, Batch(lines, [], 0, after), mark))

    def _is_known(self, partition: int, record: ConsumerRecord) -> bool:
        """Says whether this is the event that was read last; stops the partition where it is not."""
        mark = self._expected.pop(partition)
        if (record.offset, zlib.crc32(record.value or b"")) == mark:
            return True
        self._stop(partition, f"the event at offset {mark.offset} is not the one that was read there")
        return False

    async def _find_place(self, out_of_range: Mapping[TopicPartition, int]) -> None:
        """Goes on behind what retention has taken away; stops where the log ends before what was read."""
        places = [place for place in out_of_range if place.partition in self._next]
        starts = await self._consumer.beginning_offsets(places)
        for place in places:
            partition = place.partition
            if place not in self._consumer.assignment() or partition not in self._next:
                continue
            begin, start = self._next[partition], starts[place]
            if start > out_of_range[place]:
                self._expected.pop(partition, None)
                self._next[partition] = max(begin, start)
                self._consumer.seek(place, self._next[partition])
                if start > begin:
                    self._log.put(Delivery(partition, begin, Batch([], [], start - begin, start), None))
                continue
            since = self._beyond_since.setdefault(partition, time.monotonic())
            if time.monotonic() - since < BEYOND_S:
                self._consumer.seek(place, out_of_range[place])
                await asyncio.sleep(LOOK_S)
            else:
                self._stop(partition, f"it ends before offset {begin}, read already")

    def _stop(self, partition: int, reason: str) -> None:
        del self._next[partition]
        self._consumer.pause(TopicPartition(self._topic, partition))
        self._log.put(
            Stopped(
                partition,
                f"partition {partition} of {self._topic}: {reason}: the topic was made anew, or has lost events; "
                f"start anew with another --state and another kafka.panes_topic",
            )
        )

    async def _watch(self, stall_s: float) -> None:
        """Sees to it that what is there comes, and that brokers answer. (aiokafka's fetch task has died silently.)"""
        while True:
            await asyncio.sleep(LOOK_S)
            if not self._consumer.partitions_for_topic(self._topic):
                raise _TopicGoneError
            if not fetches(self._consumer):
                raise _StalledError("its fetch task has ended")
            places = [TopicPartition(self._topic, partition) for partition in self._next]
            if not places:
                continue
            try:
                ends = await self._consumer.end_offsets(places)
            except KafkaError as error:
                self._log.explain(error)
                self._moved_at = dict.fromkeys(self._moved_at, time.monotonic())
                continue
            self._log.waiting = None
            self._log.tell_ends({place.partition: end for place, end in ends.items() if place.partition in self._next})
            self._look_for_stall(ends, stall_s)

    def _look_for_stall(self, ends: Mapping[TopicPartition, int], stall_s: float) -> None:
        now = time.monotonic()
        for place, end in ends.items():
            partition = place.partition
            if partition not in self._next:
                continue
            if end <= self._next[partition] or self._log.is_full:
                self._moved_at[partition] = now
            if end < self._next[partition]:
                since = self._beyond_since.setdefault(partition, now)
                if now - since >= BEYOND_S:
                    self._stop(
                        partition, f"it ends at offset {end}, before {self._next[partition]}, up to which it was read"
                    )
            elif now - self._moved_at[partition] > stall_s:
                raise _StalledError(
                    f"nothing came of partition {partition} for {stall_s:g} s, read to {self._next[partition]} of {end}"
                )

    async def _tell_group(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            offsets = self._log.to_commit()
            mine = self._consumer.assignment()
            places = {TopicPartition(self._topic, partition): offset for partition, offset in offsets.items()}
            known = {place: offset for place, offset in places.items() if place in mine}
            if not known:
                continue
            try:
                await self._consumer.commit(known)
            except (KafkaError, IllegalStateError) as error:
                # Shared out anew meanwhile, or a broker is away: the next one will do.
                _logger.debug("the group was not told how far partitions are: %s", error)
