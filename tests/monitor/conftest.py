"""Bundles, events and logs for the monitor's tests: real files, written through the contract."""

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from monitor.version_profile import VersionProfile
from server.contract.baseline import Baseline, FeatureBaseline, ScoreBaseline
from server.contract.events import Answer, Label, Labelled, Prediction, Shadow, encode_event, source_of
from server.contract.histogram import CategoricalBins, NumericBins, quantile_bins
from server.contract.log_schema import (
    APPLICATION_ID,
    CREATE,
    INSERT_CHUNK,
    META_LOG_ID,
    META_TRIMMED,
    SCHEMA_VERSION,
    UPSERT_META,
)
from server.contract.manifest import Column, FileDigest, Manifest, Signature, Tensor, TrainingData
from tests import patience

BEGIN = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


def make_bundle(
    model: str = "delay",
    version: str = "1",
    task: str = "binary",
    classes: Sequence[Any] = (0, 1),
    layout: str = "columns",
    categorical: bool = True,
) -> tuple[Manifest, Baseline]:
    """Returns a bundle's manifest and baseline of two numeric columns and one of strings."""
    random = np.random.default_rng(7)
    columns = [
        Column(name="distance", datatype="FP32", kind="numeric"),
        Column(name="wind", datatype="FP32", kind="numeric", nullable=True),
    ]
    distance = random.normal(1000, 300, 2000).astype(np.float32).astype(np.float64)
    wind = random.exponential(10, 2000).astype(np.float32).astype(np.float64)
    features = [
        FeatureBaseline(name=name, datatype="FP32", bins=bins, counts=bins.count(values).tolist(), importance=0.1)
        for name, values in (("distance", distance), ("wind", wind))
        for bins in [quantile_bins(values)]
    ]
    if categorical:
        columns.append(Column(name="carrier", datatype="BYTES", kind="categorical"))
        carriers = CategoricalBins(categories=["AA", "DL", "UA"])
        features.append(
            FeatureBaseline(name="carrier", datatype="BYTES", bins=carriers, counts=[900, 700, 400, 0, 0], importance=0)
        )
    score_bins = NumericBins(edges=[i / 20 for i in range(20)], upper=1.0)
    baseline = Baseline(
        rows=2000,
        features=features,
        score=ScoreBaseline(
            bins=score_bins,
            counts=score_bins.count(random.beta(2, 5, 2000)).tolist(),
            class_counts=[1500 if place == 0 else 500 for place in range(len(classes))] if task != "regression" else [],
        ),
        importance_metric="roc_auc",
        reference=[],
    )
    if task == "regression":
        outputs = [Tensor(name="value", datatype="FP32", shape=[-1, 1], role="value")]
    else:
        outputs = [
            Tensor(name="label", datatype="INT64", shape=[-1], role="label"),
            Tensor(name="probabilities", datatype="FP32", shape=[-1, len(classes)], role="probabilities"),
        ]
    inputs = [Tensor(name=column.name, datatype=column.datatype, shape=[-1, 1]) for column in columns]
    if layout == "matrix":
        inputs = [Tensor(name="rows", datatype="FP32", shape=[-1, len(columns)])]
    manifest = Manifest(
        model=model,
        version=version,
        created_at=BEGIN,
        task=task,  # type: ignore[arg-type]
        target="late",
        classes=list(classes) if task != "regression" else [],
        signature=Signature(layout=layout, inputs=inputs, outputs=outputs, columns=columns),  # type: ignore[arg-type]
        estimator="LogisticRegression",
        hyperparameters={},
        packages={},
        data=TrainingData(name="flights.csv", sha256="0" * 64, rows=2000),
        metrics={"roc_auc": 0.7},
        files={},
    )
    return manifest, baseline


