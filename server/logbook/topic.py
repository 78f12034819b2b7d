"""The topic of events as the commands read it: from here to there, in batches. Needs the extra ``kafka``."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, for_code

from server.kafka_clients import administering, consuming
from server.logbook.errors import TopicError
from server.logbook.outbox_file import Bounds
from server.logbook.records import Record
from server.settings import KafkaSettings

T = TypeVar("T")

_BATCH: Final = 5000
_POLL_MS: Final = 200
_SILENT_S: Final = 30.0

# It says several times a second that a broker is away; the error that ends the command says so once.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


class TopicReader:
    """A topic, read without a group. To be used by one thread, in a ``with`` statement.

    Every method may raise TopicError.
    """

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        """settings: name brokers, and say who this is to them; topic: its name. Nothing is connected yet."""
        self._settings = settings
        self._topic = topic
        self._runner = asyncio.Runner()
        self._open = AsyncExitStack()
        self.partitions: list[int] = []

    def __enter__(self) -> Self:
        try:
            self._run(self._connect)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def bounds(self) -> dict[int, Bounds]:
        """Returns where each partition begins and ends now."""
        tops = [TopicPartition(self._topic, each) for each in self.partitions]
        starts = self._run(self._consumer.beginning_offsets, tops)
        ends = self._run(self._consumer.end_offsets, tops)
        return {each.partition: Bounds(starts[each], ends[each]) for each in tops}

    def read(self, starts: Mapping[int, int], ends: Mapping[int, int] | None = None) -> Iterator[list[Record]]:
        """Yields records from some offsets on, each partition's in order.

        Args:
            starts: of each partition to read.
            ends: where to stop; without them it goes on for ever and yields an empty batch where nothing comes.
        """
        left = {place for place, start in starts.items() if ends is None or start < ends[place]}
        self._run(self._assign, {place: starts[place] for place in left})
        silent_s = 0.0
        while left:
            batches = self._run(self._consumer.getmany, timeout_ms=_POLL_MS, max_records=_BATCH)
            found = [_record(record) for records in batches.values() for record in records]
            if ends is None:
                yield found
                continue
            yield [record for record in found if record.offset < ends[record.partition]]
            moved = self._run(self._finished, left, ends)
            # What ends a transaction takes an offset but is no record: only the position tells that all is read.
            silent_s = 0.0 if found or moved else silent_s + _POLL_MS / 1000
            if silent_s >= _SILENT_S:
                raise TopicError(f"{self._name}: expected partition {min(left)} to be read to its end, nothing comes")
            left -= moved

    async def _finished(self, left: set[int], ends: Mapping[int, int]) -> set[int]:
        """Returns the partitions that are read to their end, having ended their fetching."""
        tops = [TopicPartition(self._topic, place) for place in left]
        done = [top for top in tops if await self._consumer.position(top) >= ends[top.partition]]
        self._consumer.pause(*done)
        return {top.partition for top in done}

    async def _assign(self, starts: Mapping[int, int]) -> None:
        self._consumer.assign([TopicPartition(self._topic, each) for each in starts])
        for place, start in starts.items():
            self._consumer.seek(TopicPartition(self._topic, place), start)

    async def _connect(self) -> None:
        self.partitions = await self._describe()
        self._consumer: AIOKafkaConsumer = await self._open.enter_async_context(
            consuming(
                self._settings, enable_auto_commit=False, auto_offset_reset="none", isolation_level="read_committed"
            )
        )

    async def _describe(self) -> list[int]:
        async with administering(self._settings) as admin:
            # Asked for by name, a topic that is not there would be made by brokers that do so unasked.
            if self._topic not in await admin.list_topics():
                raise TopicError(f"{self._name}: expected the topic, got a cluster without it")
            [found] = await admin.describe_topics([self._topic])
        error = for_code(found["error_code"])
        if error.errno:
            raise TopicError(f"{self._name}: expected its description, got {error.__name__}")
        return sorted(each["partition"] for each in found["partitions"])

    @property
    def _name(self) -> str:
        return f"topic {self._topic} at {self._settings.bootstrap_servers}"

    def _run(self, work: Callable[..., Awaitable[T]], *arguments: Any, **options: Any) -> T:
        async def run() -> T:
            # Called only here: at Ctrl-C before its first step it is not left behind, begun and never awaited.
            return await work(*arguments, **options)

        try:
            return self._runner.run(run())
        except KafkaError as error:
            raise TopicError(f"{self._name}: expected to read it, got {error}") from error

    def _close(self) -> None:
        try:
            self._runner.run(self._open.aclose())
        finally:
            self._runner.close()


def _record(record: Any) -> Record:
    return Record(record.partition, record.offset, record.timestamp, record.key, record.value)
