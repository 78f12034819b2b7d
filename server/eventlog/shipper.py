"""The process that ships the log to Kafka: ``python -m server.eventlog.shipper CONTROL``, a descriptor.

Needs the extra ``kafka``. One a log: a lock on a file beside it is what elects. What it needs to know arrives over the
control channel, on which the server also asks it to end; when the channel closes the server has gone, and so does the
shipper, at once. What was acknowledged and not noted by then is sent again by the next one, under the same event ids.
"""

import asyncio
import fcntl
import logging
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal, NoReturn

import msgspec

from server.errors import OutboxError, TopicRefusedError
from server.eventlog.events_topic import ensure_events_topic
from server.eventlog.log_tail import LogTail
from server.eventlog.set_aside import set_aside
from server.eventlog.ship_status import TOLD_EVERY_S, ShipStatus, State, read_status, write_status
from server.eventlog.shipment import Progress, RefusedBatchError, Shipment, broker_fault, learn, now_text
from server.eventlog.shipped import Shipped, read_shipped, write_shipped
from server.logs import configure_logging
from server.settings import KafkaSettings

logger = logging.getLogger(__name__)

KEEP_S = 0.2
"""How often the position is kept: what a crash lets be sent again."""

LOCK_S = 0.25
NICENESS = 15
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 3.0
REFUSED_PAUSE_S = 5.0


class Start(msgspec.Struct, frozen=True, kw_only=True, tag="start"):
    """What a shipper is told first. ``kafka`` are the settings of that group as JSON."""

    outbox: str
    kafka: dict[str, Any]
    log_level: str
    log_format: Literal["text", "json"]


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag="stop"):
    """Asks for an end, once all that is in the log has been acknowledged or the time is over."""

    within_s: float


_decoder: msgspec.json.Decoder[Start | Stop] = msgspec.json.Decoder(Start | Stop)


