"""Prometheus metrics; every label is bound once, when a route names its version."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from server.errors import OutboxError
from server.eventlog.event_log import EventLog
from server.eventlog.log_tail import LogTail
from server.eventlog.ship_status import STATES, read_status
from server.eventlog.shipped import read_shipped
from server.tallies import Tallies

CODES = (200, 400, 500, 503)
FEEDBACK_REFUSALS = (400, 413, 503)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

FLUSH_S = 0.25
"""How often what was observed is added to the metrics, for other processes that are asked for them."""

_WAITING = 512  # answers, after which it is added at once: that takes less than 0.1 ms


class ArmMetrics:
    """The metrics of one version in one role.

    What is observed of every request waits in tallies, see ``Metrics.flush``. ``queue_seconds`` observes how long
    each request has waited for its run.
    """

    def __init__(self, metrics: "Metrics", model: str, version: str, role: str) -> None:
        self._requests = metrics.requests
        self._labels = (model, version, role)
        # Rollout tools fail on absent series, so the usual codes start at zero.
        self._by_code = {code: metrics.requests.labels(*self._labels, str(code)) for code in CODES}
        tallies = metrics.tallies
        self._request_seconds = metrics.request_seconds.labels(*self._labels)
        self._succeeded = tallies.histogram(self._request_seconds, self._by_code[200])
        self._failed_seconds = metrics.failed_seconds.labels(model, version)
        self._batch_rows = tallies.histogram(metrics.batch_rows.labels(model, version))
        self._last_answer = tallies.time(metrics.last_answer.labels(model, version))
        self._flush = tallies.flush
        self.queue_seconds = tallies.histogram(metrics.queue_seconds.labels(model, version))
        self._execution_seconds = tallies.histogram(metrics.execution_seconds.labels(model, version))
        self.fallbacks = metrics.fallbacks.labels(model, version)

    def ran(self, rows: int, seconds: float) -> None:
        """Counts a run of the graph, which several requests may have shared."""
        self._batch_rows.observe(rows)
        self._execution_seconds.observe(seconds)

    def answered(self, code: int, seconds: float) -> None:
        """Counts one answer with its status and its time since the request arrived."""
        self._last_answer.at_s = time.time()
        if code != 200:
            self._failed(code, seconds)
            return
        self._succeeded.observe(seconds)
        if len(self._succeeded.waiting) >= _WAITING:
            self._flush()

    def _failed(self, code: int, seconds: float) -> None:
        counter = self._by_code.get(code)
        if counter is None:
            counter = self._by_code[code] = self._requests.labels(*self._labels, str(code))
        counter.inc()
        self._request_seconds.observe(seconds)
        self._failed_seconds.inc(seconds)


class Metrics:
    """All metrics of one server, in a registry of their own."""

    def __init__(self, log: EventLog, shared: Path | None = None) -> None:
        """log: whose counts are read whenever the metrics are; shared: the folder where worker processes keep theirs.

        With a folder, ``prometheus_client.values.ValueClass`` must be its multiprocess kind already.
        """
        # A second series for each counter and histogram, which nothing reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it untyped
        own = CollectorRegistry()
        self.registry = own if shared is None else CollectorRegistry()
        self.tallies = Tallies()
        self.registry.register(self.tallies)  # the first, so that what waits is added before the others are asked
        arm = ["model", "version", "role"]
        version = ["model", "version"]
        self.requests = Counter("tiltyard_requests", "Answers by status code", [*arm, "code"], registry=own)
        self.request_seconds = Histogram(
            "tiltyard_request_seconds", "From a request's arrival to its answer", arm, buckets=SECONDS, registry=own
        )
        self.failed_seconds = Counter(
            "tiltyard_failed_request_seconds",
            "The part of tiltyard_request_seconds that ended in an error",
            version,
            registry=own,
        )
        self.queue_seconds = Histogram(
            "tiltyard_queue_seconds", "From a request's arrival to its run", version, buckets=SECONDS, registry=own
        )
        self.execution_seconds = Histogram(
            "tiltyard_execution_seconds", "Time in the model's graph", version, buckets=SECONDS, registry=own
        )
        self.batch_rows = Histogram(
            "tiltyard_batch_rows", "Rows in one run of the graph", version, buckets=ROWS, registry=own
        )
        self.last_answer = Gauge(
            "tiltyard_last_answer_timestamp_seconds",
            "When a version last answered, to the second",
            version,
            multiprocess_mode="max",
            registry=own,
        )
        self.route_share = Gauge(
            "tiltyard_route_share",
            "Share of requests that an arm scores",
            arm,
            multiprocess_mode="mostrecent",
            registry=own,
        )
        self.route_revision = Gauge(
            "tiltyard_route_revision",
            "Revision of the route that is obeyed",
            ["model"],
            multiprocess_mode="min",  # what every worker has come to at least
            registry=own,
        )
        self.fallbacks = Counter(
            "tiltyard_fallbacks",
            "Requests meant for a challenger that failed, answered by the champion",
            version,
            registry=own,
        )
        self.audits = Counter("tiltyard_audits", "Changes of routes and versions told to the event log", registry=own)
        self.feedback = Counter("tiltyard_feedback", "Labels accepted", registry=own)
        self._feedback_refused = Counter(
            "tiltyard_feedback_refused", "Feedback requests refused", ["code"], registry=own
        )
        for code in FEEDBACK_REFUSALS:
            self._feedback_refused.labels(str(code))
        if shared is not None:
            MultiProcessCollector(self.registry, path=str(shared))  # type: ignore[no-untyped-call]  # as above
        self.registry.register(_LogCollector(log))

    def flush(self) -> None:
        """Adds to the metrics what has been observed since the last time; reading them here does it as well.

        Other processes of the server see only what was added, and what was not is lost with a process that is killed.
        """
        self.tallies.flush()

    def refused(self, model: str, code: int) -> None:
        """Counts a request refused before a version was known. model: a known name, or ""."""
        self.requests.labels(model, "", "none", str(code)).inc()

    def refused_unread(self, code: int) -> None:
        """Counts a request that HTTP itself ended, before it was known what it is about."""
        self.refused("", code)

    def feedback_was_refused(self, code: int) -> None:
        """Counts a feedback request that was answered with an error."""
        self._feedback_refused.labels(str(code)).inc()

    def totals(self) -> dict[tuple[str, str], "Totals"]:
        """Returns what each version, by model and version, has done since the start; shadows are left out."""
        found: dict[tuple[str, str], dict[str, float]] = {}
        for metric in self.registry.collect():
            for sample in metric.samples:
                labels = sample.labels
                if labels.get("version") and labels.get("role") != "shadow":
                    name = sample.name
                    if name == "tiltyard_requests_total":
                        name = "succeeded" if labels["code"] == "200" else "failed"
                    sums = found.setdefault((labels["model"], labels["version"]), {})
                    sums[name] = sums.get(name, 0.0) + sample.value
        return {key: _totals(sums) for key, sums in found.items()}


@dataclass(frozen=True, slots=True)
class Totals:
    """What one version has done: how often and for how long, in seconds."""

    succeeded: int
    failed: int
    request_s: float
    failed_s: float
    queue_s: float
    executions: int
    execution_s: float
    rows: int
    last_answer_s: float


def _totals(sums: Mapping[str, float]) -> Totals:
    return Totals(
        succeeded=int(sums.get("succeeded", 0)),
        failed=int(sums.get("failed", 0)),
        request_s=sums.get("tiltyard_request_seconds_sum", 0.0),
        failed_s=sums.get("tiltyard_failed_request_seconds_total", 0.0),
        queue_s=sums.get("tiltyard_queue_seconds_sum", 0.0),
        executions=int(sums.get("tiltyard_execution_seconds_count", 0)),
        execution_s=sums.get("tiltyard_execution_seconds_sum", 0.0),
        rows=int(sums.get("tiltyard_batch_rows_sum", 0)),
        last_answer_s=sums.get("tiltyard_last_answer_timestamp_seconds", 0.0),
    )


NOTHING_DONE = _totals({})


class _LogCollector(Collector):
    """Reads the log's own counters, so that the hot path counts nothing twice."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def collect(self) -> Iterator[Metric]:
        events = CounterMetricFamily("tiltyard_events", "Events by outcome", labels=["outcome"])
        events.add_metric(["logged"], self._log.committed_events)
        events.add_metric(["dropped"], self._log.dropped_events)
        events.add_metric(["sampled_out"], self._log.sampled_out_events)
        yield events
        yield GaugeMetricFamily("tiltyard_event_backlog", "Events waiting for their commit", self._log.backlog)


