"""Population stability index, with the bias and the evidence that the bare number lacks."""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc


class PopulationStability(msgspec.Struct, frozen=True, kw_only=True):
    """What the coarse counts of two samples say of their distance.

    ``value`` is PSI ≥ 0, ``debiased`` is PSI - (B-1)s and falls on both sides of 0 when nothing
    moved, ``scale`` is s = 1/n + 1/m, ``groups`` is B, and ``p_value`` the chance of a PSI as
    large when nothing moved. Without rows on either side there is no evidence: 0, 0, 0, 0 and 1.
    """

    value: float
    debiased: float
    scale: float
    groups: int
    p_value: float


def population_stability(live: NDArray[Any], baseline: NDArray[np.int64]) -> PopulationStability:
    """Returns the population stability index of live against baseline counts.

    Formula: PSI = Σ_b (p_b - q_b) ln(p_b / q_b), the sum of both Kullback-Leibler divergences, with
    p = (c + ½) / (n + B/2) over the B groups that hold a row on either side (a group empty on both
    says nothing, and counting it would bias PSI by the difference of n and m alone).

    Null hypothesis: both samples come from one distribution. Then PSI / s ~ χ²(B-1) with
    s = 1/n + 1/m, so the mean of PSI is (B-1)s and a fixed threshold such as 0.1 means something
    else at every n: at n = 100 live rows in 10 groups, PSI has a mean of 0.09 with no drift at all.

    Range: value ≥ 0, without an upper bound; p_value in [0, 1].

    Reference: Yurdakul and Naranjo (2020), "Statistical properties of the population stability
    index", Journal of Risk Model Validation 14(4); Jeffreys (1946) for the divergence.

    Args:
        live: int64 or, effective ones, float64, (groups,), rolled-up counts.
        baseline: int64, (groups,).

    >>> drift = population_stability(np.array([60, 40]), np.array([500, 500]))
    >>> round(drift.value, 4), round(drift.debiased, 4), round(drift.scale, 4), drift.groups
    (0.0397, 0.0287, 0.011, 2)
    >>> round(drift.p_value, 3)
    0.057
    """
    n, m = float(live.sum()), int(baseline.sum())
    if n <= 0 or m <= 0:
        return PopulationStability(value=0.0, debiased=0.0, scale=0.0, groups=0, p_value=1.0)
    seen = (live + baseline) > 0
    groups = int(np.count_nonzero(seen))
    p = (live[seen] + 0.5) / (n + groups / 2)
    q = (baseline[seen] + 0.5) / (m + groups / 2)
    value = float(((p - q) * np.log(p / q)).sum())
    scale = 1 / n + 1 / m
    return PopulationStability(
        value=value,
        debiased=value - (groups - 1) * scale,
        scale=scale,
        groups=groups,
        p_value=float(chdtrc(groups - 1, value / scale)) if groups > 1 else 1.0,
    )
