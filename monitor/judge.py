"""What a pane says: the counts of a version against its baseline, and of a champion against a challenger. Pure.

The one knob: ``alpha`` is the chance of a false alarm that one pane of one version may have, over all
its features and checks together. It is the pane's length over ``alerts.expected_run_length_s``, so one
false alarm is expected in that much event time, and it is divided by the number of checks (Bonferroni).
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

from monitor.comparison.compare import compare
from monitor.comparison.paired import GAIN_RANGE, PairedCells
from monitor.drift.feature import FeatureDrift, feature_drift
from monitor.pane import Pane, PerformanceCells
from monitor.performance.cells import SCALE, ClassificationCells
from monitor.performance.metrics import (
    ClassificationMetrics,
    RegressionMetrics,
    classification_metrics,
    regression_metrics,
)
from monitor.quality.rates import FeatureQuality, feature_quality
from monitor.version_profile import VersionProfile
from server.contract.histogram import CategoricalBins

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_US = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_LAST_US = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
# Drift, missing values, and new categories or values out of range.
_CHECKS_PER_FEATURE = 3


class FeatureFinding(msgspec.Struct, frozen=True, kw_only=True):
    """What one feature's counts say.

    ``hidden`` are the rows whose events do not tell the feature, since the server's settings hide it. A feature
    of which only such rows are known is not ``observed``: it has neither drifted nor not.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    importance: float
    drift: FeatureDrift
    quality: FeatureQuality
    observed: bool = True
    hidden: int = 0


class ScoreFinding(msgspec.Struct, frozen=True, kw_only=True):
    """What the scores' counts say; ``mean`` is exact and None without scores."""

    mean: float | None
    drift: FeatureDrift


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What the monitor concludes of one version over one interval.

    ``coverage`` is the share of rows whose truth has arrived, ``matured`` that no more is expected.
    Times are RFC 3339; they are None for a version that has answered nothing.
    """

    start: str | None
    end: str | None
    closed: bool
    matured: bool
    requests: int
    rows: int
    errors: int
    type_errors: int
    labelled: int
    coverage: float | None
    features: list[FeatureFinding]
    score: ScoreFinding
    performance: ClassificationMetrics | RegressionMetrics | None


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """What a finding is about: microseconds of event time, and whether more may still come."""

    start_us: int | None
    end_us: int | None
    closed: bool
    matured: bool


def false_alarm_probability(pane_s: float, expected_run_length_s: float) -> float:
    """Returns alpha of one pane, so that a false alarm is expected once in the run length.

    >>> false_alarm_probability(60, 600)
    0.1
    """
    return min(0.5, pane_s / expected_run_length_s)


def judge(pane: Pane, profile: VersionProfile, interval: Interval, alpha: float, tolerance: float) -> Finding:
    """Returns what a pane, or several merged into one, says of a version.

    Args:
        pane: the counts.
        profile: the version's.
        interval: the event time they are of.
        alpha: chance of a false alarm over all features and checks of this pane, in (0, 1).
        tolerance: debiased PSI up to which a shift is of no interest.
    """
    level = alpha / (_CHECKS_PER_FEATURE * len(profile.features) + 1)
    counts = pane.counts if pane.counts.size else profile.blank_counts
    excess = pane.weight_excess.tolist() or [0] * len(profile.slices)
    features = []
    for feature, place, baseline, extra in zip(
        profile.features, profile.slices, profile.baseline_counts, excess, strict=False
    ):
        live = counts[place]
        hidden = pane.hidden.get(feature.name, 0)
        features.append(
            FeatureFinding(
                name=feature.name,
                kind="categorical" if isinstance(feature.bins, CategoricalBins) else "numeric",
                importance=feature.importance,
                drift=feature_drift(
                    feature.bins,
                    live,
                    baseline,
                    importance=feature.importance,
                    alpha=level,
                    tolerance=tolerance,
                    weight_excess=extra,
                ),
                quality=feature_quality(
                    feature.bins, live, baseline, alpha=level, weight_excess=extra, heaviest=pane.heaviest
                ),
                observed=not hidden or bool(live.any()),
                hidden=hidden,
            )
        )
    score = feature_drift(
        profile.score_bins,
        counts[profile.slices[-1]],
        profile.baseline_counts[-1],
        importance=1.0,
        alpha=level,
        tolerance=tolerance,
        weight_excess=excess[-1],
    )
    return Finding(
        start=None if interval.start_us is None else rfc3339(interval.start_us),
        end=None if interval.end_us is None else rfc3339(interval.end_us),
        closed=interval.closed,
        matured=interval.matured,
        requests=pane.requests,
        rows=pane.rows,
        errors=pane.errors,
        type_errors=pane.type_errors,
        labelled=pane.labelled,
        coverage=pane.labelled / pane.rows if pane.rows else None,
        features=features,
        score=ScoreFinding(mean=pane.score_sum / SCALE / pane.scored if pane.scored else None, drift=score),
        performance=_metrics(pane.performance),
    )


def _metrics(cells: PerformanceCells | None) -> ClassificationMetrics | RegressionMetrics | None:
    if isinstance(cells, ClassificationCells):
        return classification_metrics(cells)
    return None if cells is None else regression_metrics(cells)


def judge_pairs(
    champion: str, challenger: str, matured: Sequence[PairedCells], every: PairedCells, alpha: float
) -> dict[str, Any]:
    """Returns what pairs of answers say, as the API's COMPARISON.

    Args:
        champion: the version that was served.
        challenger: the shadow.
        matured: the matured panes, oldest first: intervals and evidence are of these.
        every: the sum of all panes, matured or not: only means are given of them.
        alpha: probability of ever naming a leader among equals, in (0, 1).
    """
    found: dict[str, Any] = msgspec.to_builtins(compare(matured, alpha))
    pairs = every.n
    return {
        "champion": champion,
        "challenger": challenger,
        "matured_panes": len(matured),
        **found,
        "current": {
            "pairs": pairs,
            "accuracy_gain": (every.challenger_only - every.champion_only) / pairs if pairs else None,
            "gain": GAIN_RANGE * every.gain_total / pairs if pairs else None,
        },
    }


def rfc3339(time_us: int) -> str:
    """Returns a time in microseconds since 1970 as RFC 3339 in UTC.

    >>> rfc3339(1_500_000)
    '1970-01-01T00:00:01.500000Z'
    >>> rfc3339(10**18)
    '9999-12-31T23:59:59.999999Z'
    """
    # A pane may end after the last time that RFC 3339 can write, or start before the first.
    nearest = min(max(time_us, _FIRST_US), _LAST_US)
    return (_EPOCH + timedelta(microseconds=nearest)).isoformat().replace("+00:00", "Z")
