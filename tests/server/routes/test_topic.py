"""Servers that share routes through a real broker agree, whatever happens to it or to them."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.admin.records_to_delete import RecordsToDelete

from server.errors import RouteError, RouteStoreError, SettingsError, StaleRouteError
from server.identifiers import uuid7
from server.kafka_clients import administering, consuming, producing
from server.routes import topic as topic_module
from server.routes.record import LARGEST_BYTES, encode_record
from server.routes.topic import RouteTopic
from server.routing.document import Challenger, Route
from server.routing.revision import Revision, encode_revision
from server.settings import KafkaSettings
from tests.kafka.broker import Broker, free_ports
from tests.server.turns import until

T = TypeVar("T")


class Server:
    """What a server sees of its topic: every call, in order, with whether it was history."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.calls: list[tuple[bool, list[Revision]]] = []
        self.topic = RouteTopic(settings, self._take)
        self.refusal: RouteStoreError | None = None

    async def _take(self, revisions: Sequence[Revision], *, history: bool) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.calls.append((history, list(revisions)))

    @property
    def ids(self) -> list[str]:
        """The ids of all that was handed over."""
        return [each.id for _, revisions in self.calls for each in revisions]


@asynccontextmanager
async def running(settings: KafkaSettings, *, ready: bool = True) -> AsyncIterator[Server]:
    """Gives a server whose topic is read, with ``ready`` once it is."""
    server = Server(settings)
    task = asyncio.create_task(server.topic.run_forever())
    try:
        if ready:
            await until(lambda: task.done() or server.topic.fault is None)
        yield server
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def played(scene: Coroutine[Any, Any, T]) -> T:
    """Returns what a scene returns; fails when it leaves a task, or an error that nobody looked at."""
    complaints: list[dict[str, Any]] = []

    async def whole() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        result = await scene
        await until(lambda: len(asyncio.all_tasks()) == 1)  # connections close in the loop's next turns
        gc.collect()
        return result

    result = asyncio.run(whole())
    assert complaints == []
    return result


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that find out sooner than usual that brokers do not answer."""
    monkeypatch.setattr(topic_module, "ANSWER_S", 0.5)
    monkeypatch.setattr(topic_module, "LOOK_S", 0.1)


@pytest.fixture
def settings(broker: Broker) -> KafkaSettings:
    """Kafka with a topic of routes that nobody has made yet."""
    return KafkaSettings(bootstrap_servers=broker.bootstrap_servers, routes_topic=f"routes-{uuid7()}")  # type: ignore[call-arg]


def change(base: int, model: str = "flight", **members: object) -> Revision:
    """Returns a change of a revision of a model's route."""
    route = Route(champion="1", revision=base + 1)
    revision = Revision(id=uuid7(), model=model, base=base, time=datetime.now(UTC), by="", action="set", route=route)
    return msgspec.structs.replace(revision, **members)


async def make_topic(settings: KafkaSettings, partitions: int = 1, **configs: str) -> None:
    """Makes the topic as somebody else would."""
    async with administering(settings) as admin:
        named = {name.replace("_", "."): value for name, value in configs.items()}
        await admin.create_topics([NewTopic(settings.routes_topic, partitions, 1, None, named)])


async def trim(settings: KafkaSettings, before_offset: int) -> None:
    """Deletes the oldest records, which Kafka allows while the topic is not only compacted."""
    async with administering(settings) as admin:
        for policy in ("compact,delete", "compact"):
            configs = {"cleanup.policy": policy}
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, settings.routes_topic, configs)])
            if policy != "compact":
                partition = TopicPartition(settings.routes_topic, 0)
                await admin.delete_records({partition: RecordsToDelete(before_offset=before_offset)})


async def write(settings: KafkaSettings, *records: tuple[bytes | None, bytes | None]) -> None:
    """Writes records of any kind."""
    async with producing(settings) as producer:
        for key, value in records:
            await producer.send_and_wait(settings.routes_topic, value, key)


async def keys(settings: KafkaSettings) -> list[tuple[bytes, bool]]:
    """Returns the key of every record that stands in the topic, and whether it is a tombstone."""
    partition = TopicPartition(settings.routes_topic, 0)
    found: list[tuple[bytes, bool]] = []
    async with consuming(settings, enable_auto_commit=False) as consumer:
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        while await consumer.position(partition) < end:
            for record in (await consumer.getmany(partition, timeout_ms=1000)).get(partition, ()):
                found.append((record.key, record.value is None))  # noqa: PERF401  # a tuple of two members each
    return found


