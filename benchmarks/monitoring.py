"""Events a second of the monitor on one core: folding alone, and the whole command with its commits.

The log holds flights of the demo's data: 15 features, a prediction, a shadow and a label each, written
by the server's own outbox in groups as small as a busy server's. The last commit of a run, of at most
one batch, may come after its clock stopped. What this does not show: several models, label delays
longer than the run, panes with few rows.
"""

import asyncio
import sqlite3
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.machine import free_port, median, pinned, rss_mb, running, this_process_pinned, tiltyard, wait_until
from monitor.fold import Fold, FoldLimits
from monitor.sources.bundles import read_profile
from server.contract import log_schema
from server.contract.events import Answer, Label, Labelled, Prediction, Shadow, encode_event
from server.demo.flights import load_flights
from server.demo.training import CHALLENGER, CHAMPION, MODEL, pack_flight_models
from server.eventlog.outbox import Outbox
from server.execution.session import load_version
from server.protocol.json_codec import encode_arrays, join_array
from server.protocol.rows import rows_to_arrays
from server.protocol.tensors import TensorLimits
from server.settings import EventSettings

SEED = 20_132
BATCH = 5_000
GROUP = 60  # events a commit: what 6,000 answers a second and shadows make in 5 ms
DISTINCT = 5_000
PANE_S = 86_400
DAY_US = PANE_S * 1_000_000
LABEL_AFTER = 1_000
LIMITS = TensorLimits(elements=1_000, rows=1, nesting=8)


def steps(rounds: int) -> int:
    """Returns how often ``measure`` will call ``advance``."""
    return 2 * rounds + 1


def measure(folder: Path, rounds: int, flights: int, advance: Callable[[str], None]) -> dict[str, Any]:
    """Returns median events a second of the fold and of the whole monitor."""
    pack_flight_models(folder / "models")
    lines = _events(folder / "models" / MODEL, flights)
    chunks = _write(folder / "outbox.db", lines)
    advance("a log to read")
    folds, whole, memory = [], [], []
    for round_ in range(rounds):
        with this_process_pinned(0):
            folds.append(_fold(folder / "models" / MODEL, lines))
        advance(f"round {round_ + 1}: the fold")
        rate, held = _whole(folder, len(lines), flights, round_)
        whole.append(rate)
        memory.append(held)
        advance(f"round {round_ + 1}: the monitor")
    return {
        "seed": SEED,
        "rounds": rounds,
        "events": len(lines),
        "features": 15,
        "chunks": chunks,
        "pane_s": PANE_S,
        "event_bytes": sum(map(len, lines)) / len(lines),
        "fold_events_s": median(folds),
        "monitor_events_s": median(whole),
        "rss_mb": median(memory),
        "runs": {"fold_events_s": folds, "monitor_events_s": whole, "rss_mb": memory},
    }


def _events(models: Path, flights: int) -> list[bytes]:
    """Returns a log of flights: each predicted, shadowed, and labelled LABEL_AFTER flights later."""
    table = load_flights().dropna(subset=["late"]).sample(DISTINCT, random_state=SEED)
    versions = {name: load_version(models / name) for name in (CHAMPION, CHALLENGER)}
    signature = versions[CHAMPION].signature
    names = [column.name for column in signature.columns]
    values = table[names].astype(object)
    rows = values.where(values.notna(), None).to_dict("records")
    answers = []
    for row in rows:
        arrays = rows_to_arrays([row], signature, LIMITS)
        inputs = join_array(encode_arrays(arrays, signature.inputs))
        outputs = [join_array(encode_arrays(v.run(arrays), v.signature.outputs)) for v in versions.values()]
        answers.append((inputs, outputs))
    late = [bool(value) for value in table["late"]]
    start = datetime(2013, 3, 1, tzinfo=UTC)
    order = np.random.default_rng(SEED).integers(0, DISTINCT, flights)
    lines = []
    for i, place in enumerate(order):
        inputs, outputs = answers[place]
        moment = start + timedelta(seconds=30 * i)
        for kind, version, role, output in (
            (Prediction, CHAMPION, "champion", outputs[0]),
            (Shadow, CHALLENGER, "shadow", outputs[1]),
        ):
            data = Answer(
                model=MODEL, version=version, role=role, latency_us=300, rows=1, inputs=inputs, outputs=output
            )
            lines.append(_line(kind, f"{i}-{role}", f"flight-{i}", moment, data))
        if i >= LABEL_AFTER:
            label = Label(label=late[order[i - LABEL_AFTER]])
            lines.append(_line(Labelled, f"{i}-label", f"flight-{i - LABEL_AFTER}", moment, label))
    return lines