class ShippingCollector(Collector):
    """How far Kafka has the log, read from the files that the shipper keeps, so that every process tells the same."""

    def __init__(self, outbox: Path) -> None:
        """outbox: the log's file."""
        self._outbox = outbox

    def collect(self) -> Iterator[Metric]:
        status = read_status(self._outbox)
        state = GaugeMetricFamily("tiltyard_ship_state", "1 for what the shipper is at, else 0", labels=["state"])
        for each in STATES:
            state.add_metric([each], float(each == status.state))
        yield state
        yield CounterMetricFamily(
            "tiltyard_set_aside_events", "Events that no broker took, kept beside the log", status.set_aside
        )
        yield CounterMetricFamily(
            "tiltyard_missed_events", "Events that were trimmed before they were shipped", status.missed
        )
        try:
            shipped, end, log_id = read_shipped(self._outbox), *_end(self._outbox)
        except OutboxError:
            return  # told in /health; a number would be a wrong one
        offset = shipped.offset if shipped is not None and shipped.log_id == log_id else 0
        yield CounterMetricFamily("tiltyard_shipped_events", "Events of the log that the topic has", offset)
        yield GaugeMetricFamily(
            "tiltyard_ship_backlog", "Events of the log that brokers have not acknowledged", max(0, end - offset)
        )


def _end(outbox: Path) -> tuple[int, str]:
    """Returns where a log ends, and its id."""
    tail = LogTail(outbox)
    try:
        return tail.end(), tail.log_id
    finally:
        tail.close()
