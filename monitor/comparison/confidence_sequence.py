"""An interval for a mean that holds at every look: the empirical-Bernstein confidence sequence."""

import math
from collections.abc import Iterable

import msgspec

_TRUNCATION = 0.5


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

    Formula, for x rescaled to [0, 1]: (Σλx ± [ln(2/alpha) + 4 Σ (x - μ̂)² ψ(λ)]) / Σλ with
    ψ(λ) = (-ln(1-λ) - λ)/4 and λ = min(√(2 ln(2/alpha) / (v t ln(1+t))), ½). μ̂ = (½ + Σx)/(i + 1) and v = (¼ + Σ(x - μ̂)²)/(i + 1) are of earlier
    panes, i observations. λ and μ̂ are held for a whole pane, so that a pane's n, Σx, Σx² suffice; t is the
    number of observations at the pane's end. With one observation a pane this is the published
    sequence, to the letter.

    Null hypothesis (what is assumed): a pane's size says nothing about its gains. Then P(the mean is
    ever outside) ≤ alpha, for any number of looks, where the mean is the λ-weighted one of the
    observations' means so far. Means wander with the seasons, so intervals of different looks hold
    different means: they are not intersected, and the interval is widened, where it must be, to hold
    the plain mean that is published beside it.

    Range: inside [low, high].

    Reference: Waudby-Smith and Ramdas (2024), "Estimating means of bounded random variables by
    betting", JRSS B 86(1), theorem 2 and section 3.2; Howard et al. (2021), Annals of Statistics 49(2).

    Args:
        panes: the sums of each pane, oldest first; empty ones are skipped.
        alpha: probability that the mean is ever outside, in (0, 1).
        low: the smallest value an observation can have.
        high: the largest.

    >>> pane = PaneSums(n=1000, total=100.0, squares=60.0)
    >>> found = empirical_bernstein([pane] * 20, alpha=0.05)
    >>> round(found.estimate, 3), round(found.low, 3), round(found.high, 3), found.n
    (0.1, 0.094, 0.106, 20000)
    """
    width = high - low
    budget = math.log(2 / alpha)
    count, total, deviations = 0, 0.0, 0.0
    weights = weighted = penalty = 0.0
    bottom, top = 0.0, 1.0
    for pane in panes:
        n = pane.n
        if n <= 0:
            continue
        pane_total = (pane.total - low * n) / width
        pane_squares = (pane.squares - 2 * low * pane.total + low * low * n) / width**2
        mean, variance = (0.5 + total) / (count + 1), (0.25 + deviations) / (count + 1)
        end = count + n
        bet = min(math.sqrt(2 * budget / (variance * end * math.log1p(end))), _TRUNCATION)

        weights += bet * n
        weighted += bet * pane_total
        penalty += (-math.log1p(-bet) - bet) * _square_deviations(n, pane_total, pane_squares, mean)
        centre, reach = weighted / weights, (budget + penalty) / weights
        bottom, top = max(0.0, centre - reach), min(1.0, centre + reach)

        count, total = end, total + pane_total
        deviations += _square_deviations(n, pane_total, pane_squares, (0.5 + total) / (count + 1))
    if not count:
        return Interval(estimate=None, low=low, high=high, n=0)
    plain = total / count
    bottom, top = min(bottom, plain), max(top, plain)
    return Interval(estimate=low + width * plain, low=low + width * bottom, high=low + width * top, n=count)


def _square_deviations(n: int, total: float, squares: float, centre: float) -> float:
    # Rounding, of the fixed-point sums too, must not make a sum of squares negative.
    return max(0.0, squares - 2 * centre * total + n * centre * centre)
