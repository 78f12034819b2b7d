"""Metrics that are added many observations at a time say what they would say one by one."""

import asyncio
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, values
from prometheus_client.multiprocess import MultiProcessCollector

from server.app import build_app, build_service
from server.eventlog.event_log import EventLog
from server.eventlog.outbox import Outbox
from server.metrics import CODES, ROWS, SECONDS, ArmMetrics, Metrics
from server.settings import Settings
from server.watching import flush_metrics
from tests.patience import until

ARMS = [("m", "1", "champion"), ("m", "1", "shadow"), ("m", "2", "challenger"), ("n", "1", "champion")]
EMPTY = cast(EventLog, SimpleNamespace(committed_events=0, dropped_events=0, sampled_out_events=0, backlog=0))

# On a bound, beside it, and anywhere.
durations = st.sampled_from([0.0, *SECONDS, *(bound * 1.0001 for bound in SECONDS)]) | st.floats(0, 1e6)
row_counts = st.sampled_from([*ROWS, *(bound + 1 for bound in ROWS)])
arms = st.sampled_from(range(len(ARMS)))
Step = tuple[Any, ...]
steps: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(st.just("answered"), arms, st.just(200) | st.sampled_from([*CODES, 429, 499]), durations)
    | st.tuples(st.just("ran"), arms, row_counts, durations)
    | st.tuples(st.just("queued"), arms, durations)
    | st.tuples(st.sampled_from(["flush", "collect", "totals", "resolve"])),
    max_size=60,
)


@contextmanager
def new_metrics(shared: bool) -> Iterator[Metrics]:
    """Metrics of one process alone, or of one of several, whose folder goes afterwards."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if not shared:
            yield Metrics(EMPTY)
            return
        patch.setenv("PROMETHEUS_MULTIPROC_DIR", folder)
        patch.setattr(values, "ValueClass", values.MultiProcessValue(lambda: "slot0"))
        yield Metrics(EMPTY, Path(folder))
        values.ValueClass.close_all_files()


class OneByOne(ArmMetrics):
    """An arm whose observations are added at once, each alone."""

    def __init__(self, metrics: Metrics, model: str, version: str, role: str) -> None:
        super().__init__(metrics, model, version, role)
        self._metrics, self._arm, self._version = metrics, (model, version, role), (model, version)

    def answered(self, code: int, seconds: float) -> None:
        self._metrics.requests.labels(*self._arm, str(code)).inc()
        self._metrics.request_seconds.labels(*self._arm).observe(seconds)
        if code != 200:
            self._metrics.failed_seconds.labels(*self._version).inc(seconds)

    def ran(self, rows: int, seconds: float) -> None:
        self._metrics.batch_rows.labels(*self._version).observe(rows)
        self._metrics.execution_seconds.labels(*self._version).observe(seconds)

    def queued(self, seconds: float) -> None:
        self._metrics.queue_seconds.labels(*self._version).observe(seconds)


class Tallied(ArmMetrics):
    """An arm as it is."""

    def queued(self, seconds: float) -> None:
        self.queue_seconds.observe(seconds)


def readings(shared: bool, kind: type[OneByOne] | type[Tallied], steps: list[Step]) -> list[dict[Any, float]]:
    """Returns what is read at every step that reads, and at the end; the last answers' times aside."""
    found: list[dict[Any, float]] = []
    with new_metrics(shared) as metrics:
        arms = [kind(metrics, *labels) for labels in ARMS]
        for step in [*steps, ("collect",)]:
            match step:
                case ("flush",):
                    metrics.flush()
                case ("resolve",):
                    arms = [kind(metrics, *labels) for labels in ARMS]
                case ("totals",):
                    found.append({key: each.succeeded + each.failed for key, each in metrics.totals().items()})
                case ("collect",):
                    found.append(
                        {
                            (sample.name, *sorted(sample.labels.items())): sample.value
                            for family in metrics.registry.collect()
                            for sample in family.samples
                            if not sample.name.startswith("tiltyard_last_answer")
                        }
                    )
                case name, arm, *observed:
                    getattr(arms[arm], name)(*observed)
    return found


