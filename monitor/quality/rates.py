"""Rates of missing values, new categories and values out of range, tested against the baseline's."""

import math
from functools import partial
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrc, betaincinv

from server.contract.histogram import Bins, NumericBins

Issue = Literal["missing", "new_category", "out_of_range"]

# The share of alpha spent on the baseline's own uncertainty.
_BOUND_SHARE = 0.1


class FeatureQuality(msgspec.Struct, frozen=True, kw_only=True):
    """How many of a feature's ``n`` live values are unsound, and which rates are above the baseline's.

    ``new_rate`` is of a categorical feature and ``out_of_range_rate`` of a numeric one, None for the
    other kind; both are shares of the values that are not missing. Rates are None without values.
    """

    n: int
    missing_rate: float | None
    missing_baseline: float | None
    missing_p_value: float
    new_rate: float | None = None
    new_p_value: float | None = None
    out_of_range_rate: float | None = None
    out_of_range_p_value: float | None = None
    issues: list[Issue] = []


def rate_p_value(
    count: int, n: int, baseline_count: int, baseline_n: int, *, alpha: float, tolerance: float = 0.0
) -> float:
    """Returns the evidence that a rate rose above the baseline's, as a p-value to compare with alpha.

    Formula: p = P(Binomial(n, p₀) ≥ count) + β, where p₀ = tolerance + the Clopper-Pearson upper
    bound, at confidence 1 - β, of the baseline's rate: BetaInv(1 - β; c + 1, m - c). β = alpha / 10.

    Null hypothesis: the live rate is at most the rate behind the baseline, plus the tolerance.
    Under it P(p < alpha) ≤ alpha exactly, at every n and m, for independent rows; nothing seen in m
    baseline rows makes a null rate of about -ln(β)/m and not 0.

    Range: [β, 1]; 1 without live or baseline rows.

    Reference: Clopper and Pearson (1934), Biometrika 26(4); Berger and Boos (1994), "P values
    maximized over a confidence set for the nuisance parameter", JASA 89(427).

    Args:
        count: live rows of the kind, of n.
        baseline_count: baseline rows of the kind, of baseline_n.
        alpha: the level the result will be compared with, in (0, 1).
        tolerance: rise of the rate that is of no interest.

    >>> round(rate_p_value(3, 1000, 0, 50_000, alpha=0.01), 4)
    0.0014
    >>> rate_p_value(0, 1000, 0, 50_000, alpha=0.01)
    1.0
    """
    if n <= 0 or baseline_n <= 0 or count <= 0:
        return 1.0
    beta = alpha * _BOUND_SHARE
    bound = 1.0
    if baseline_count < baseline_n:
        bound = min(1.0, float(betaincinv(baseline_count + 1, baseline_n - baseline_count, 1 - beta)) + tolerance)
    return min(1.0, float(bdtrc(count - 1, n, bound)) + beta)


