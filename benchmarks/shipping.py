"""Events a second from a log to one broker: the shipper beside aiokafka's plain send and confluent-kafka's producer.

The log is full before a contestant starts, in groups of a busy server's size; the shipper reads it, the others get the
same lines from memory. Each is a process on core 0 and the broker on core 1, one topic each and round, `acks=all` and
idempotence for everyone, the same partitions, keys, headers and compression. ``events_s`` is by the clock, from the
first event sent to the last acknowledged; ``core_events_s`` by the process's own processor time, which is what the
shipper takes from a server on the same core. What this does not show: several brokers, replication, networks.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.machine import median
from server.eventlog.outbox import Outbox
from server.identifiers import uuid7
from server.settings import EventSettings, KafkaSettings
from tests.kafka.broker import Broker, running_broker

CONTESTANTS = ("tiltyard", "aiokafka", "confluent-kafka")
COMPRESSIONS = ("none", "lz4", "snappy", "zstd")
EVENT_BYTES = 600
GROUP = 60
PARTITIONS = 12
SEED = 20_261


_draws = random.Random(SEED)


def steps(rounds: int) -> int:
    """Returns how often ``measure`` will call ``advance``."""
    return 1 + rounds * len(CONTESTANTS) + len(COMPRESSIONS)


def measure(folder: Path, rounds: int, events: int, advance: Callable[[str], None]) -> dict[str, Any]:
    """Returns median events a second of every contestant, and of the shipper with every compression."""
    _write(folder / "outbox.db", events)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    compressed: dict[str, dict[str, float]] = {}
    (folder / "broker").mkdir()
    with running_broker(folder / "broker") as broker:
        _pin(broker, 1)
        advance("a log to ship")
        for round_ in range(rounds):
            for name in CONTESTANTS:
                found[name].append(_run(name, folder / "outbox.db", broker, "zstd"))
                advance(f"round {round_ + 1}: {name}")
        for compression in COMPRESSIONS:
            compressed[compression] = _run("tiltyard", folder / "outbox.db", broker, compression)
            advance(f"compression {compression}")
    return {
        "seed": SEED,
        "rounds": rounds,
        "events": events,
        "event_bytes": EVENT_BYTES,
        "partitions": PARTITIONS,
        "medians": {
            name: {key: median([each[key] for each in results]) for key in results[0]}
            for name, results in found.items()
        },
        "compressions": compressed,
    }


def summary(found: dict[str, Any]) -> str:
    """Returns a paragraph of Markdown."""
    ours, plain, confluent = (found["medians"][name] for name in CONTESTANTS)
    return (
        f"Shipper, one core, one broker on the other, {found['events']:,} events of {found['event_bytes']} bytes: "
        f"**{ours['core_events_s']:,.0f} events/s** per core of its process ({ours['events_s']:,.0f} by the clock), "
        f"aiokafka's plain send {plain['core_events_s']:,.0f} ({plain['events_s']:,.0f}), confluent-kafka's producer "
        f"{confluent['core_events_s']:,.0f} ({confluent['events_s']:,.0f}); median of {found['rounds']}."
    )


def _write(path: Path, events: int) -> None:
    outbox = Outbox(path, EventSettings(commit_interval_ms=0.01))  # type: ignore[call-arg]
    for start in range(0, events, GROUP):
        for number in range(start, min(start + GROUP, events)):
            assert outbox.append(_event(number))
        while outbox.backlog:
            time.sleep(0.0001)
    outbox.close()


def _event(number: int) -> bytes:
    """Returns a prediction of a usual kind and EVENT_BYTES."""
    key = str(uuid7())
    draws = [round(_draws.random() * 100, 4) for _ in range(10)]
    value = {
        "type": "tiltyard.prediction.v1",
        "id": str(uuid7()),
        "source": "/models/flight-delay/versions/3",
        "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{number % 1_000_000:06d}Z",
        "subject": key,
        "partitionkey": key,
        "data": {
            "model": "flight-delay",
            "version": "3",
            "role": "champion",
            "latency_us": number % 977,
            "rows": 1,
            "inputs": [{"name": "x", "shape": [1, 8], "datatype": "FP32", "data": draws[:8]}],
            "outputs": [{"name": "p", "shape": [1, 2], "datatype": "FP32", "data": draws[8:]}],
        },
    }
    line = json.dumps(value, separators=(",", ":")).encode()
    return line[:-1] + b',"pad":"' + _draws.randbytes(300).hex()[: EVENT_BYTES - len(line) - 9].encode() + b'"}'


def _run(name: str, outbox: Path, broker: Broker, compression: str) -> dict[str, float]:
    """Returns one contestant's events a second, measured in a process of its own."""
    values = {"bootstrap_servers": broker.bootstrap_servers, "compression": compression}
    kafka = KafkaSettings.model_validate({**values, "events_topic": f"{name}-{uuid7()}"})
    command = [sys.executable, "-m", "benchmarks.shipping", name, str(outbox), kafka.model_dump_json()]
    done = subprocess.run(["taskset", "-c", "0", *command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{name} failed: {done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _pin(broker: Broker, core: int) -> None:
    assert broker._process is not None
    for task in Path(f"/proc/{broker._process.pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def _figures(events: int, began: tuple[float, float]) -> dict[str, float]:
    seconds, core_seconds = time.perf_counter() - began[0], time.process_time() - began[1]
    return {"events_s": events / seconds, "core_events_s": events / core_seconds}


async def _ours(outbox: Path, kafka: KafkaSettings) -> dict[str, float]:
    from server.eventlog.events_topic import ensure_events_topic
    from server.eventlog.log_tail import LogTail
    from server.eventlog.shipment import Progress, Shipment

    await ensure_events_topic(kafka)
    tail = LogTail(outbox)
    end = tail.end()
    shipment = Shipment(kafka, tail, Progress(0, PARTITIONS), lambda *_: None, lambda _: None)
    began = time.perf_counter(), time.process_time()
    shipping = asyncio.create_task(shipment.run())
    while shipment.position < end:
        await asyncio.sleep(0.005)
        if shipping.done():
            shipping.result()
    found = _figures(end, began)
    shipping.cancel()
    await asyncio.wait([shipping])
    return found


async def _aiokafka(outbox: Path, kafka: KafkaSettings) -> dict[str, float]:
    from server.eventlog.events_topic import ensure_events_topic
    from server.eventlog.record import HEADERS, addressed
    from server.kafka_clients import producing

    await ensure_events_topic(kafka)
    lines = _lines(outbox)
    compression = None if kafka.compression == "none" else kafka.compression
    async with producing(
        kafka, acks="all", enable_idempotence=True, compression_type=compression, linger_ms=5, max_batch_size=256 * 1024
    ) as producer:
        began = time.perf_counter(), time.process_time()
        sent = []
        for start in range(0, len(lines), 1_000):
            for line, address in zip(
                lines[start : start + 1_000], addressed(lines[start : start + 1_000]), strict=True
            ):
                assert address is not None
                key, timestamp_ms = address
                sent.append(
                    await producer.send(kafka.events_topic, line, key, timestamp_ms=timestamp_ms, headers=HEADERS)
                )
        await asyncio.gather(*sent)
        return _figures(len(lines), began)


async def _confluent(outbox: Path, kafka: KafkaSettings) -> dict[str, float]:
    from confluent_kafka import Producer

    from server.eventlog.events_topic import ensure_events_topic
    from server.eventlog.record import HEADERS, addressed

    await ensure_events_topic(kafka)
    lines = _lines(outbox)
    producer = Producer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "enable.idempotence": True,
            "compression.type": kafka.compression,
            "partitioner": "murmur2_random",
            "linger.ms": 5,
            "batch.size": 256 * 1024,
            "queue.buffering.max.messages": 200_000,
        }
    )
    began = time.perf_counter(), time.process_time()
    for start in range(0, len(lines), 1_000):
        for line, address in zip(lines[start : start + 1_000], addressed(lines[start : start + 1_000]), strict=True):
            assert address is not None
            key, timestamp_ms = address
            while True:
                try:
                    producer.produce(kafka.events_topic, line, key, timestamp=timestamp_ms, headers=HEADERS)
                    break
                except BufferError:
                    producer.poll(0.01)
        producer.poll(0)
    assert producer.flush(60) == 0
    return _figures(len(lines), began)


def _lines(outbox: Path) -> list[bytes]:
    from server.eventlog.log_reader import read_log

    return list(read_log(outbox))


if __name__ == "__main__":
    run = dict(zip(CONTESTANTS, (_ours, _aiokafka, _confluent), strict=True))[sys.argv[1]]
    print(json.dumps(asyncio.run(run(Path(sys.argv[2]), KafkaSettings.model_validate_json(sys.argv[3])))))