def write_bundle(models: Path, manifest: Manifest, baseline: Baseline) -> Path:
    """Writes the two files the monitor reads to MODELS/<model>/<version>/."""
    folder = models / manifest.model / manifest.version
    folder.mkdir(parents=True)
    data = msgspec.json.encode(baseline)
    digest = FileDigest(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
    (folder / "baseline.json").write_bytes(data)
    (folder / "bundle.json").write_bytes(
        msgspec.json.encode(msgspec.structs.replace(manifest, files={"baseline.json": digest}))
    )
    return folder


def make_profile(**changes: Any) -> VersionProfile:
    """Returns the profile of ``make_bundle``."""
    return VersionProfile(*make_bundle(**changes))


class Events:
    """Makes events of a model, in event time counted in seconds from a fixed beginning."""

    def __init__(self, model: str = "delay") -> None:
        self.model = model

    def answer(
        self,
        request: str,
        at_s: float = 0.0,
        *,
        version: str = "1",
        role: str = "champion",
        p: Sequence[float] = (0.3,),
        event_id: str | None = None,
        inputs: Any = None,
        **changes: Any,
    ) -> Prediction | Shadow:
        """Returns a binary prediction, or a shadow, with one row for each probability."""
        rows = len(p)
        if inputs is None:
            inputs = [
                {"name": "distance", "shape": [rows, 1], "datatype": "FP32", "data": [1000.0 + 10 * at_s] * rows},
                {"name": "wind", "shape": [rows, 1], "datatype": "FP32", "data": [None] * rows},
                {"name": "carrier", "shape": [rows, 1], "datatype": "BYTES", "data": ["UA"] * rows},
            ]
        outputs = [
            {"name": "label", "shape": [rows], "datatype": "INT64", "data": [int(chance > 0.5) for chance in p]},
            {
                "name": "probabilities",
                "shape": [rows, 2],
                "datatype": "FP32",
                "data": [number for chance in p for number in (1 - chance, chance)],
            },
        ]
        answer = Answer(
            **{  # type: ignore[arg-type]
                "model": self.model,
                "version": version,
                "role": role,
                "latency_us": 100,
                "rows": rows,
                "inputs": msgspec.Raw(json.dumps(inputs).encode()),
                "outputs": msgspec.Raw(json.dumps(outputs).encode()),
                **changes,
            }
        )
        kind = Shadow if role == "shadow" else Prediction
        return kind(
            id=event_id or f"{role}-{version}-{request}",
            source=source_of(self.model, version),
            time=BEGIN + timedelta(seconds=at_s),
            subject=request,
            partitionkey=request,
            data=answer,
        )

    def label(self, request: str, value: Any, at_s: float = 0.0, *, event_id: str | None = None, **changes: Any) -> Any:
        """Returns a label event."""
        return Labelled(
            id=event_id or f"label-{request}-{value}-{changes.get('row')}",
            source="/feedback",
            time=BEGIN + timedelta(seconds=at_s),
            subject=request,
            partitionkey=request,
            data=Label(label=value, **changes),
        )

    def lines(self, events: Sequence[Any], first: int = 0) -> list[tuple[int, bytes]]:
        """Returns the events as the log's lines with their offsets; bytes stand for themselves."""
        return [
            (place, event if isinstance(event, bytes) else encode_event(event))
            for place, event in enumerate(events, start=first)
        ]


class OutboxWriter:
    """Writes an outbox as the server does: one row a group commit."""

    def __init__(self, path: Path, log_id: str = "log-1") -> None:
        self.path = path
        self.end = 0
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute(f"PRAGMA application_id={APPLICATION_ID}")
        self._database.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        self._database.executescript(CREATE)
        self.meta(META_LOG_ID, log_id)

    def meta(self, key: str, value: str) -> None:
        """Sets an entry of the log's meta table."""
        self._database.execute(UPSERT_META, (key, value))

    def execute(self, statement: str, *values: Any) -> None:
        """Runs SQL on the log, to damage it."""
        self._database.execute(statement, values)

    def write(self, events: Sequence[Any], *, crc32: int | None = None, count: int | None = None) -> None:
        """Appends events as one chunk; bytes stand for themselves."""
        payload = b"".join(line + b"\n" for _, line in Events().lines(events))
        count = len(events) if count is None else count
        crc32 = zlib.crc32(payload) if crc32 is None else crc32
        self._database.execute(INSERT_CHUNK, (self.end, count, 0, crc32, payload))
        self.end += count

    def trim(self, to: int) -> None:
        """Removes whole chunks below an offset."""
        self._database.execute("DELETE FROM chunks WHERE first_offset + count <= ?", (to,))
        self.meta(META_TRIMMED, str(to))

    def close(self) -> None:
        """Closes the file."""
        self._database.close()


@pytest.fixture
def events() -> Events:
    """Makes events of the model ``delay``."""
    return Events()


@pytest.fixture(scope="module")
def module_events() -> Events:
    """The same, for streams that a whole module shares."""
    return Events()


@pytest.fixture(scope="module")
def module_profile_of() -> Callable[..., VersionProfile]:
    """Makes profiles that a whole module shares."""
    return make_profile


@pytest.fixture
def profile_of() -> Callable[..., VersionProfile]:
    """Makes profiles."""
    return make_profile


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with versions 1 and 2 of ``delay``."""
    folder = tmp_path / "models"
    for version in ("1", "2"):
        write_bundle(folder, *make_bundle(version=version))
    return folder


@pytest.fixture
def bundle_writer() -> Callable[..., Path]:
    """Writes a bundle of ``make_bundle`` under a folder and returns its own."""

    def write(models: Path, **changes: Any) -> Path:
        return write_bundle(models, *make_bundle(**changes))

    return write


@pytest.fixture
def outbox_writer() -> Any:
    """Opens outbox files to write; all are closed after the test."""
    opened: list[OutboxWriter] = []

    def open_outbox(path: Path, log_id: str = "log-1") -> OutboxWriter:
        opened.append(OutboxWriter(path, log_id))
        return opened[-1]

    yield open_outbox
    for writer in opened:
        writer.close()


class MonitorProcess:
    """A real ``tiltyard monitor`` in a process of its own, on a free port.

    Args:
        folder: holds ``models`` and ``outbox.db``; its working directory.
        state: name of the state file.
        port: 0 takes a free one.
        environment: settings.
    """

    def __init__(self, folder: Path, state: str = "monitor.db", port: str = "0", **environment: str) -> None:
        command = [sys.executable, "-c", "import typer; from monitor.cli import monitor; typer.run(monitor)"]
        flags = ["--models", "models", "--outbox", "outbox.db", "--state", state, "--port", port]
        repository = str(Path(VersionProfile.__init__.__code__.co_filename).parent.parent)
        self.process = subprocess.Popen(
            [*command, *flags],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": repository, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.communicate()[1])
        self.client = httpx.Client(base_url=line.split()[2], timeout=30)

    def health(self) -> Any:
        """Returns what /health says."""
        return self.client.get("/health").json()

    def wait_for(self, condition: Callable[[Any], bool]) -> Any:
        """Returns /health once the condition holds for it."""
        found: list[Any] = []

        def holds() -> bool:
            found[:] = [self.health()]
            return condition(found[0])

        patience.until(holds, lambda: f"a condition, last seen: {found}")
        return found[0]

    def kill(self) -> None:
        """Kills it as a crash does."""
        self.client.close()
        self.process.kill()
        self.process.communicate()

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, float]:
        """Returns exit status, what it wrote to standard error, and the seconds it took to end."""
        self.client.close()
        began = time.monotonic()
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors, time.monotonic() - began


@pytest.fixture(scope="module")
def monitor_process() -> Any:
    """Starts monitors; those left over are killed."""
    started: list[MonitorProcess] = []

    def start(folder: Path, state: str = "monitor.db", port: str = "0", **environment: str) -> MonitorProcess:
        started.append(MonitorProcess(folder, state, port, **environment))
        return started[-1]

    yield start
    for monitor in started:
        if monitor.process.returncode is None:
            monitor.kill()


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Returns once a condition holds."""
    return partial(patience.until, what="monitors")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, monitor_process: Any) -> Any:
    """A monitor that has read twenty minutes of two versions, labels included, shared by a module.

    The champion is right where the challenger is wrong; the challenger's version has not matured to the end.
    """
    folder = tmp_path_factory.mktemp("watched")
    for version in ("1", "2"):
        write_bundle(folder / "models", *make_bundle(version=version))
    events, writer, random = Events(), OutboxWriter(folder / "outbox.db"), np.random.default_rng(5)
    for minute in range(20):
        found: list[Any] = []
        for second in range(0, 60, 3):
            name, p = f"{minute}-{second}", float(random.uniform(0.05, 0.95))
            at_s = 60.0 * minute + second
            found.append(events.answer(name, at_s, p=[p]))
            found.append(events.answer(name, at_s, p=[1 - p], version="2", role="shadow"))
            found.append(events.label(name, int(p > 0.5)))
        writer.write(found)
    writer.write([b"junk"])
    monitor = monitor_process(
        folder, TILTYARD_MONITOR_JOIN__MATURITY_S="300", TILTYARD_MONITOR_ALERTS__EXPECTED_RUN_LENGTH_S="60000"
    )
    monitor.wait_for(lambda health: health["source"]["offset"] == writer.end)
    yield monitor
    writer.close()