def weighted_rate_p_value(
    count: int,
    n: int,
    baseline_count: int,
    baseline_n: int,
    *,
    alpha: float,
    tolerance: float = 0.0,
    weight_excess: int = 0,
    heaviest: int = 1,
) -> float:
    """Returns what ``rate_p_value`` does for rows that count by a weight.

    Formula: p of ⌊count / w⌋ of ⌈n / w⌉ rows, w the heaviest weight. Where all weigh the same these are the rows
    themselves, and p is exact. Where they do not, the binomial part is multiplied by e: the weighted sum over w is
    below that binomial variable in convex order (Marshall, Olkin and Arnold: its weights are majorized by as
    many ones), and then its tail is at most e times the binomial one (Pinelis).
    Kish's size, under which drift is judged, would not do: of rare events one heavy row may be the whole
    count, and 1 row of weight 100 among 10,000 of weight 1 would pass for 50 rows.

    Null hypothesis: as in ``rate_p_value``, with weights that say nothing of the value. Range: [β, 1].

    Reference: Marshall, Olkin and Arnold (2011), "Inequalities", 11.B.2; Pinelis (1998), "Optimal tail comparison
    based on comparison of moments", for log-concave tails; Bentkus (2004), Annals of Probability 32(2).

    Args:
        count: sum of the weights of live rows of the kind, of n.
        weight_excess: Σ(w² - w) over all n.
        heaviest: the largest weight, 1 where every row counts once.

    >>> weighted_rate_p_value(30, 10_000, 0, 50_000, alpha=0.01, weight_excess=90_000, heaviest=10) == rate_p_value(
    ...     3, 1000, 0, 50_000, alpha=0.01
    ... )
    True
    """
    rows, of_kind = -(-n // heaviest), count // heaviest
    p = rate_p_value(of_kind, rows, baseline_count, baseline_n, alpha=alpha, tolerance=tolerance)
    if p == 1.0 or weight_excess == (heaviest - 1) * n:
        return p
    beta = alpha * _BOUND_SHARE
    return min(1.0, math.e * (p - beta) + beta)


def feature_quality(
    bins: Bins,
    live: NDArray[np.int64],
    baseline: NDArray[np.int64],
    *,
    alpha: float,
    tolerance: float = 0.0,
    weight_excess: int = 0,
    heaviest: int = 1,
) -> FeatureQuality:
    """Returns the rates of unsound values of one feature, and as ``issues`` those with p < alpha.

    Formula, null hypothesis, range and reference: see ``rate_p_value`` and ``weighted_rate_p_value``.

    Args:
        bins: the feature's bins.
        live: int64, (cells,); may be all zeros.
        baseline: int64, (cells,).
        alpha: false-alarm probability of each check.
        tolerance: rise of a rate that is of no interest.
        weight_excess: Σ(w² - w) of the live rows, 0 where each counts once.
        heaviest: the largest weight of a live row.

    >>> from server.contract.histogram import CategoricalBins
    >>> bins = CategoricalBins(categories=["AA", "UA"])
    >>> found = feature_quality(bins, np.array([40, 40, 10, 10]), np.array([500, 490, 0, 10]), alpha=0.001)
    >>> found.missing_rate, found.missing_baseline, round(found.new_rate, 3), found.issues
    (0.1, 0.01, 0.111, ['missing', 'new_category'])
    """
    n, m = int(live.sum()), int(baseline.sum())
    missing, baseline_missing = int(live[-1]), int(baseline[-1])
    if isinstance(bins, NumericBins):
        odd, baseline_odd = int(live[0] + live[-2]), int(baseline[0] + baseline[-2])
    else:
        odd, baseline_odd = int(live[-2]), int(baseline[-2])
    known, baseline_known = n - missing, m - baseline_missing
    p_value = partial(weighted_rate_p_value, alpha=alpha, tolerance=tolerance, heaviest=heaviest)
    missing_p = p_value(missing, n, baseline_missing, m, weight_excess=weight_excess)
    # Only of equal weights is the excess of a part known; any other value stands for weights that differ.
    equal = weight_excess == (heaviest - 1) * n
    odd_p = p_value(odd, known, baseline_odd, baseline_known, weight_excess=(heaviest - 1) * known if equal else -1)
    odd_rate = odd / known if known else None

    issues: list[Issue] = []
    if missing_p < alpha:
        issues.append("missing")
    numeric = isinstance(bins, NumericBins)
    if odd_p < alpha:
        issues.append("out_of_range" if numeric else "new_category")
    return FeatureQuality(
        n=n,
        missing_rate=missing / n if n else None,
        missing_baseline=baseline_missing / m if m else None,
        missing_p_value=missing_p,
        new_rate=None if numeric else odd_rate,
        new_p_value=None if numeric else odd_p,
        out_of_range_rate=odd_rate if numeric else None,
        out_of_range_p_value=odd_p if numeric else None,
        issues=issues,
    )
