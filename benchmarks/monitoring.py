"""Events a second of the monitor on one core: folding alone, and the whole command with its commits.

The log holds flights of the demo's data: 15 features, a prediction, a shadow and a label each. What
this does not show: several models, label delays longer than the run.
"""

import sqlite3
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.machine import median, pinned, rss_mb, running, tiltyard, wait_until
from monitor.fold import Fold, FoldLimits
from monitor.sources.bundles import read_profile
from server.contract import log_schema
from server.contract.events import Answer, Label, Labelled, Prediction, Shadow, encode_event
from server.demo.flights import load_flights
from server.demo.training import CHALLENGER, CHAMPION, MODEL, pack_flight_models
from server.eventlog.outbox import Outbox
from server.execution.session import load_version
from server.protocol.json_codec import encode_arrays, join_array, rows_to_arrays
from server.settings import EventSettings

PORT = 18_082
SEED = 20_132
BATCH = 5_000
DISTINCT = 5_000
DAY_US = 86_400_000_000


def measure(folder: Path, rounds: int, flights: int) -> dict[str, Any]:
    """Returns median events a second of the fold and of the whole monitor."""
    pack_flight_models(folder / "models")
    lines = _events(folder / "models" / MODEL, flights)
    _write(folder / "outbox.db", lines)
    folds = [_fold(folder / "models" / MODEL, lines) for _ in range(rounds)]
    whole, memory = zip(*(_whole(folder, len(lines), round_) for round_ in range(rounds)), strict=True)
    return {
        "seed": SEED,
        "rounds": rounds,
        "events": len(lines),
        "features": 15,
        "event_bytes": sum(map(len, lines)) / len(lines),
        "fold_events_s": median(folds),
        "monitor_events_s": median(list(whole)),
        "rss_mb": median(list(memory)),
        "runs": {"fold_events_s": folds, "monitor_events_s": list(whole)},
    }


def _events(models: Path, flights: int) -> list[bytes]:
    """Returns a log of flights: each predicted, shadowed, and labelled a thousand flights later."""
    table = load_flights().dropna(subset=["late"]).sample(DISTINCT, random_state=SEED)
    versions = {name: load_version(models / name) for name in (CHAMPION, CHALLENGER)}
    signature = versions[CHAMPION].signature
    names = [column.name for column in signature.columns]
    values = table[names].astype(object)
    rows = values.where(values.notna(), None).to_dict("records")
    answers = []
    for row in rows:
        arrays = rows_to_arrays([row], signature)
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
        if i >= 1000:
            label = Label(label=late[order[i - 1000]])
            lines.append(_line(Labelled, f"{i}-label", f"flight-{i - 1000}", moment, label))
    return lines


def _line(kind: Any, event_id: str, subject: str, moment: datetime, data: Any) -> bytes:
    return encode_event(
        kind(id=event_id, source="/benchmark", time=moment, subject=subject, partitionkey=subject, data=data)
    )


def _write(path: Path, lines: list[bytes]) -> None:
    outbox = Outbox(path, EventSettings(queue_bytes=4 * 1024**3))
    for line in lines:
        outbox.append(line)
    outbox.close()
    with sqlite3.connect(path) as connection:
        first, end = connection.execute(log_schema.SELECT_BOUNDS).fetchone()
    assert (first, end) == (0, len(lines))


def _fold(models: Path, lines: list[bytes]) -> float:
    profiles = [read_profile(models / version) for version in (CHAMPION, CHALLENGER)]
    fold = Fold({profile.key: profile for profile in profiles}, FoldLimits(DAY_US, 0, 30 * DAY_US, 500_000))
    began = time.perf_counter()
    for start in range(0, len(lines), BATCH):
        fold.fold_lines(list(enumerate(lines[start : start + BATCH], start)))
        fold.join.changed.clear()
    return len(lines) / (time.perf_counter() - began)


def _whole(folder: Path, events: int, round_: int) -> tuple[float, float]:
    """Returns events a second from the first health answer to the end of the log, and the memory then."""
    log = folder / "monitor.log"
    files = ["--models", str(folder / "models"), "--outbox", str(folder / "outbox.db")]
    state = ["--state", str(folder / f"state-{round_}.db"), "--port", str(PORT), "--pane-s", "86400"]
    with running(pinned(0, tiltyard("monitor", *files, *state)), log) as process:
        seen: dict[str, float] = {}

        def done() -> bool:
            try:
                source = httpx.get(f"http://127.0.0.1:{PORT}/health").json()["source"]
            except httpx.TransportError:
                return False
            if not seen:
                seen.update(began=time.perf_counter(), offset=source["offset"])
            return bool(source["offset"] == events)

        wait_until(done, process, log, pause_s=0.02)
        return (events - seen["offset"]) / (time.perf_counter() - seen["began"]), rss_mb(process)
