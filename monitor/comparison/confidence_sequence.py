"""An interval for a mean that holds at every look: the empirical-Bernstein confidence sequence."""

import math
from collections.abc import Iterable

import msgspec

_POWER = 1.4
_ZETA = 3.1055472779775810  # zeta(1.4)
_K1 = (2**0.25 + 2**-0.25) / math.sqrt(2)
_K2 = (math.sqrt(2) + 1) / 2


class PaneSums(msgspec.Struct, frozen=True, kw_only=True):
    """A pane's observations, each in [low, high]: how many, Σx, Σx²."""

    n: int
    total: float
    squares: float


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A mean and the interval that holds it. ``estimate`` is None without observations."""

    estimate: float | None
    low: float
    high: float
    n: int


def empirical_bernstein(panes: Iterable[PaneSums], alpha: float, low: float = -1.0, high: float = 1.0) -> Interval:
    """Returns the confidence sequence's present interval for the mean of bounded observations.

    Formula, for x rescaled to [0, 1], t observations: x̄ ± S(V)/t with V = max(Σ(x - μ̂)², 1),
    S(v) = √(k1² v l(v) + k2² l(v)²) + k2 l(v), l(v) = 1.4 ln(1 + log2 v) + ln(2 zeta(1.4)/alpha),
    k1 = (2^¼ + 2^-¼)/√2, k2 = (√2 + 1)/2. μ̂ = (½ + Σx)/(i + 1) is of earlier panes, i observations;
    it is held for a whole pane, so that a pane's n, Σx, Σx² suffice.

    Null hypothesis (what is assumed): a pane's size says nothing about its gains. Then, for any number
    of looks, P(the mean is ever outside) ≤ alpha. The mean is that of the observations' conditional
    means so far: it may wander with the seasons, and each look's interval holds the mean up to
    that look. Intervals of different looks are therefore not intersected.

    Range: inside [low, high].

    Reference: Howard, Ramdas, McAuliffe and Sekhon (2021), "Time-uniform, nonparametric, nonasymptotic
    confidence sequences", Annals of Statistics 49(2): theorem 4 with the polynomial stitched boundary
    of theorem 1, eta = 2, s = 1.4, m = 1; a sub-exponential process is sub-gamma of the same scale.

    Args:
        panes: the sums of each pane, oldest first; empty ones are skipped.
        alpha: probability that the mean is ever outside, in (0, 1).
        low: the smallest value an observation can have.
        high: the largest.

    >>> pane = PaneSums(n=1000, total=100.0, squares=60.0)
    >>> found = empirical_bernstein([pane] * 20, alpha=0.05)
    >>> round(found.estimate, 3), round(found.low, 3), round(found.high, 3), found.n
    (0.1, 0.093, 0.107, 20000)
    """
    width = high - low
    count, total, deviations = 0, 0.0, 0.0
    for pane in panes:
        if pane.n <= 0:
            continue
        pane_total = (pane.total - low * pane.n) / width
        pane_squares = (pane.squares - 2 * low * pane.total + low * low * pane.n) / width**2
        deviations += _square_deviations(pane.n, pane_total, pane_squares, (0.5 + total) / (count + 1))
        count += pane.n
        total += pane_total
    if not count:
        return Interval(estimate=None, low=low, high=high, n=0)
    mean, reach = total / count, _stitched(max(deviations, 1.0), alpha) / count
    bottom, top = max(0.0, mean - reach), min(1.0, mean + reach)
    return Interval(estimate=low + width * mean, low=low + width * bottom, high=low + width * top, n=count)


def _stitched(v: float, alpha: float) -> float:
    """Returns what a centred sum with variance process v exceeds, on either side, with probability alpha at most."""
    level = _POWER * math.log1p(math.log2(v)) + math.log(2 * _ZETA / alpha)
    return math.sqrt(_K1**2 * v * level + (_K2 * level) ** 2) + _K2 * level


def _square_deviations(n: int, total: float, squares: float, centre: float) -> float:
    # Rounding, of the fixed-point sums too, must not make a sum of squares negative.
    return max(0.0, squares - 2 * centre * total + n * centre * centre)
