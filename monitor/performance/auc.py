"""Area under the ROC curve, with DeLong's interval, from score histograms of both classes."""

import math
from statistics import NormalDist
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray


class AreaUnderCurve(msgspec.Struct, frozen=True, kw_only=True):
    """AUC in [0, 1] and its interval; ``low`` and ``high`` are None where no interval exists."""

    value: float
    low: float | None
    high: float | None


def area_under_curve(
    negatives: NDArray[Any], positives: NDArray[Any], confidence: float = 0.95
) -> AreaUnderCurve | None:
    """Returns the chance that a positive row scores above a negative one, ties counting half.

    Formula: AUC = Σ_b P_b (N_<b + ½ N_b) / (P N). DeLong's variance is Var(V₁₀)/P + Var(V₀₁)/N, where
    V₁₀ = (N_<b + ½ N_b) / N is a positive row's share of negatives below it and
    V₀₁ = (P_>b + ½ P_b) / P a negative row's share of positives above it. The interval is symmetric in
    ln(AUC / (1 - AUC)), so it stays inside (0, 1).

    Null hypothesis: none; a score that says nothing has AUC ½.

    Range: [0, 1]. None without a row of both classes; no interval when a class has one row or the
    scores separate the classes perfectly, for the variance is then unknown and not 0.

    Reference: DeLong, DeLong and Clarke-Pearson (1988), Biometrics 44(3); Pepe (2003), "The
    Statistical Evaluation of Medical Tests", section 5.2, for the logit.

    Args:
        negatives: int64 or, effective ones, float64, (bins,), rows of the first class by score bin, lowest score first.
        positives: (bins,), rows of the second class.
        confidence: the interval's coverage.

    >>> found = area_under_curve(np.array([40, 30, 30]), np.array([10, 30, 60]))
    >>> round(found.value, 3), round(found.low, 3), round(found.high, 3)
    (0.695, 0.623, 0.758)
    """
    p, n = float(positives.sum()), float(negatives.sum())
    if p <= 0 or n <= 0:
        return None
    below = (np.cumsum(negatives) - 0.5 * negatives) / n
    above = (p - np.cumsum(positives) + 0.5 * positives) / p
    value = float(positives @ below) / p
    if p < 2 or n < 2:
        return AreaUnderCurve(value=value, low=None, high=None)
    variance = float(positives @ (below - value) ** 2) / (p - 1) / p
    variance += float(negatives @ (above - value) ** 2) / (n - 1) / n
    if variance <= 0 or not 0 < value < 1:
        return AreaUnderCurve(value=value, low=None, high=None)
    centre = math.log(value / (1 - value))
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(variance) / (value * (1 - value))
    return AreaUnderCurve(value=value, low=_expit(centre - reach), high=_expit(centre + reach))


def _expit(x: float) -> float:
    return 0.5 * (1 + math.tanh(x / 2))
