"""Prometheus metrics; every label is bound once, when a route names its version."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.eventlog.outbox import Outbox

CODES = (200, 400, 500, 503)
FEEDBACK_REFUSALS = (400, 413, 503)
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class ArmMetrics:
    """The metrics of one version in one role."""

    def __init__(self, metrics: "Metrics", model: str, version: str, role: str) -> None:
        self._requests = metrics.requests
        self._labels = (model, version, role)
        # Rollout tools fail on absent series, so the usual codes start at zero.
        self._by_code = {code: metrics.requests.labels(*self._labels, str(code)) for code in CODES}
        self._request_seconds = metrics.request_seconds.labels(*self._labels)
        self.execution_seconds = metrics.execution_seconds.labels(model, version)

    def answered(self, code: int, seconds: float) -> None:
        """Counts one answer with its status and its time since the request arrived."""
        counter = self._by_code.get(code)
        if counter is None:
            counter = self._by_code[code] = self._requests.labels(*self._labels, str(code))
        counter.inc()
        self._request_seconds.observe(seconds)


class Metrics:
    """All metrics of one server, in a registry of their own."""

    def __init__(self, outbox: Outbox) -> None:
        """outbox: whose counts are read whenever the metrics are."""
        # A second series for each counter and histogram, which nothing reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it untyped
        self.registry = CollectorRegistry()
        arm = ["model", "version", "role"]
        self.requests = Counter("tiltyard_requests", "Answers by status code", [*arm, "code"], registry=self.registry)
        self.request_seconds = Histogram(
            "tiltyard_request_seconds",
            "From a request's arrival to its answer",
            arm,
            buckets=SECONDS,
            registry=self.registry,
        )
        self.execution_seconds = Histogram(
            "tiltyard_execution_seconds",
            "Time in the model's graph",
            ["model", "version"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.route_share = Gauge(
            "tiltyard_route_share", "Share of requests that an arm scores", arm, registry=self.registry
        )
        self.feedback = Counter("tiltyard_feedback", "Labels accepted", registry=self.registry)
        refusals = Counter("tiltyard_feedback_refused", "Feedback requests refused", ["code"], registry=self.registry)
        self.feedback_refused = {code: refusals.labels(str(code)) for code in FEEDBACK_REFUSALS}
        self.registry.register(_OutboxCollector(outbox))

    def refused(self, model: str, code: int) -> None:
        """Counts a request refused before a version was known. model: a known name, or ""."""
        self.requests.labels(model, "", "none", str(code)).inc()


class _OutboxCollector(Collector):
    """Reads the outbox's own counters, so that the hot path counts nothing twice."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def collect(self) -> Iterator[Metric]:
        events = CounterMetricFamily("tiltyard_events", "Events by outcome", labels=["outcome"])
        events.add_metric(["logged"], self._outbox.committed_events)
        events.add_metric(["dropped"], self._outbox.dropped_events)
        yield events
        yield GaugeMetricFamily("tiltyard_event_backlog", "Events waiting for their commit", self._outbox.backlog)
