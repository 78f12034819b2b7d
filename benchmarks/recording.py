"""What the log costs those who ask: throughput with it and without, one append, and a backlog that drains.

*Throughput*: three servers stay up on core 0, without events of answers, with the embedded log, and with Kafka beside
it, whose broker shares core 1 with wrk; they are asked in alternating rounds. *Append*: the serving thread's own time
for one event, its share of waking the writer included. *Backlog*: a log holds what an outage of the broker left in it;
its shipper sends it while an open loop asks, in rounds that alternate with rounds in which the shipper is stopped.
What this does not show: a broker on another machine, several brokers, networks.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks import baseline_serving
from benchmarks.load import LOAD_CORE, answers, need_wrk, open_loop, post, wrk
from benchmarks.machine import free_port, median, pinned, running, this_process_pinned, tiltyard, wait_until
from benchmarks.models import FLOATS, SEED, pack_matrix_models
from server.contract.events import Answer, Prediction, encode_event
from server.eventlog.outbox import Outbox
from server.eventlog.ship_status import read_status
from server.identifiers import uuid7
from server.settings import EventSettings
from tests.kafka.broker import Broker, running_broker

OFF, EMBEDDED, KAFKA = "no events", "embedded", "Kafka"
CONTESTANTS = (OFF, EMBEDDED, KAFKA)
CONNECTIONS = 64
EVENT_BYTES = 600
OUTAGE_RATE = 2_000
APPENDS = 20_000
DRAINING, RESTING = "draining", "shipper stopped"
BACKLOG_ROUNDS = 4
ROOMY = 1 << 40  # bytes: no event of an outage may go for want of room


def steps(rounds: int) -> int:
    """Returns how often ``measure`` will call ``advance``."""
    return rounds * len(CONTESTANTS) + 2 + 2 * BACKLOG_ROUNDS


def measure(
    folder: Path, rounds: int, seconds: int, outage_minutes: float, advance: Callable[[str], None]
) -> dict[str, Any]:
    """Returns requests a second with and without a log, an append's time, and latencies while a backlog drains."""
    need_wrk()
    pack_matrix_models(folder / "models")
    body = folder / "request.json"
    body.write_text(baseline_serving.request_body(np.random.default_rng(SEED).normal(size=FLOATS).round(6)))
    (folder / "broker").mkdir()
    with ExitStack() as stack:
        with this_process_pinned(LOAD_CORE):  # the broker's threads are born there
            broker = stack.enter_context(running_broker(folder / "broker"))
        throughput = _throughput(folder, broker, body, rounds, seconds, advance)
        append_us = _append(folder)
        advance(f"append: {append_us:.2f} µs")
        # An open loop beyond what the machine carries would measure its queue, not the shipper.
        rate = min(OUTAGE_RATE, throughput["requests_s"][EMBEDDED] / 2)
        backlog = _backlog(folder, broker, body, rate, seconds, outage_minutes, advance)
    return {
        "seed": SEED,
        "rounds": rounds,
        "seconds": seconds,
        "connections": CONNECTIONS,
        "throughput": throughput,
        "append_us": append_us,
        "backlog": backlog,
    }


def _throughput(
    folder: Path, broker: Broker, body: Path, rounds: int, seconds: int, advance: Callable[[str], None]
) -> dict[str, Any]:
    script = post(folder, baseline_serving.PATH, body.read_bytes())
    runs: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    left: list[float] = []
    options = {
        OFF: {"TILTYARD_EVENTS__SAMPLE_EVERY": "0"},
        EMBEDDED: {},
        KAFKA: _kafka(broker, "tiltyard.bench"),
    }
    with ExitStack() as stack:
        urls = {
            name: stack.enter_context(_server(folder, f"throughput-{place}", options[name]))
            for place, name in enumerate(CONTESTANTS)
        }
        for url in urls.values():
            wrk(script, url, CONNECTIONS, 1)
        for round_ in range(rounds):
            for name in CONTESTANTS if round_ % 2 == 0 else reversed(CONTESTANTS):
                runs[name].append(wrk(script, urls[name], CONNECTIONS, seconds)["requests_s"])
                if name == KAFKA:
                    left.append(_backlog_of(urls[KAFKA]))
                while _backlog_of(urls[KAFKA]):  # the next contestant must not pay for it
                    time.sleep(0.05)
                advance(f"round {round_ + 1}: {name}")
    rates = {name: median(runs[name]) for name in CONTESTANTS}
    ratios = {
        name: median([ours / off for ours, off in zip(runs[name], runs[OFF], strict=True)])
        for name in (EMBEDDED, KAFKA)
    }
    return {
        "requests_s": rates,
        "ratios": ratios,
        "left_after_a_round": median(left),
        "runs": runs,
    }


