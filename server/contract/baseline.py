"""The training data's distributions, made when packing, so that monitoring needs no set-up."""

from typing import Any, Final, Literal

import msgspec

from server.contract.histogram import Bins, NumericBins

FORMAT: Final = 1


class FeatureBaseline(msgspec.Struct, frozen=True, kw_only=True):
    """One input column as it was in training.

    ``counts`` has one count per cell of ``bins``. ``importance`` is the fall in the model's score
    (ROC AUC, accuracy or R², as the baseline's ``importance_metric`` says) when this column is
    permuted. ``mean`` and ``std`` are of the values that are not missing, None for categories.
    """

    name: str
    datatype: str
    bins: Bins
    counts: list[int]
    importance: float
    mean: float | None = None
    std: float | None = None


class ScoreBaseline(msgspec.Struct, frozen=True, kw_only=True):
    """The model's score on the training rows.

    The score is the probability of the second class for a binary task, the highest class
    probability for a multiclass one, the predicted value for a regression.
    ``class_counts`` counts the predicted classes in the manifest's order, empty for a regression.
    """

    bins: NumericBins
    counts: list[int]
    class_counts: list[int]


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """``baseline.json``: what the monitor compares production with.

    ``reference`` is a fixed random sample of training rows, each a mapping of column to value.
    """

    format: Literal[1] = FORMAT
    rows: int
    features: list[FeatureBaseline]
    score: ScoreBaseline
    importance_metric: str
    reference: list[dict[str, Any]]


_decoder = msgspec.json.Decoder(Baseline)


def decode_baseline(data: bytes) -> Baseline:
    """Returns the baseline in ``baseline.json``'s bytes.

    Raises:
        msgspec.DecodeError: not JSON, not a baseline, or counts that do not fit their bins.
    """
    baseline = _decoder.decode(data)
    for place, feature in enumerate(baseline.features):
        _check_counts(feature.bins, feature.counts, f"$.features[{place}]")
    _check_counts(baseline.score.bins, baseline.score.counts, "$.score")
    return baseline


def _check_counts(bins: Bins, counts: list[int], place: str) -> None:
    if len(counts) != bins.cells:
        raise msgspec.ValidationError(f"Expected {bins.cells} counts, got {len(counts)} - at `{place}.counts`")
    if isinstance(bins, NumericBins) and not bins.edges:
        raise msgspec.ValidationError(f"Expected at least one edge, got none - at `{place}.bins.edges`")
    if isinstance(bins, NumericBins) and bins.edges != sorted(set(bins.edges)):
        raise msgspec.ValidationError(f"Expected edges that increase - at `{place}.bins.edges`")
