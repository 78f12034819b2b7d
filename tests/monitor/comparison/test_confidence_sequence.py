import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from scipy.special import zeta

from monitor.comparison.confidence_sequence import Interval, PaneSums, empirical_bernstein


def sums(values: np.ndarray) -> PaneSums:
    return PaneSums(n=len(values), total=float(values.sum()), squares=float((values**2).sum()))


def by_observation(values: np.ndarray, alpha: float) -> tuple[float, float]:
    """Howard et al., theorem 4 with the stitched boundary of theorem 1, observation by observation over [0, 1]."""
    eta, s, m = 2.0, 1.4, 1.0
    predictions = [(0.5 + values[:i].sum()) / (i + 1) for i in range(len(values))]
    v = max(((values - predictions) ** 2).sum(), m)
    level = math.log((math.log(v / m, eta) + 1) ** s * zeta(s)) + math.log(1 / (alpha / 2))
    k1, k2 = (eta**0.25 + eta**-0.25) / math.sqrt(2), (math.sqrt(eta) + 1) / 2
    boundary = math.sqrt(k1**2 * v * level + k2**2 * level**2) + k2 * level
    return values.mean() - boundary / len(values), values.mean() + boundary / len(values)


def test_equals_the_published_sequence() -> None:
    """With one observation a pane, the interval is that of the published formula, step by step."""
    values = np.random.default_rng(0).beta(2, 5, 1_000)

    found = empirical_bernstein([sums(values[i : i + 1]) for i in range(1_000)], alpha=0.1, low=0.0, high=1.0)

    assert by_observation(values, 0.1) == pytest.approx((found.low, found.high))


def right_minus_right(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.choice([-1.0, 0.0, 1.0], n, p=[0.05, 0.9, 0.05])


def skewed(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.where(rng.random(n) < 0.01, 0.99, -0.01)


def coin(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.choice([-1.0, 1.0], n)


@pytest.mark.parametrize("draw", [right_minus_right, skewed, coin])
@pytest.mark.parametrize("typical", [3, 300])
def test_covers_at_every_look(draw: Callable[[np.random.Generator, int], np.ndarray], typical: int) -> None:
    """Looking after each of 40 panes, whose sizes follow the past, at most alpha of runs ever lose the mean 0."""
    alpha, runs = 0.1, 150
    rng = np.random.default_rng(1)
    left = 0
    for _ in range(runs):
        panes: list[PaneSums] = []
        for _ in range(40):
            lucky = bool(panes) and panes[-1].total > 0
            panes.append(sums(draw(rng, int(rng.integers(1, 2 * typical) * (3 if lucky else 1)))))
        looks = [empirical_bernstein(panes[:look], alpha) for look in range(1, 41)]
        left += any(not look.low <= 0 <= look.high for look in looks)

    assert left / runs <= alpha


def test_shrinks() -> None:
    """The interval never widens, and is six times narrower or more after a hundred times the panes."""
    rng = np.random.default_rng(2)
    panes = [sums(right_minus_right(rng, 500)) for _ in range(300)]
    widths = [found.high - found.low for found in (empirical_bernstein(panes[:look], 0.05) for look in range(1, 301))]

    assert all(later <= earlier for earlier, later in pairwise(widths))
    assert widths[2] / widths[299] > 6
    assert widths[299] < 0.008


def test_large_first_pane_does_not_stick() -> None:
    """One large pane gives an interval of its size at once, and leaves the later ones to adapt."""
    values = right_minus_right(np.random.default_rng(3), 20_000)

    at_once = empirical_bernstein([sums(values)], 0.05)
    in_parts = empirical_bernstein([sums(part) for part in np.split(values, 100)], 0.05)

    assert at_once.high - at_once.low < 5 * (in_parts.high - in_parts.low)
    assert in_parts.high - in_parts.low < 0.025
    later = empirical_bernstein([sums(values), *(sums(part) for part in np.split(values, 100))], 0.05)
    assert later.high - later.low < 1.2 * (in_parts.high - in_parts.low)


def test_adapts_to_the_variance() -> None:
    """Observations of a tenth of the spread give an interval several times narrower."""
    values = np.random.default_rng(4).choice([-1.0, 1.0], 20_000)

    wide, narrow = (
        empirical_bernstein([sums(scale * part) for part in np.split(values, 40)], 0.05) for scale in (1.0, 0.1)
    )

    assert (wide.high - wide.low) > 5 * (narrow.high - narrow.low)


def test_other_ranges() -> None:
    """The range of the observations is a matter of units."""
    values = np.random.default_rng(5).random(1_000)
    panes = np.split(values, 10)

    unit = empirical_bernstein([sums(pane) for pane in panes], 0.05, low=0.0, high=1.0)
    moved = empirical_bernstein([sums(10 * pane - 4) for pane in panes], 0.05, low=-4.0, high=6.0)

    assert (10 * unit.low - 4, 10 * unit.high - 4) == pytest.approx((moved.low, moved.high))


def test_covers_a_mean_that_wanders() -> None:
    """When the mean follows a season, each look's interval holds the mean up to that look."""
    alpha, runs, looks = 0.1, 150, 40
    rng = np.random.default_rng(6)
    means = 0.3 * np.sin(np.arange(looks) / 6)
    left = 0
    for _ in range(runs):
        panes = [sums(np.where(rng.random(100) < (1 + mean) / 2, 1.0, -1.0)) for mean in means]
        found = [empirical_bernstein(panes[: look + 1], alpha) for look in range(looks)]
        left += any(not now.low <= means[: look + 1].mean() <= now.high for look, now in enumerate(found))

    assert left / runs <= alpha
    assert not found[-1].low <= means[:8].mean() <= found[-1].high


def test_nothing_seen() -> None:
    """Without observations the interval is the whole range, and empty panes change nothing."""
    empty = PaneSums(n=0, total=0.0, squares=0.0)

    assert Interval(estimate=None, low=-1.0, high=1.0, n=0) == empirical_bernstein([empty], 0.05)
    some = sums(np.full(30, 0.5))
    assert empirical_bernstein([some, some], 0.05) == empirical_bernstein([empty, some, empty, some], 0.05)


def test_extreme_observations() -> None:
    """Observations that all sit on the range's end keep the interval inside the range."""
    found = empirical_bernstein([sums(np.ones(1_000))] * 5, 0.05)

    assert 0.9 < found.low <= found.high == 1
    assert found.estimate == 1
