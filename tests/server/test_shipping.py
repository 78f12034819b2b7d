"""Events of a whole server reach the topic: of one process and of three, while brokers come and go."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_structured_event
from cloudevents.core.formats.json import JSONFormat

from server.contract.partition import partition_of
from server.eventlog.log_reader import read_log
from server.eventlog.shipped import read_shipped
from server.identifiers import uuid7
from tests.kafka.broker import Broker, free_ports
from tests.patience import until
from tests.server.eventlog.shipping import Record, records
from tests.server.live_server import Running, tensors

INFER = "/v2/models/flight/infer"


@pytest.fixture(params=["1", "3"])
def shipping_server(
    request: pytest.FixtureRequest, broker: Broker, packed: Path, serve: Callable[..., Running]
) -> Iterator[tuple[Running, str]]:
    """A server of one process or of three workers, and its topic."""
    topic = f"events-{uuid7()}"
    running = serve(
        packed,
        TILTYARD_WORKERS=request.param,
        TILTYARD_KAFKA__BOOTSTRAP_SERVERS=broker.bootstrap_servers,
        TILTYARD_KAFKA__EVENTS_TOPIC=topic,
        TILTYARD_KAFKA__ROUTES_TOPIC=f"routes-{uuid7()}",
    )
    yield running, topic
    running.process.terminate()
    assert running.process.wait(30) == 0


def ask(running: Running, count: int) -> list[str]:
    """Sends requests, every second with a label, over connections of their own; returns their ids."""

    def one(number: int) -> str:
        request_id = str(uuid7())
        reply = running.client.post(INFER, json=tensors(id=request_id))
        assert reply.status_code == 200, reply.text
        if number % 2:
            reply = running.client.post("/v1/feedback", json={"id": request_id, "label": True})
            assert reply.status_code == 202, reply.text
        return request_id

    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(one, range(count)))


def shipped(running: Running, servers: str, topic: str) -> tuple[list[bytes], list[Record]]:
    """Returns the log's lines and the topic's records, once both are at rest."""

    def at_rest() -> bool:
        found = read_shipped(running.outbox)
        return found is not None and found.offset == len(list(read_log(running.outbox)))

    until(lambda: running.metric("tiltyard_event_backlog") == 0, "the commits")
    until(at_rest, "the shipper")
    return list(read_log(running.outbox)), records(servers, topic)


def test_every_event_of_a_server_arrives_once(shipping_server: tuple[Running, str], broker: Broker) -> None:
    """Byte for byte, in the log's order for each request, where its key belongs; the public SDK reads every kind."""
    running, topic = shipping_server
    ids = ask(running, 200)

    lines, found = shipped(running, broker.bootstrap_servers, topic)

    assert Counter(record.value for record in found) == Counter(lines)
    kinds = Counter()
    order: dict[str, list[str]] = {}
    for record in found:
        message = KafkaMessage(headers=dict(record.headers), key=record.key, value=record.value)
        event = from_structured_event(message, JSONFormat())
        kinds[event.get_type()] += 1
        order.setdefault(str(event.get_subject()), []).append(event.get_id())
        assert record.key == str(event.get_subject()).encode()
        assert record.partition == partition_of(record.key, 12)
        assert record.timestamp_ms == int(event.get_time().timestamp() * 1_000_000) // 1_000
    assert set(ids) <= set(order)
    assert kinds["tiltyard.prediction.v1"] == 200
    assert kinds["tiltyard.shadow.v1"] == 200
    assert kinds["tiltyard.label.v1"] == 100
    wanted: dict[str, list[str]] = {}
    for line in lines:
        event = from_structured_event(KafkaMessage(headers=dict(found[0].headers), key=b"", value=line), JSONFormat())
        wanted.setdefault(str(event.get_subject()), []).append(event.get_id())
    assert order == wanted
    assert running.metric("tiltyard_shipped_events_total") == len(lines)
    assert running.metric("tiltyard_ship_backlog") == 0


def test_a_server_answers_while_brokers_are_away(shipping_server: tuple[Running, str], broker: Broker) -> None:
    """Events wait in the log and are counted; afterwards all of them are in the topic, once."""
    running, topic = shipping_server
    ask(running, 20)
    shipped(running, broker.bootstrap_servers, topic)
    broker.stop()
    try:
        ask(running, 50)
        until(lambda: running.metric("tiltyard_ship_backlog") >= 50, "the backlog")
        until(lambda: running.metric('tiltyard_ship_state{state="disconnected"}') == 1, "the state")
        assert running.client.get("/v2/health/ready").status_code == 200
        assert "events are not shipped" in running.client.get("/health").text
    finally:
        broker.start()
    until(lambda: running.metric("tiltyard_ship_backlog") == 0, "the backlog to be shipped")

    lines, found = shipped(running, broker.bootstrap_servers, topic)

    assert Counter(record.value for record in found) == Counter(lines)
    until(lambda: running.metric('tiltyard_ship_state{state="connected"}') == 1, "the state")


@pytest.mark.parametrize("workers", ["1", "3"])
@pytest.mark.parametrize("when_full", ["shed", "block"])
@pytest.mark.usefixtures("broker")  # for its client, or the reason of a skip
def test_a_log_that_is_full_of_unshipped_events_keeps_them(
    packed: Path, serve: Callable[..., Running], when_full: str, workers: str
) -> None:
    """`shed` answers and counts what is not logged, `block` answers 503; labels are refused, and nothing is lost."""
    [nowhere] = free_ports(1)
    running = serve(
        packed,
        TILTYARD_WORKERS=workers,
        TILTYARD_KAFKA__BOOTSTRAP_SERVERS=f"127.0.0.1:{nowhere}",
        TILTYARD_FLUSH_S="0.5",  # what brokers lack at the end is not waited for
        TILTYARD_EVENTS__WHEN_FULL=when_full,
        TILTYARD_EVENTS__RETENTION_BYTES=str(1024 * 1024),
        TILTYARD_EVENTS__QUEUE_BYTES=str(1024 * 1024),
    )
    rows = 1_000
    values = {"carrier": "UA", "temp": 12.5, "hour": 17, "distance": 900}
    kinds = {"carrier": "BYTES", "temp": "FP32", "hour": "INT64", "distance": "FP32"}
    inputs = [
        {"name": name, "shape": [rows], "datatype": kinds[name], "data": [value] * rows}
        for name, value in values.items()
    ]
    answered = 0

    def full() -> bool:
        nonlocal answered
        reply = running.client.post(INFER, json={"inputs": inputs})
        answered += reply.status_code == 200
        if when_full == "block":
            return reply.status_code == 503
        return running.metric('tiltyard_events_total{outcome="dropped"}') > 0

    until(full, "a full log")
    assert running.client.post("/v1/feedback", json={"id": "r", "label": True}).status_code == 503
    assert running.client.get("/v2/health/ready").status_code == 200
    running.process.terminate()
    assert running.process.wait(30) == 0

    logged = [
        line for line in read_log(running.outbox) if b'"tiltyard.prediction.v1"' in line and b'"status"' not in line
    ]
    assert 5 < len(logged) <= answered
    if when_full == "block":
        assert len(logged) == answered