def test_of_twenty_changes_of_one_base_one_holds_and_all_servers_agree(settings: KafkaSettings) -> None:
    """Four servers, five clients each at the same moment: nineteen learn which revision was first."""

    async def race() -> None:
        async with (
            running(settings) as one,
            running(settings) as two,
            running(settings) as three,
            running(settings) as four,
        ):
            servers = [one, two, three, four]
            for base in range(3):
                attempts = [(server, change(base)) for server in servers for _ in range(5)]
                outcomes = await asyncio.gather(
                    *(server.topic.change(each) for server, each in attempts), return_exceptions=True
                )

                won = [each for each in outcomes if isinstance(each, Revision)]
                stale = [each for each in outcomes if isinstance(each, StaleRouteError)]
                assert (len(won), len(stale)) == (1, 19)
                assert {each.revision for each in stale} == {base + 1}
                await until(lambda: all(len(server.ids) == base + 1 for server in servers))  # noqa: B023  # awaited here
                assert {server.ids[-1] for server in servers} == {won[0].id}

    played(race())


def test_what_lost_is_deleted_by_its_writer(settings: KafkaSettings) -> None:
    """Every loser that came to stand in the topic gets its tombstone, and the winner none."""

    async def race() -> None:
        async with running(settings) as one, running(settings) as two:
            attempts = [(server, change(0)) for server in (one, two) for _ in range(5)]
            await asyncio.gather(*(server.topic.change(each) for server, each in attempts), return_exceptions=True)
            [winner] = one.ids
            written: list[tuple[bytes, bool]] = []
            while len([key for key, buried in written if buried]) < 9:
                written = await asyncio.wait_for(keys(settings), 10)

            assert {key for key, buried in written if not buried} == {
                f"flight/1/{each.id}".encode() for _, each in attempts
            }
            assert f"flight/1/{winner}".encode() not in {key for key, buried in written if buried}

    played(asyncio.wait_for(race(), 30))


def test_a_server_that_starts_later_gets_the_history_at_once(settings: KafkaSettings) -> None:
    """One call with all that holds, so that no request is answered by an old route; then only what is new.

    However many fetches that takes: these records are too large for one.
    """

    async def live() -> None:
        async with running(settings) as early:
            made = [await early.topic.change(change(base, reason="x" * 400_000)) for base in range(5)]
            async with running(settings) as late:
                last = await early.topic.change(change(5))
                await until(lambda: len(late.ids) == 6)

                assert late.calls == [(True, made), (False, [last])]
                assert late.topic.caught_up.is_set()
                assert late.topic.current("flight") == 6
                assert early.calls == [(True, []), *((False, [each]) for each in (*made, last))]

    played(live())


def test_compaction_takes_away_what_lost_and_nothing_that_held(settings: KafkaSettings) -> None:
    """A server that starts after the cleaner has run finds the same chain as those that saw every record."""

    async def live() -> None:
        await make_topic(
            settings,
            cleanup_policy="compact",
            segment_ms="1",
            min_cleanable_dirty_ratio="0.01",
            delete_retention_ms="0",
        )
        async with running(settings) as one, running(settings) as two:
            losers = []
            for base in range(3):
                pair = [(one, change(base)), (two, change(base))]
                outcomes = await asyncio.gather(*(at.topic.change(it) for at, it in pair), return_exceptions=True)
                losers += [it for (_, it), got in zip(pair, outcomes, strict=True) if not isinstance(got, Revision)]
                await until(lambda: len(two.ids) == len(one.ids) == base + 1)  # noqa: B023  # awaited here
            lost = {f"flight/{each.number}/{each.id}".encode() for each in losers}
            base = 3
            while {key for key, _ in await keys(settings)} & lost:  # the newest segment is never cleaned: write on
                await one.topic.change(change(base))
                base += 1
            async with running(settings) as late:
                assert len(lost) == 3
                assert late.calls[0][0]
                assert late.ids == one.ids
                assert len(late.ids) == base

    played(asyncio.wait_for(live(), 60))


def test_a_reader_goes_on_after_records_that_were_trimmed_away(settings: KafkaSettings) -> None:
    """An administrator may delete the oldest records: what is left is taken, its base unseen."""

    async def live() -> None:
        async with running(settings) as early:
            made = [await early.topic.change(change(base)) for base in range(4)]
            await trim(settings, 2)
            async with running(settings) as late:
                made.append(await late.topic.change(change(4)))

                assert late.ids == [each.id for each in made[2:]]
                await until(lambda: early.ids == [each.id for each in made])

    played(live())


