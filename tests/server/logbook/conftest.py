"""A real server's log, and the same events in a real topic."""

import asyncio
import itertools
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewTopic
from click.testing import Result
from typer.testing import CliRunner

from server.contract.events import decode_event
from server.eventlog.log_reader import read_log
from server.kafka_clients import administering, producing
from server.logbook.cli import app
from server.settings import KafkaSettings
from tests.kafka.broker import Broker
from tests.server.live_server import Running, tensors

COMMAND = [sys.executable, "-m", "server.cli", "log"]
INFER = "/v2/models/flight/infer"
PARTITIONS = 3

_numbers = itertools.count()


def use(client: httpx.Client) -> None:
    """Makes events of every type: 20 answers with their shadows, 3 refusals, 2 labels; the start left audits."""
    for n in range(20):
        assert client.post(INFER, json=tensors(id=f"request-{n}")).status_code == 200
    for n in range(3):
        assert client.post(INFER, json={"id": f"refused-{n}", "inputs": []}).status_code == 400
    label = {"id": "request-3", "label": 1, "event_id": "label-3"}
    assert client.post("/v1/feedback", json=label).status_code == 202
    assert client.post("/v1/feedback", json={"id": "request-4", "label": [0], "reward": 2.5}).status_code == 202
    assert client.post("/v2/repository/models/grid/unload").status_code == 200


@pytest.fixture(scope="module")
def running(serve_module: Callable[..., Running], packed: Path) -> Running:
    """A server that has answered, and answers on."""
    server = serve_module(packed)
    use(server.client)
    server.events()
    return server


@pytest.fixture
def log(running: Running, tmp_path: Path) -> Path:
    """A copy of the server's log that a test may damage."""
    copy = tmp_path / "outbox.db"
    with closing(sqlite3.connect(running.outbox)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode = WAL")
    return copy


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command without a terminal."""
    for name in ("TILTYARD_TOKEN", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)

    def invoke(*arguments: object, **given: Any) -> Result:
        return CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False, **given)

    return invoke


@pytest.fixture
def started() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts a command in a process of its own and ends it with the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> "subprocess.Popen[str]":
        command = [*COMMAND, *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def kafka_settings(broker: Broker) -> KafkaSettings:
    """Returns the settings with which a broker is reached."""
    return KafkaSettings(bootstrap_servers=broker.bootstrap_servers)


@pytest.fixture
def topic(broker: Broker) -> str:
    """A new topic of three partitions."""
    name = f"events-{next(_numbers)}"

    async def create() -> None:
        async with administering(kafka_settings(broker)) as admin:
            await admin.create_topics([NewTopic(name, PARTITIONS, 1)])

    asyncio.run(create())
    return name


Shipment = tuple[bytes, bytes, int | None]


def shipment(line: bytes) -> Shipment:
    """Returns what the shipper sends of an event: its key, its bytes, and no partition of its own choice."""
    return decode_event(line).subject.encode(), line, None


def ship(broker: Broker, topic: str, shipments: Sequence[Shipment]) -> None:
    """Sends records to a topic in their order, as the shipper does."""

    async def send() -> None:
        async with producing(kafka_settings(broker), acks="all", enable_idempotence=True) as producer:
            for key, line, partition in shipments:
                await _send(producer, topic, key, line, partition)

    asyncio.run(send())


async def _send(producer: AIOKafkaProducer, topic: str, key: bytes, line: bytes, partition: int | None) -> None:
    await producer.send_and_wait(
        topic,
        line,
        key,
        partition,
        timestamp_ms=int(decode_event(line).time.timestamp() * 1000),
        headers=[("content-type", b"application/cloudevents+json; charset=UTF-8")],
    )


def shipped_whole(broker: Broker, topic: str, log: Path) -> None:
    """Sends all of a log."""
    ship(broker, topic, [shipment(line) for line in read_log(log)])
