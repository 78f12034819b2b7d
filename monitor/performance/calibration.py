"""Whether predicted probabilities come true: reliability, expected calibration error, its null band."""

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from monitor.performance.cells import SCALE

# The 95 % point of the standard normal distribution.
_Z95 = 1.6448536269514722


class ReliabilityPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One bin of the reliability diagram: mean probability, share that came true, rows."""

    p: float
    y: float
    n: int


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """How far probabilities are from frequencies.

    ``ece`` in [0, 1]; ``ece_null`` and ``ece_null_95`` are its mean and 95 % point for a perfectly
    calibrated model on these rows; ``gap`` is mean p - mean y, calibration in the large, in [-1, 1].
    """

    ece: float
    ece_null: float
    ece_null_95: float
    gap: float
    points: list[ReliabilityPoint]


def calibration(reliability: NDArray[np.int64], share: float = 1.0) -> Calibration | None:
    """Returns the calibration of labelled rows, None when there is none.

    Formula: ECE = Σ_b (n_b / n) |p̄_b - ȳ_b| over 20 equal bins of p.

    Null hypothesis: perfect calibration. Then n_b (ȳ_b - p̄_b) is about N(0, n_b p̄_b(1 - p̄_b)), so
    ECE has mean Σ √(2/π · n_b p̄_b(1 - p̄_b)) / n — not 0 — variance Σ (1 - 2/π) n_b p̄_b(1 - p̄_b) / n²,
    and about a normal distribution, whose 95 % point is published.

    Range: [0, 1].

    Reference: Naeini, Cooper and Hauskrecht (2015), AAAI, for ECE; Bröcker and Smith (2007),
    Weather and Forecasting 22(3), for reading a reliability diagram against its null.

    Args:
        reliability: int64, (3, bins): rows, Σp in units of 2⁻²⁴, Σy.
        share: part of the rows that counts as evidence where they are weighted, of which the null band is made.

    >>> rows = np.array([[100, 50], [20 * SCALE, 40 * SCALE], [30, 40]])
    >>> found = calibration(rows)
    >>> round(found.ece, 4), round(found.ece_null, 4), round(found.ece_null_95, 4), round(found.gap, 4)
    (0.0667, 0.0363, 0.0687, -0.0667)
    """
    held = reliability[0] > 0
    counts, came_true = reliability[0][held], reliability[2][held]
    expected = reliability[1][held] / SCALE
    n = int(counts.sum())
    if n <= 0:
        return None
    p = np.clip(expected / counts, 0.0, 1.0)
    variances = counts * share * p * (1 - p)
    mean = math.sqrt(2 / math.pi) * float(np.sqrt(variances).sum()) / (n * share)
    deviation = math.sqrt((1 - 2 / math.pi) * float(variances.sum())) / (n * share)
    return Calibration(
        ece=float(np.abs(expected - came_true).sum()) / n,
        ece_null=mean,
        ece_null_95=mean + _Z95 * deviation,
        gap=float(expected.sum() - came_true.sum()) / n,
        points=[
            ReliabilityPoint(p=chance, y=share, n=count)
            for chance, share, count in zip(p.tolist(), (came_true / counts).tolist(), counts.tolist(), strict=True)
        ],
    )
