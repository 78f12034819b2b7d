"""The Kolmogorov-Smirnov distance of two histograms over the same ordered cells."""

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray


class KolmogorovSmirnov(msgspec.Struct, frozen=True, kw_only=True):
    """The statistic D in [0, 1] and what it exceeds with probability alpha at most when nothing moved."""

    statistic: float
    threshold: float


def kolmogorov_smirnov(live: NDArray[Any], baseline: NDArray[np.int64], alpha: float) -> KolmogorovSmirnov:
    """Returns the two-sample Kolmogorov-Smirnov statistic and its threshold at level alpha.

    Formula: D = max_b |F(b) - G(b)| over the cells' cumulative shares; the threshold is
    √(-½ ln(alpha/2)) · √((n + m) / (n m)), at most 1.

    Null hypothesis: both samples come from one distribution. Binned or discrete values only make
    exceeding it rarer, never more frequent: D over bins is at most D over the rows.

    Range: D in [0, 1]. With many rows everything exceeds the threshold and D is an effect size:
    the largest share of rows that has crossed any one value.

    Reference: Smirnov (1939); Massey (1951), JASA 46(253); Noether (1963) for discrete values.

    Args:
        live: int64 or, effective ones, float64, (cells,), in the order of the values: under, bins, over; without
            missing.
        baseline: int64, (cells,), the same cells.
        alpha: probability of exceeding the threshold without drift, in (0, 1).

    >>> result = kolmogorov_smirnov(np.array([10, 30, 60]), np.array([300, 300, 400]), alpha=0.05)
    >>> round(result.statistic, 3), round(result.threshold, 3)
    (0.2, 0.142)
    """
    n, m = float(live.sum()), int(baseline.sum())
    if n <= 0 or m <= 0:
        return KolmogorovSmirnov(statistic=0.0, threshold=1.0)
    statistic = float(np.abs(np.cumsum(live) / n - np.cumsum(baseline) / m).max())
    threshold = math.sqrt(-0.5 * math.log(alpha / 2) * (n + m) / (n * m))
    return KolmogorovSmirnov(statistic=statistic, threshold=min(1.0, threshold))
