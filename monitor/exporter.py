"""The monitor's findings as Prometheus metrics, computed when they are scraped."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from monitor.consumer import Consumer
from monitor.findings import Findings
from monitor.fold import KINDS
from monitor.judge import Finding
from monitor.version_profile import VersionKey

_REASONS = ("malformed", "unknown_version", "corrupt")
_COUNTERS = {
    "duplicates": "Events that had been read before.",
    "late": "Answers whose pane was closed already.",
    "expired": "Requests given up without a label.",
    "orphan_labels": "Labels given up without an answer.",
    "sampled_out_labels": "Labels given up without an answer, since the log's sample leaves their requests out.",
    "invalid_labels": "Labels that are no class, no number or of no row of their answer.",
    "gap_events": "Events trimmed from the log before they were read.",
}
_METRICS = {
    "accuracy": "Share of labelled rows predicted right.",
    "log_loss": "Mean logarithmic loss, in nats.",
    "brier": "Mean Brier score.",
    "auc": "Area under the ROC curve.",
    "precision": "Precision of the second class, or its mean over the classes.",
    "recall": "Recall of the second class, or its mean over the classes.",
    "f1": "Harmonic mean of precision and recall.",
    "ece": "Expected calibration error.",
    "calibration_gap": "Mean predicted probability minus share of positives.",
    "mae": "Mean absolute error.",
    "rmse": "Root of the mean squared error.",
    "bias": "Mean of predicted minus true value.",
    "r2": "Coefficient of determination.",
}
_PAIR_METRICS = {
    "pairs": "Labelled pairs of answers in matured panes.",
    "disagreement": "Share of pairs predicted differently.",
    "accuracy_gain": "Accuracy of the challenger minus that of the champion.",
    "gain": "Log loss of the champion minus that of the challenger, in nats.",
    "gain_low": "Lower end of the gain's anytime-valid interval.",
    "gain_high": "Upper end of the gain's anytime-valid interval.",
    "log10_e_value": "Decimal logarithm of McNemar's e-value.",
}
_VERSION = ("model", "version")
_FEATURE = (*_VERSION, "feature")


class _View(NamedTuple):
    """A version's findings: of the newest closed pane, of the newest matured one, of all."""

    key: VersionKey
    closed: Finding | None
    matured: Finding | None
    total: Finding


class Exporter:
    """Answers a scrape. Labels are names out of bundles, never of requests.

    Args:
        consumer: whose progress and counters are told.
        findings: what is told of the versions.
    """

    def __init__(self, consumer: Consumer, findings: Findings) -> None:
        self._consumer = consumer
        self._findings = findings
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def scrape(self) -> bytes:
        """Returns the metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Returns nothing, so that registering computes nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yields every metric family."""
        yield from self._of_consumer()
        # Of several monitors the judge of a model tells its series, and no other.
        judged = [key for key in self._findings.versions() if self._consumer.judge_of(key.model) is None]
        views = [
            _View(key, self._findings.last(key), self._findings.last(key, matured=True), self._findings.total(key))
            for key in judged
        ]
        yield from _of_drift(views)
        yield from _of_performance(views)
        yield from self._of_comparisons({key.model for key in judged})

    def _of_consumer(self) -> Iterator[Metric]:
        counters, progress = self._consumer.counters, self._consumer.progress
        events = CounterMetricFamily("tiltyard_monitor_events", "Events read from the log.", labels=["type"])
        for kind in KINDS:
            events.add_metric([kind], counters[kind])
        yield events
        letters = CounterMetricFamily(
            "tiltyard_monitor_dead_letters", "Entries of the log that were refused and kept aside.", labels=["reason"]
        )
        for reason in _REASONS:
            letters.add_metric([reason], counters[reason])
        yield letters
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"tiltyard_monitor_{name}", text, value=counters[name])
        yield _gauge("tiltyard_monitor_up", "1 while the log is being read.", self._consumer.failure is None)
        yield _gauge("tiltyard_monitor_open_requests", "Requests that wait.", counters["open_requests"])
        lag = _family("tiltyard_monitor_lag_events", "Events in the log that are not read yet.", ("partition",))
        for number, place in progress.places.items():
            lag.add_metric([str(number)], place.lag)
        yield lag
        yield _gauge("tiltyard_monitor_lag_seconds", "Time since everything in the log was read.", progress.lag_s)
        reached = progress.log_id is not None and progress.waiting is None
        yield _gauge("tiltyard_monitor_connected", "1 while the log can be reached.", reached)
        yield _gauge("tiltyard_monitor_partitions", "Partitions of the log that are read here.", len(progress.places))
        yield CounterMetricFamily(
            "tiltyard_monitor_rebalances", "Times the log's partitions were shared out anew.", value=progress.rebalances
        )
        yield CounterMetricFamily(
            "tiltyard_monitor_watchdog_restarts",
            "Times the connection was made anew because nothing came although there was something.",
            value=progress.rebuilt,
        )

    def _of_comparisons(self, models: set[str]) -> Iterator[Metric]:
        found = [(model, pair) for model in sorted(models) for pair in self._findings.comparisons(model)]
        for name, text in _PAIR_METRICS.items():
            family = GaugeMetricFamily(f"tiltyard_comparison_{name}", text, labels=["model", "champion", "challenger"])
            for model, pair in found:
                if pair[name] is not None:
                    family.add_metric([model, pair["champion"], pair["challenger"]], pair[name])
            yield family