class Shipper:
    """Everything between the log and the topic, for as long as the process lives."""

    def __init__(self, outbox: Path, settings: KafkaSettings) -> None:
        """outbox: the log's file."""
        self._outbox = outbox
        self._settings = settings
        self._shipment: Shipment | None = None
        self._progress: Progress | None = None
        self._shipped: Shipped | None = None
        self._tail: LogTail | None = None
        self._state: State = "disconnected"
        self._fault: str | None = "not connected yet"
        self._told: str | None = None
        self._disk_fault: str | None = None
        before = read_status(outbox)
        self._set_aside_events = before.set_aside
        self._missed_events = before.missed

    async def run(self) -> None:
        """Ships until it is cancelled; waits first until no other shipper has the log."""
        lock = await self._elected()
        # Who asks a model waits for an answer: where both want a core, the server gets nearly all of it.
        os.nice(NICENESS)
        self._tell_status()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._ship_forever())
                tasks.create_task(self._keep_forever())
        finally:
            self.keep()
            lock.close()

    async def drained(self) -> None:
        """Returns once the topic has everything that is in the log now, or nothing is shipped at present."""
        while self._told is None:
            if self._shipment is not None and self._tail is not None:
                if self._shipment.position >= self._tail.end():
                    return
            await asyncio.sleep(KEEP_S / 4)  # the log's end is in a file, which wakes nobody

    def keep(self) -> None:
        """Keeps the position on disk, and tells the status."""
        if self._shipment is not None and self._shipped is not None and self._shipment.position > self._shipped.offset:
            shipped = msgspec.structs.replace(self._shipped, offset=self._shipment.position)
            write_shipped(self._outbox, shipped)
            self._shipped = shipped
        self._tell_status()

    async def _elected(self) -> IO[bytes]:
        """Returns the lock that makes this process the log's one shipper."""
        lock = self._outbox.with_name(self._outbox.name + ".shipper.lock").open("ab")
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await asyncio.sleep(LOCK_S)
            else:
                return lock

    async def _keep_forever(self) -> None:
        told_s = 0.0
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(KEEP_S)
            try:
                if self._shipment is not None and self._shipped is not None:
                    position = self._shipment.position
                    if position > self._shipped.offset:
                        shipped = msgspec.structs.replace(self._shipped, offset=position)
                        await asyncio.to_thread(write_shipped, self._outbox, shipped)
                        self._shipped = shipped
                if clock() - told_s >= TOLD_EVERY_S:
                    self._tell_status()
                    told_s = clock()
            except OutboxError as error:
                if self._disk_fault is None:
                    logger.error("%s; events go on being shipped, and will be again after a crash", error)
                self._disk_fault = str(error)
            else:
                self._disk_fault = None

    async def _ship_forever(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            began_s = asyncio.get_running_loop().time()
            try:
                await self._ship()
            except Exception as error:  # noqa: BLE001  # aiokafka's inner errors share no other class
                cause = _cause(error)
                if isinstance(cause, RefusedBatchError) and self._learned(cause):
                    pause_s = FIRST_PAUSE_S
                    continue
                self._tell("refused" if isinstance(cause, TopicRefusedError) else "disconnected", self._sentence(cause))
                if isinstance(cause, TopicRefusedError):
                    pause_s = REFUSED_PAUSE_S
            await asyncio.sleep(pause_s)
            lived_s = asyncio.get_running_loop().time() - began_s - pause_s
            pause_s = FIRST_PAUSE_S if lived_s > LONGEST_PAUSE_S else min(2 * pause_s, LONGEST_PAUSE_S)

    async def _ship(self) -> None:
        """Ships over one producer until it fails."""
        if self._tail is None:
            self._tail = LogTail(self._outbox)
        tail = self._tail
        before = self._shipped or self._before(tail)
        if before is not None and before.topic == self._settings.events_topic:
            if before.partitions != self._settings.events_partitions:
                raise TopicRefusedError(
                    f"kafka.events_partitions: expected {before.partitions}, with which events were shipped to topic "
                    f"{before.topic!r}, got {self._settings.events_partitions}: take another topic to change it"
                )
        cluster = await ensure_events_topic(self._settings)
        if self._progress is None:
            self._progress = Progress(
                tail.start() if before is None else before.offset, self._settings.events_partitions
            )
        self._shipped = Shipped(
            log_id=tail.log_id,
            offset=self._progress.offset,
            topic=self._settings.events_topic,
            partitions=self._settings.events_partitions,
            cluster=cluster,
        )
        if before is None or (before.topic, before.cluster) != (self._shipped.topic, cluster):
            if before is not None:
                logger.warning(
                    "events below offset %d are in topic %r of cluster %s, those from it on go to %r of %s",
                    *(before.offset, before.topic, before.cluster, self._shipped.topic, cluster),
                )
            write_shipped(self._outbox, self._shipped)
        shipment = Shipment(self._settings, tail, self._progress, self._put_aside, self._note_missed)
        self._shipment = shipment
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(shipment.run())
                tasks.create_task(self._follow(shipment))
        finally:
            shipment.close()

    async def _follow(self, shipment: Shipment) -> None:
        """Tells how the shipment is doing, for as long as it lasts."""
        while True:
            if shipment.fault is not None:
                self._tell("disconnected", shipment.fault)
            elif shipment.connected:
                self._tell("connected", None)
            await asyncio.sleep(KEEP_S)

    def _before(self, tail: LogTail) -> Shipped | None:
        """Returns what an earlier process has shipped of this very log."""
        shipped = read_shipped(self._outbox)
        if shipped is not None and shipped.log_id != tail.log_id:
            logger.warning("outbox %s: is another log than was shipped before: begins at its start", self._outbox)
            return None
        return shipped

    def _learned(self, refused: RefusedBatchError) -> bool:
        """Sees to it that a refused event is found and set aside; returns whether the next try can be at once."""
        assert self._progress is not None
        assert self._tail is not None
        tail = self._tail
        doubts = self._progress.doubts
        found = learn(self._progress, refused, lambda offset: tail.read(offset, 1).lines[0])
        if found is not None:
            offset, content, reason = found
            self._put_aside(offset, content, reason, 1)
        else:
            logger.warning("%s; it is tried again in another form", refused)
        return self._progress.doubts == doubts or found is not None

    def _put_aside(self, offset: int, content: bytes, reason: str, count: int) -> None:
        assert self._tail is not None
        set_aside(self._outbox, self._tail.log_id, offset, content, reason, now_text(), count)
        self._set_aside_events += count
        logger.error("the event at offset %d is set aside, %d in all: %s", offset, self._set_aside_events, reason)
        self._tell_status()

    def _note_missed(self, count: int) -> None:
        self._missed_events += count
        logger.error("%d events went from the log before they were shipped", count)

    def _tell(self, state: State, fault: str | None) -> None:
        """Sets state and fault, and logs them when they are others than before."""
        changed = state != self._state
        self._state, self._fault = state, fault
        if fault != self._told:
            self._told = fault
            if fault is None:
                logger.info("ships events to topic %r", self._settings.events_topic)
            else:
                logger.warning("%s", fault)
        if changed:
            self._tell_status()

    def _tell_status(self) -> None:
        status = ShipStatus(
            state=self._state,
            fault=self._fault,
            set_aside=self._set_aside_events,
            missed=self._missed_events,
            pid=os.getpid(),
            told_at_s=time.time(),
        )
        with suppress(OutboxError):  # a full disk is told of by whoever writes the log
            write_status(self._outbox, status)

    def _sentence(self, error: BaseException) -> str:
        return broker_fault(self._settings, error)


def _cause(error: BaseException) -> BaseException:
    """Returns the one of several errors that says best what to do."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    causes = [_cause(each) for each in error.exceptions]
    for kind in (RefusedBatchError, TopicRefusedError, OutboxError):
        for cause in causes:
            if isinstance(cause, kind):
                return cause
    return causes[0]


async def _serve(control: socket.socket) -> None:
    reader, _writer = await asyncio.open_connection(sock=control)
    start = _decoder.decode(await reader.readline())
    assert isinstance(start, Start)
    configure_logging(start.log_level, start.log_format)
    shipper = Shipper(Path(start.outbox), KafkaSettings(**start.kafka))
    shipping = asyncio.create_task(shipper.run())
    asked = asyncio.create_task(reader.readline())
    await asyncio.wait({shipping, asked}, return_when=asyncio.FIRST_COMPLETED)
    if shipping.done():
        shipping.result()
    line = asked.result()
    if not line:  # the server has gone: whoever succeeds it wants the log
        _end(shipper, 1)
    stop = _decoder.decode(line)
    assert isinstance(stop, Stop)
    with suppress(TimeoutError, OutboxError):
        async with asyncio.timeout(stop.within_s):
            await shipper.drained()
    _end(shipper, 0)


def _end(shipper: Shipper, status: int) -> NoReturn:
    """Ends the process at once: brokers that are away would keep its clients from closing."""
    with suppress(OutboxError):
        shipper.keep()
    os._exit(status)


def main(control: socket.socket) -> None:
    """Ships until the server asks for an end or has gone."""
    # Under `stty tostop` a terminal stops who writes to it from the background, as the shipper does in its own group.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    asyncio.run(_serve(control))


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