def _append(folder: Path) -> float:
    """Returns the appending thread's own time for an event, in microseconds, over groups as the writer takes them."""
    line = _line(0)
    with this_process_pinned(0), contextlib.closing(Outbox(folder / "append.db", EventSettings())) as outbox:
        took = []
        for _ in range(20):
            before = time.thread_time_ns()
            for _ in range(APPENDS):
                outbox.append(line)
            took.append((time.thread_time_ns() - before) / APPENDS / 1000)
            while outbox.backlog:
                time.sleep(0.01)
    return median(took)


def _backlog(
    folder: Path,
    broker: Broker,
    body: Path,
    rate: float,
    seconds: int,
    outage_minutes: float,
    advance: Callable[[str], None],
) -> dict[str, Any]:
    events = round(OUTAGE_RATE * 60 * outage_minutes)
    _fill(folder / "backlog.db", events)
    advance(f"backlog: {events:,} events")
    runs: dict[str, list[dict[str, float]]] = {DRAINING: [], RESTING: []}
    shipped, shipping_s = 0.0, 0.0
    with _server(folder, "backlog", _kafka(broker, "tiltyard.backlog")) as url:
        port = int(url.rpartition(":")[2])
        while _backlog_of(url) >= events:  # the topic is being made
            time.sleep(0.05)
        for round_ in range(BACKLOG_ROUNDS):
            for what in (DRAINING, RESTING) if round_ % 2 == 0 else (RESTING, DRAINING):
                with _resting(folder / "backlog.db") if what == RESTING else contextlib.nullcontext():
                    before, began = _backlog_of(url), time.perf_counter()
                    found = open_loop(port, baseline_serving.PATH, body, rate, seconds, CONNECTIONS, SEED + round_)
                    after = _backlog_of(url)
                if what == DRAINING:
                    shipped += before - after + rate * seconds
                    shipping_s += time.perf_counter() - began
                runs[what].append({**found, "backlog": after})
                advance(f"backlog, round {round_ + 1}: {what}")
    return {
        "events": events,
        "requests_s": rate,
        "shipped_events_s": shipped / shipping_s,
        "left": runs[DRAINING][-1]["backlog"],
        "p50_us": {what: median([run["p50_us"] for run in found]) for what, found in runs.items()},
        "p99_us": {what: median([run["p99_us"] for run in found]) for what, found in runs.items()},
        "p50_ratio": median(_ratios(runs, "p50_us")),
        "p99_ratio": median(_ratios(runs, "p99_us")),
        "failed": sum(run["failed"] for found in runs.values() for run in found),
        "runs": runs,
    }


def _ratios(runs: dict[str, list[dict[str, float]]], figure: str) -> list[float]:
    return [there[figure] / here[figure] for here, there in zip(runs[RESTING], runs[DRAINING], strict=True)]


@contextlib.contextmanager
def _server(folder: Path, name: str, environment: dict[str, str]) -> Iterator[str]:
    """Gives the URL of a server on core 0 that is ready."""
    port, log = free_port(), folder / f"{name}.log"
    command = ["env", *(f"{key}={value}" for key, value in environment.items())]
    command += tiltyard("serve", "--models", str(folder / "models"), "--outbox", str(folder / f"{name}.db"))
    with running(pinned(0, [*command, "--port", str(port)]), log) as process:
        url = f"http://127.0.0.1:{port}"
        wait_until(partial(answers, url), process, log)
        yield url


def _kafka(broker: Broker, topic: str) -> dict[str, str]:
    return {
        "TILTYARD_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "TILTYARD_KAFKA__EVENTS_TOPIC": topic,
        "TILTYARD_EVENTS__RETENTION_BYTES": str(ROOMY),
    }


@contextlib.contextmanager
def _resting(outbox: Path) -> Iterator[None]:
    """Lets a log's shipper stand still while the body runs."""
    pid = read_status(outbox).pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _backlog_of(url: str) -> float:
    text = httpx.get(f"{url}/metrics").text
    return next(
        (float(line.split()[1]) for line in text.splitlines() if line.startswith("tiltyard_ship_backlog ")), 0.0
    )


def _fill(path: Path, events: int) -> None:
    """Writes a log as a broker's absence leaves it."""
    template = _line(0)
    marker = template.split(b'"id":"', 1)[1][:36]
    with contextlib.closing(Outbox(path, EventSettings(retention_bytes=ROOMY))) as outbox:
        for number in range(events):
            while not outbox.append(template.replace(marker, b"%036d" % number)):
                time.sleep(0.01)


def _line(number: int) -> bytes:
    """Returns an event of EVENT_BYTES bytes."""
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=number)
    identity = uuid7()

    def event(filler: str) -> bytes:
        data = Answer(model="bench", version="1", role="champion", latency_us=300, rows=1, error=filler)
        return encode_event(
            Prediction(
                id=identity,
                source="/models/bench/versions/1",
                time=moment,
                subject=identity,
                partitionkey=identity,
                data=data,
            )
        )

    return event("x" * (EVENT_BYTES - len(event(""))))
