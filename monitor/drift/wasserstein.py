"""The earth mover's distance of two histograms, in robust standard deviations of the baseline."""

import math

import numpy as np
from numpy.typing import NDArray

from server.contract.histogram import NumericBins

# IQR of a normal distribution in standard deviations.
_NORMAL_IQR = 1.349
# Most of a feature may sit on one value (rain: zero), and then its IQR is 0 or next to it.
_FLOOR = 0.25


def wasserstein(bins: NumericBins, live: NDArray[np.int64], baseline: NDArray[np.int64]) -> float:
    """Returns how far, on average, a row has to be moved to turn one histogram into the other.

    Formula: W₁ = ∫ |F(x) - G(x)| dx / sigma, with every bin's rows at its lower edge (exact for
    discrete features, within a bin's width for others) and sigma of the baseline's bins:
    sigma = max(IQR / 1.349, ¼ standard deviation), or 1 when the baseline is constant.
    A count does not know how far out of range a value was: under is placed at the lowest edge
    and over at ``upper``, so W₁ is a lower bound then, and the out-of-range rate stands beside it.
    Missing values take no part.

    Null hypothesis: none, it is an effect size. Under no drift it falls like √(1/n + 1/m).

    Range: ≥ 0; 1 is a shift of a normal feature by one standard deviation.

    Reference: Vallender (1974), "Calculation of the Wasserstein distance between probability
    distributions on the line"; Ramdas, García Trillos and Cuturi (2017), Entropy 19(2).

    Args:
        bins: the feature's bins.
        live: int64, (cells,).
        baseline: int64, (cells,).

    >>> bins = NumericBins(edges=[0.0, 1.0, 2.0, 3.0], upper=3.0)
    >>> baseline = np.array([0, 10, 10, 10, 10, 0, 0])
    >>> round(wasserstein(bins, np.array([0, 0, 0, 0, 40, 0, 2]), baseline) * robust_scale(bins, baseline), 9)
    1.5
    """
    known, reference = live[:-1], baseline[:-1]
    n, m = int(known.sum()), int(reference.sum())
    if n <= 0 or m <= 0:
        return 0.0
    gap = np.abs(np.cumsum(known) / n - np.cumsum(reference) / m)
    return float((gap[:-1] * np.diff(_positions(bins))).sum()) / robust_scale(bins, baseline)


def robust_scale(bins: NumericBins, baseline: NDArray[np.int64]) -> float:
    """Returns the baseline's robust standard deviation in the feature's units, above 0.

    >>> bins = NumericBins(edges=[0.0, 1.0, 2.0, 3.0], upper=3.0)
    >>> round(robust_scale(bins, np.array([0, 10, 10, 10, 10, 0, 0])), 4)
    1.4826
    """
    counts, positions = baseline[:-1], _positions(bins)
    total = int(counts.sum())
    if total <= 0:
        return 1.0
    below = np.cumsum(counts)
    quarter, three_quarters = positions[np.searchsorted(below, [total / 4, 3 * total / 4], side="left")]
    mean = float(counts @ positions) / total
    deviation = math.sqrt(float(counts @ (positions - mean) ** 2) / total)
    return max(float(three_quarters - quarter) / _NORMAL_IQR, _FLOOR * deviation) or 1.0


def _positions(bins: NumericBins) -> NDArray[np.float64]:
    return np.array([bins.edges[0], *bins.edges, bins.upper], dtype=np.float64)
