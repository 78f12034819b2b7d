"""The log keeps to its size, and what Kafka does not have yet never goes."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.contract import log_schema
from server.errors import OutboxError
from server.eventlog import retention as retention_module
from server.eventlog.outbox import Outbox
from server.eventlog.shipped import Shipped, write_shipped
from server.settings import EventSettings
from tests.server.live_server import wait_for

LIMIT = 1024 * 1024
LINE = b"x" * 1000


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test's time is shorter than a log's."""
    monkeypatch.setattr(retention_module, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(retention_module, "HELD_UP_S", 0.01)


@contextlib.contextmanager
def log(path: Path, *, shipped: bool, **settings: object) -> Iterator[Outbox]:
    events = EventSettings.model_validate({"retention_bytes": LIMIT, "commit_interval_ms": 0.1, **settings})
    with contextlib.closing(Outbox(path, events, shipped=shipped)) as outbox:
        yield outbox


def ask(path: Path, statement: str) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return int(connection.execute(statement).fetchone()[0] or 0)


def first(path: Path) -> int:
    """Returns the offset of the oldest event."""
    return ask(path, "SELECT min(first_offset) FROM chunks")


def size(path: Path) -> int:
    return ask(path, "SELECT sum(length(payload)) FROM chunks")


def ship(path: Path, offset: int) -> None:
    """Tells that Kafka has everything below an offset."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        [log_id] = connection.execute(log_schema.SELECT_META, (log_schema.META_LOG_ID,)).fetchone()
    write_shipped(path, Shipped(log_id=log_id, offset=offset, topic="t", partitions=1, cluster="c"))


def fill(outbox: Outbox) -> int:
    """Appends small groups until there is no room, and returns how many events found some."""
    for _ in range(10_000):
        if not all(outbox.append(LINE) for _ in range(50)):
            break
        wait_for(lambda: outbox.backlog == 0, "the commit")
    wait_for(lambda: outbox.full and outbox.backlog == 0, "a full log")
    return outbox.committed_events


def test_the_limit_of_size_holds_under_load(tmp_path: Path) -> None:
    """However fast it is written: small groups as a busy server's, five times the limit in all."""
    path = tmp_path / "outbox.db"
    largest = 0
    with log(path, shipped=False) as outbox:
        for group in range(500):
            for _ in range(10):
                assert outbox.append(LINE)
            wait_for(lambda: outbox.backlog == 0, "the commit")
            if group % 25 == 24:
                largest = max(largest, size(path))

    assert largest < 1.2 * LIMIT
    assert ask(path, "SELECT count(*) FROM chunks") > 100


@pytest.mark.usefixtures("looks_often")
def test_what_kafka_lacks_never_goes(tmp_path: Path) -> None:
    """Neither by age nor by size; at the limit new events are counted as dropped, and labels are refused."""
    path = tmp_path / "outbox.db"
    with log(path, shipped=True, retention_s=0.001) as outbox:
        kept = fill(outbox)

        with pytest.raises(OutboxError, match="no room for 1 events until Kafka has what is in it"):
            asyncio.run(outbox.append_durably([LINE]))
        assert (first(path), outbox.full, outbox.failure) == (0, True, None)
        assert ask(path, "SELECT sum(count) FROM chunks") == kept


@pytest.mark.usefixtures("looks_often")
def test_room_comes_with_what_kafka_takes(tmp_path: Path) -> None:
    """At its limit the log gives up what the topic has, however young, and goes on."""
    path = tmp_path / "outbox.db"
    with log(path, shipped=True) as outbox:
        kept = fill(outbox)
        ship(path, kept // 2)

        wait_for(lambda: not outbox.full, "room")
        assert outbox.append(LINE)
        assert 0 < first(path) <= kept // 2


@pytest.mark.usefixtures("looks_often")
def test_what_kafka_has_is_kept_for_a_while(tmp_path: Path) -> None:
    """With room for it, for events.keep_shipped_s since it was shipped; then it goes, and nothing behind it."""
    path = tmp_path / "outbox.db"
    with log(path, shipped=True, keep_shipped_s=3600.0) as outbox:
        for _ in range(100):
            outbox.append(LINE)
            wait_for(lambda: outbox.backlog == 0, "the commit")
        ship(path, 50)
        wait_for(lambda: outbox._retention._samples and outbox._retention._samples[-1][1] == 0, "a look")
        assert first(path) == 0
    with log(path, shipped=True, keep_shipped_s=0.05):
        wait_for(lambda: first(path) == 50, "the end of its time")


@pytest.mark.usefixtures("looks_often")
def test_a_position_of_another_log_frees_nothing(tmp_path: Path) -> None:
    """What is said of one log does not hold for the one at its place."""
    path = tmp_path / "outbox.db"
    with log(path, shipped=True, keep_shipped_s=0.0) as outbox:
        write_shipped(path, Shipped(log_id="other", offset=10**9, topic="t", partitions=1, cluster="c"))
        fill(outbox)

        assert (first(path), outbox.full) == (0, True)