def test_a_topic_that_was_made_anew_is_read_from_its_start(
    hasty: None, settings: KafkaSettings, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody deleted it: the server makes it again, keeps what holds, and takes what is written from then on."""

    async def live() -> None:
        async with running(settings) as server:
            made = [await server.topic.change(change(base)) for base in range(2)]
            async with administering(settings) as admin:
                await admin.delete_topics([settings.routes_topic])
            await until(lambda: server.topic.fault is not None)
            await until(lambda: server.topic.fault is None)
            made.append(await server.topic.change(change(2)))

            assert server.ids == [each.id for each in made]

    with caplog.at_level(logging.WARNING, "server.routes.topic"):
        played(live())

    assert "expected to go on at record 2, got records 0 to 0; it is read from the start" in caplog.text


def test_records_that_are_no_changes_are_passed_over(settings: KafkaSettings, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever can write to the topic can spoil a record, not the server: each is told once, the others count."""
    good, next_one = change(0), change(1)
    key, value = encode_record(good)
    overlapping = [
        Challenger(version="2", mode="split", share=0.5, ranges=[(0.0, 0.5)]),
        Challenger(version="3", mode="split", share=0.5, ranges=[(0.2, 0.7)]),
    ]
    spoilt = [
        (b"flight/1/x", b"{"),
        (b"flight/1/x", b"[" * 100_000),
        (b"flight/1/x", b'{"id": "x"}'),
        (None, value),
        (b"flight", value),
        (b"other/1/" + good.id.encode(), value),
        _as_is(change(0, model="../flight")),
        _as_is(change(0, id="")),
        _as_is(change(1, route=Route(champion="1", revision=1))),
        _as_is(change(0, reason="x" * LARGEST_BYTES)),
        _as_is(change(0, route=Route(champion="1", challengers=overlapping, revision=1))),
    ]

    async def live() -> list[str]:
        await make_topic(settings, cleanup_policy="compact")
        # A compacted topic takes no record without a key: that one comes before its policy does.
        await write(settings, *((key or b"-", value) for key, value in spoilt), (key, value), (b"flight/9/y", None))
        async with running(settings) as server:
            await write(settings, spoilt[0])
            await server.topic.change(next_one)
            return server.ids

    with caplog.at_level(logging.WARNING, "server.routes.topic"):
        ids = played(live())

    assert ids == [good.id, next_one.id]
    passed = [record.getMessage() for record in caplog.records if "is passed over" in record.getMessage()]
    assert [message.split(" is passed over: ")[0].rsplit(" ", 1)[1] for message in passed] == [
        *map(str, range(len(spoilt))),
        str(len(spoilt) + 2),
    ]


def _as_is(revision: Revision) -> tuple[bytes, bytes]:
    """Returns a record that nobody checked."""
    return f"{revision.model}/{revision.number}/{revision.id}".encode(), encode_revision(revision)


def test_what_no_reader_would_accept_is_not_written(settings: KafkaSettings) -> None:
    """Too large, or a route that contradicts itself: its writer is told, and the topic stays clean."""

    async def live() -> list[tuple[bytes, bool]]:
        async with running(settings) as server:
            with pytest.raises(RouteError, match=f"expected at most {LARGEST_BYTES} bytes, got"):
                await server.topic.change(change(0, reason="x" * LARGEST_BYTES))
            with pytest.raises(RouteError, match="expected a revision above its base 0, got 0"):
                await server.topic.publish(change(0, route=Route(champion="1", revision=0)))
            return await keys(settings)

    assert played(live()) == []


def test_a_change_of_a_revision_that_held_once_is_refused_unwritten(settings: KafkaSettings) -> None:
    """What a server knows to be stale costs the topic no record."""

    async def live() -> int:
        async with running(settings) as server:
            await server.topic.change(change(0))
            for attempt in (server.topic.change, server.topic.publish):
                with pytest.raises(StaleRouteError, match="of revision 1, which holds, got one of 0") as caught:
                    await attempt(change(0))
                assert caught.value.revision == 1
            return len(await keys(settings))

    assert played(live()) == 1


def test_the_same_revision_is_written_once(settings: KafkaSettings) -> None:
    """Its second record would, after compaction, stand behind those that lost against it."""

    async def live() -> int:
        async with running(settings) as server:
            revision = change(0)
            first = asyncio.create_task(server.topic.change(revision))
            await until(lambda: server.topic._changes)
            with pytest.raises(RouteStoreError, match="got one that is on its way"):
                await server.topic.change(revision)
            await first
            await server.topic.publish(revision)

            assert await server.topic.change(revision) is revision
            return len(await keys(settings))

    assert played(live()) == 1


@pytest.mark.parametrize(
    ("end", "begin"),
    [(Broker.stop, Broker.start), (Broker.kill, Broker.start), (Broker.freeze, Broker.thaw)],
    ids=["stopped", "killed", "frozen"],
)
def test_a_broker_that_is_away_is_told_and_its_return_needs_nobody(
    hasty: None,
    broker: Broker,
    settings: KafkaSettings,
    caplog: pytest.LogCaptureFixture,
    end: Callable[[Broker], None],
    begin: Callable[[Broker], None],
) -> None:
    """Changes are refused with nothing written meanwhile; afterwards reading and writing go on where they were."""

    async def live() -> None:
        async with running(settings) as one, running(settings) as two:
            before = await one.topic.change(change(0))
            await asyncio.to_thread(end, broker)
            try:
                await until(lambda: one.topic.fault is not None and two.topic.fault is not None)
                assert one.topic.fault == f"{one.topic.where}: expected a broker that answers, got none"
                for attempt in (one.topic.change, one.topic.publish):
                    with pytest.raises(RouteStoreError, match="a broker that answers, got none; nothing has changed"):
                        await attempt(change(1))
            finally:
                await asyncio.to_thread(begin, broker)
            await until(lambda: one.topic.fault is None and two.topic.fault is None)
            after = await two.topic.change(change(1))
            await until(lambda: len(one.ids) == 2)

            assert one.ids == two.ids == [before.id, after.id]

    with caplog.at_level(logging.INFO, "server.routes.topic"):
        played(live())

    assert [record.levelname for record in caplog.records].count("WARNING") == 2
    assert [record.levelname for record in caplog.records].count("INFO") == 2


@pytest.mark.parametrize(
    ("end", "begin"), [(Broker.kill, Broker.start), (Broker.freeze, Broker.thaw)], ids=["killed", "frozen"]
)
def test_a_change_on_its_way_when_the_broker_goes_stands_there_once_or_never(
    hasty: None,
    broker: Broker,
    settings: KafkaSettings,
    end: Callable[[Broker], None],
    begin: Callable[[Broker], None],
) -> None:
    """Nobody can tell its writer at first; once the broker is back, what is in the topic is what holds."""

    async def live() -> None:
        async with running(settings) as server:
            first, revision = await server.topic.change(change(0)), change(1)
            await asyncio.to_thread(end, broker)
            try:
                assert server.topic.fault is None  # it cannot know yet
                changing = asyncio.create_task(server.topic.change(revision))
                with pytest.raises(RouteStoreError, match="the change may still come to hold"):
                    await server.topic.publish(change(0, "grid"))
            finally:
                await asyncio.to_thread(begin, broker)
            try:
                done = await changing
            except RouteStoreError as error:
                assert str(error).endswith("the change may still come to hold")
                done = None
            await until(lambda: server.topic.fault is None)
            written = [key.decode().rsplit("/", 1)[1] for key, _ in await keys(settings)]
            await until(lambda: len(server.ids) >= len(written))

            assert server.ids[: len(written)] == written
            assert len(set(server.ids)) == len(server.ids)
            assert {first.id, *([] if done is None else [revision.id])} <= set(written)
            assert not server.topic._changes

    played(live())


def test_the_end_does_not_wait_for_a_broker_that_stands_still(broker: Broker, settings: KafkaSettings) -> None:
    """A server that stops meanwhile is gone before anybody kills it, and whoever waits for it is told."""

    async def live() -> None:
        server = Server(settings)
        task = asyncio.create_task(server.topic.run_forever())
        await until(lambda: server.topic.fault is None)
        broker.freeze()
        try:
            changing = asyncio.create_task(server.topic.change(change(0)))
            await until(lambda: server.topic._changes)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 9)
            with pytest.raises(RouteStoreError, match="not read any more; the change may still come to hold"):
                await changing
        finally:
            broker.thaw()

    played(live())


