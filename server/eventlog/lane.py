"""One partition's way from the log to its broker: batches in the log's order, one of them on its way at a time."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from server.eventlog.record import HEADERS


class BatchBuilder(Protocol):
    """What is needed of aiokafka's."""

    def append(self, *, timestamp: int, key: bytes, value: bytes, headers: Any) -> Any:
        """Adds a record; returns None when there is no room, which there always is for the first one."""
        ...


@dataclass(slots=True)
class Batch:
    """Records that travel together. ``first`` and ``last`` are offsets of the log, between which others may lie."""

    builder: BatchBuilder
    first: int
    last: int
    count: int = 1
    size_bytes: int = 0


class Lane:
    """Batches of one partition, for one producer.

    One batch on its way at a time keeps the order whatever is sent again; meanwhile the next ones fill up, so a busy
    partition has large batches and a quiet one sends at once.
    """

    def __init__(self, partition: int, builder: Callable[[], BatchBuilder], acknowledged_to: int) -> None:
        """acknowledged_to: the topic has every event of this partition below that offset; they are passed over."""
        self.partition = partition
        self.acknowledged_to = acknowledged_to
        self.flying: Batch | None = None
        self._builder = builder
        self._full: deque[Batch] = deque()
        self._open: Batch | None = None
        self._ready = asyncio.Event()

    @property
    def waiting_from(self) -> int | None:
        """The offset of the oldest event that is not acknowledged, None when there is none."""
        batch = self.flying or (self._full[0] if self._full else self._open)
        return None if batch is None else batch.first

    def add(self, offset: int, key: bytes, value: bytes, timestamp_ms: int) -> int:
        """Queues an event and returns its size; 0 for one that the topic has already."""
        if offset < self.acknowledged_to:
            return 0
        batch = self._open
        if batch is None or batch.builder.append(timestamp=timestamp_ms, key=key, value=value, headers=HEADERS) is None:
            if batch is not None:
                self._full.append(batch)
            batch = self._open = Batch(self._builder(), offset, offset)
            batch.builder.append(timestamp=timestamp_ms, key=key, value=value, headers=HEADERS)
            self._ready.set()
        else:
            batch.last = offset
            batch.count += 1
        batch.size_bytes += len(value)
        return len(value)

    async def next(self) -> Batch:
        """Returns the batch that goes now, once there is one; the one before must have been acknowledged."""
        while not self._full and self._open is None:
            self._ready.clear()
            await self._ready.wait()
        if self._full:
            self.flying = self._full.popleft()
        else:
            self.flying, self._open = self._open, None
        assert self.flying is not None
        return self.flying

    def acknowledged(self, batch: Batch) -> None:
        """Notes that brokers have the batch on its way, for good."""
        self.acknowledged_to = batch.last + 1
        self.flying = None