def _line(kind: Any, event_id: str, subject: str, moment: datetime, data: Any) -> bytes:
    return encode_event(
        kind(id=event_id, source="/benchmark", time=moment, subject=subject, partitionkey=subject, data=data)
    )


def _write(path: Path, lines: list[bytes]) -> int:
    """Writes the log and returns its number of chunks."""

    async def append() -> None:
        outbox = Outbox(path, EventSettings(commit_interval_ms=0.01))
        try:
            for start in range(0, len(lines), GROUP):
                await outbox.append_durably(lines[start : start + GROUP])
        finally:
            outbox.close()

    asyncio.run(append())
    connection = sqlite3.connect(path)
    try:
        bounds = connection.execute(log_schema.SELECT_BOUNDS).fetchone()
        chunks = connection.execute("SELECT count(*) FROM chunks").fetchone()[0]
    finally:
        connection.close()
    if bounds != (0, len(lines)):
        sys.exit(f"expected a log of {len(lines)} events, got {bounds}")
    return int(chunks)


def _fold(models: Path, lines: list[bytes]) -> float:
    profiles = [read_profile(models / version) for version in (CHAMPION, CHALLENGER)]
    fold = Fold({profile.key: profile for profile in profiles}, FoldLimits(DAY_US, 0, 30 * DAY_US, 500_000))
    began = time.perf_counter()
    for start in range(0, len(lines), BATCH):
        fold.fold_lines(list(enumerate(lines[start : start + BATCH], start)))
        fold.join.changed.clear()
    return len(lines) / (time.perf_counter() - began)


def _whole(folder: Path, events: int, flights: int, round_: int) -> tuple[float, float]:
    """Returns events a second from the first health answer to the end of the log, and the memory then."""
    log = folder / "monitor.log"
    port = free_port()
    url = f"http://127.0.0.1:{port}/health"
    files = ["--models", str(folder / "models"), "--outbox", str(folder / "outbox.db")]
    state = ["--state", str(folder / f"state-{round_}.db"), "--port", str(port), "--pane-s", str(PANE_S)]
    with running(pinned(0, tiltyard("monitor", *files, *state)), log) as process:
        seen: dict[str, Any] = {}

        def done() -> bool:
            try:
                health = httpx.get(url).json()
            except httpx.TransportError:
                return False
            offset = health["source"]["offset"]
            seen.setdefault("began", (time.perf_counter(), offset))
            seen["health"] = health
            return bool(offset == events)

        # Each look costs the monitor's core a little: often enough for 1 %, no oftener.
        wait_until(done, process, log, pause_s=0.05)
        ended = time.perf_counter()
        _check(seen["health"], events, flights)
        began, offset = seen["began"]
        return (events - offset) / (ended - began), rss_mb(process)


def _check(health: dict[str, Any], events: int, flights: int) -> None:
    """Ends the run unless every event was understood: a fast wrong answer is no figure."""
    counters = health["counters"]
    kinds = ("prediction", "shadow", "label")
    faults = ("malformed", "unknown_version", "corrupt", "duplicates", "orphan_labels", "invalid_labels", "gap_events")
    if (
        health["status"] != "ok"
        or counters["prediction"] != flights
        or sum(counters[kind] for kind in kinds) != events
        or any(counters[fault] for fault in faults)
    ):
        sys.exit(f"expected {events} events of {flights} flights, all good, got {counters}")