def test_a_server_that_starts_before_the_broker_waits_for_it(settings: KafkaSettings) -> None:
    """It says why it has no routes, refuses changes, and its end is as quick as any."""

    async def live() -> None:
        [port] = free_ports(1)
        nowhere = settings.model_copy(update={"bootstrap_servers": f"127.0.0.1:{port}"})
        async with running(nowhere, ready=False) as server:
            assert server.topic.fault == f"{server.topic.where}: not read yet"
            with pytest.raises(RouteStoreError, match="not read yet; nothing has changed"):
                await server.topic.change(change(0))
            await until(lambda: "expected a broker that answers" in str(server.topic.fault))
            assert not server.topic.caught_up.is_set()
        assert server.topic.fault == f"{server.topic.where}: not read any more"

    played(live())


@pytest.mark.parametrize(
    ("partitions", "policy", "sentence"),
    [
        (3, "compact", "expected 1 partition, which gives one order, got 3"),
        (1, "delete", "expected cleanup.policy compact, which loses no route, got delete"),
        (1, "compact,delete", "expected cleanup.policy compact, which loses no route, got compact,delete"),
    ],
)
def test_a_topic_of_another_kind_is_not_used(
    settings: KafkaSettings, partitions: int, policy: str, sentence: str
) -> None:
    """Somebody made it with other settings: the fault says what was expected and what it has."""

    async def live() -> None:
        await make_topic(settings, partitions, cleanup_policy=policy)
        async with running(settings, ready=False) as server:
            await until(lambda: str(server.topic.fault).endswith(sentence))
            assert server.calls == []

    played(live())