def _of_drift(views: list[_View]) -> Iterator[Metric]:
    psi = _family("tiltyard_drift_psi", "Debiased PSI of the newest closed pane.", _FEATURE)
    detected = _family("tiltyard_drift_detected", "1 where evidence and effect say that a feature drifted.", _FEATURE)
    missing = _family("tiltyard_missing_ratio", "Share of missing values in the newest closed pane.", _FEATURE)
    issues = _family("tiltyard_data_quality_issue", "1 where a rate rose above the baseline's.", (*_FEATURE, "issue"))
    observed = _family(
        "tiltyard_feature_observed", "0 where the log does not tell a feature, which is hidden.", _FEATURE
    )
    score_psi = _family("tiltyard_score_drift_psi", "Debiased PSI of the score, newest closed pane.", _VERSION)
    score_mean = _family("tiltyard_score_mean", "Mean score of the newest closed pane.", _VERSION)
    errors = _family("tiltyard_answer_error_ratio", "Share of failed answers in the newest closed pane.", _VERSION)
    for key, closed, _, _ in views:
        if closed is None:
            continue
        for feature in closed.features:
            observed.add_metric([*key, feature.name], feature.observed)
            if not feature.observed:  # a 0 would read as "has not drifted"
                continue
            labels = [*key, feature.name]
            psi.add_metric(labels, feature.drift.psi_debiased)
            detected.add_metric(labels, feature.drift.drifted)
            if feature.quality.missing_rate is not None:
                missing.add_metric(labels, feature.quality.missing_rate)
            kinds = ("missing", "new_category" if feature.kind == "categorical" else "out_of_range")
            for kind in kinds:
                issues.add_metric([*labels, kind], kind in feature.quality.issues)
        score_psi.add_metric(key, closed.score.drift.psi_debiased)
        if closed.score.mean is not None:
            score_mean.add_metric(key, closed.score.mean)
        errors.add_metric(key, closed.errors / closed.requests if closed.requests else 0.0)
    yield from (observed, psi, detected, missing, issues, score_psi, score_mean, errors)


def _of_performance(views: list[_View]) -> Iterator[Metric]:
    windowed = (*_VERSION, "window")
    coverage = _family("tiltyard_label_coverage_ratio", "Share of rows whose truth has arrived.", windowed)
    families: Mapping[str, GaugeMetricFamily] = {
        name: _family(f"tiltyard_performance_{name}", text, windowed) for name, text in _METRICS.items()
    }
    for key, _, matured, total in views:
        for window, finding in (("last", matured), ("total", total)):
            if finding is None:
                continue
            if finding.coverage is not None:
                coverage.add_metric([*key, window], finding.coverage)
            for name, family in families.items():
                value = getattr(finding.performance, name, None)
                if value is not None:
                    family.add_metric([*key, window], value)
    yield coverage
    yield from families.values()


def _family(name: str, text: str, labels: tuple[str, ...]) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