@pytest.mark.parametrize("shared", [False, True])
@settings(deadline=None)  # files are made and read
@given(steps=steps)
def test_metrics_are_those_of_observations_one_by_one(shared: bool, steps: list[Step]) -> None:
    """Every series at every reading, also where a route is resolved again in between: counts are equal, and sums of
    seconds up to the rounding of another order.
    """
    expected, actual = readings(False, OneByOne, steps), readings(shared, Tallied, steps)

    for wanted, found in zip(expected, actual, strict=True):
        assert wanted.keys() == found.keys()
        for series, value in wanted.items():
            if "seconds_sum" in series[0] or "seconds_total" in series[0]:
                assert math.isclose(value, found[series], rel_tol=1e-9), series
            else:
                assert value == found[series], series


def test_what_waits_is_bounded() -> None:
    """Metrics that nobody reads grow no list: after some hundred answers what waits is added."""
    with new_metrics(False) as metrics:
        arm = ArmMetrics(metrics, "m", "1", "champion")
        tally = metrics.tallies.histogram(metrics.queue_seconds.labels("m", "1"))
        waiting = []

        for _ in range(5_000):
            arm.queue_seconds.observe(0.1)
            arm.answered(200, 0.1)
            waiting.append(len(tally.waiting))

        assert max(waiting) < 1_000


def interrupt(monkeypatch: pytest.MonkeyPatch, action: Callable[[], None]) -> None:
    """Lets another thread act in the middle of the next flush, once that has looked at what waits."""
    array = np.array

    def interrupted(*given: Any, **named: Any) -> Any:
        monkeypatch.undo()
        action()
        return array(*given, **named)

    monkeypatch.setattr(np, "array", interrupted)


def test_what_is_observed_during_a_flush_waits_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop goes on while another thread collects."""
    with new_metrics(False) as metrics:
        arm = ArmMetrics(metrics, "m", "1", "champion")
        arm.answered(200, 0.5)
        interrupt(monkeypatch, lambda: arm.answered(200, 0.25))

        metrics.flush()

        totals = metrics.totals()["m", "1"]
        assert (totals.succeeded, totals.request_s) == (2, 0.75)


def test_of_two_flushes_one_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that collect count nothing twice."""
    with new_metrics(False) as metrics:
        ArmMetrics(metrics, "m", "1", "champion").answered(200, 0.5)
        second = threading.Thread(target=metrics.flush)

        def flush() -> None:
            second.start()
            second.join(0.05)  # as long as it takes where it does not wait

        interrupt(monkeypatch, flush)

        metrics.flush()

        second.join()
        totals = metrics.totals()["m", "1"]
        assert (totals.succeeded, totals.request_s) == (1, 0.5)


def test_other_processes_soon_see_what_was_observed() -> None:
    """Nobody reads here, and what was observed is in the files all the same."""
    with new_metrics(True) as metrics:
        ArmMetrics(metrics, "m", "1", "champion").answered(200, 0.5)
        series = "tiltyard_requests_total", {"model": "m", "version": "1", "role": "champion", "code": "200"}
        others = CollectorRegistry()
        MultiProcessCollector(others)

        async def seen() -> None:
            task = asyncio.create_task(flush_metrics(metrics))
            await asyncio.to_thread(until, lambda: others.get_sample_value(*series), "the count", 20)
            task.cancel()

        asyncio.run(seen())


def test_a_server_that_ends_adds_what_waits(packed: Path, tmp_path: Path) -> None:
    """A worker's files keep all that it has answered."""
    config = Settings(models=str(packed), outbox=tmp_path / "outbox.db")
    service = build_service(config, Outbox(config.outbox, config.events))
    arm = ArmMetrics(service.metrics, "flight", "1", "champion")
    waiting = service.metrics.tallies.histogram(service.metrics.queue_seconds.labels("flight", "1")).waiting

    async def serve() -> None:
        app = build_app(service)
        async with app.router.lifespan_context(app):
            arm.queue_seconds.observe(0.5)
            assert waiting == [0.5]

    asyncio.run(serve())
    assert waiting == []


def test_the_last_answer_is_told_to_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of either role, and of a failed answer as well."""
    with new_metrics(False) as metrics:
        told = []
        for role, code, at_s in [("champion", 200, 1.9), ("shadow", 500, 2.0), ("champion", 200, 3.5)]:
            monkeypatch.setattr("server.metrics.time.time", lambda at_s=at_s: at_s)
            ArmMetrics(metrics, "m", "1", role).answered(code, 0.1)
            told.append(metrics.totals()["m", "1"].last_answer_s)

        assert told == [1.0, 2.0, 3.0]