def test_a_topic_that_cannot_be_created_is_told(settings: KafkaSettings) -> None:
    """More copies than brokers: the broker's reason is passed on."""

    async def live() -> None:
        greedy = settings.model_copy(update={"replication_factor": 3})
        async with running(greedy, ready=False) as server:
            await until(lambda: "expected to create it, got: InvalidReplicationFactorError" in str(server.topic.fault))

    played(live())


def test_what_could_not_be_taken_over_comes_again(settings: KafkaSettings) -> None:
    """A full disk, say: the fault says so, and later the revision is handed over with those written meanwhile."""

    async def live() -> None:
        async with running(settings) as one, running(settings) as two:
            two.refusal = RouteStoreError("the disk is full")
            first = await one.topic.change(change(0))
            await until(lambda: str(two.topic.fault).endswith("the disk is full"))
            second = await one.topic.change(change(1))
            two.refusal = None
            await until(lambda: two.topic.fault is None and len(two.ids) == 2)

            assert [each for _, each in two.calls if each] == [[first, second]]

    played(live())


def test_a_client_that_stopped_reading_is_replaced(
    hasty: None, settings: KafkaSettings, caplog: pytest.LogCaptureFixture
) -> None:
    """Its task is dead and nobody says so: the topic's end shows that records do not arrive."""

    async def live() -> None:
        async with running(settings) as one:
            before = asyncio.all_tasks()
            async with running(settings) as two:
                for task in asyncio.all_tasks() - before:
                    if "_fetch_requests_routine" in str(task):
                        task.cancel()
                revision = await one.topic.change(change(0))
                await until(lambda: two.ids == [revision.id])

    with caplog.at_level(logging.WARNING, "server.routes.topic"):
        played(live())

    assert [record.getMessage().split(": ")[1] for record in caplog.records] == [
        "expected record 0 of 1 within 0.5 s, got none"
    ]


def test_whoever_waits_when_the_server_ends_is_told(settings: KafkaSettings) -> None:
    """A change that was not read back when the reader was cancelled does not wait for its deadline."""

    async def live() -> None:
        server = Server(settings)
        task = asyncio.create_task(server.topic.run_forever())
        await until(lambda: server.topic.fault is None)
        changing = asyncio.create_task(server.topic.change(change(0)))
        await until(lambda: server.topic._changes)
        task.cancel()

        with pytest.raises(RouteStoreError, match="not read any more; the change may still come to hold"):
            await asyncio.wait_for(changing, 5)
        with pytest.raises(asyncio.CancelledError):
            await task

    played(live())


def test_settings_without_brokers_are_refused() -> None:
    """Nothing is connected to by accident."""
    with pytest.raises(SettingsError, match=r"kafka\.bootstrap_servers: expected host:port, got none"):
        Server(KafkaSettings())  # type: ignore[call-arg]
