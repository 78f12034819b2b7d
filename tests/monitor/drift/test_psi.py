import math

import numpy as np
import pytest
from numpy.typing import NDArray

from monitor.drift.psi import PopulationStability, population_stability
from monitor.drift.rollup import coarse_cells, roll_up
from server.contract.histogram import quantile_bins


def no_drift(n: int, m: int, windows: int, seed: int) -> list[PopulationStability]:
    """Windows of n rows from the very distribution of a fresh baseline of m rows, 2 % missing."""
    rng = np.random.default_rng(seed)

    def rows(size: int) -> NDArray[np.float64]:
        values = rng.lognormal(size=size)
        values[rng.random(size) < 0.02] = np.nan
        return values

    found = []
    for _ in range(windows):
        training = rows(m)
        bins = quantile_bins(training, 64)
        baseline = bins.count(training)
        groups = coarse_cells(bins, baseline)
        found.append(population_stability(roll_up(bins.count(rows(n)), groups), roll_up(baseline, groups)))
    return found


def test_value_is_the_formula() -> None:
    """PSI is the sum of (p - q) ln(p / q) over shares smoothed by half a row."""
    found = population_stability(np.array([7, 1, 2]), np.array([40, 30, 30]))

    shares = [(7.5 / 11.5, 40.5 / 101.5), (1.5 / 11.5, 30.5 / 101.5), (2.5 / 11.5, 30.5 / 101.5)]
    assert found.value == pytest.approx(sum((p - q) * math.log(p / q) for p, q in shares))
    assert found.scale == pytest.approx(1 / 10 + 1 / 100)
    assert found.debiased == pytest.approx(found.value - 2 * 0.11)


@pytest.mark.parametrize(("n", "m"), [(100, 2_000), (500, 2_000), (4_000, 2_000)])
def test_p_value_is_calibrated(n: int, m: int) -> None:
    """Without drift, windows whose p-value is below alpha are about a share alpha of all, at every n."""
    p_values = np.array([found.p_value for found in no_drift(n, m, windows=1_000, seed=1)])

    for alpha in (0.1, 0.05, 0.01):
        noise = 3 * math.sqrt(alpha * (1 - alpha) / 1_000)
        assert alpha / 2 - noise < (p_values < alpha).mean() < alpha + noise


def test_debiased_value_is_centred() -> None:
    """Without drift, debiased PSI is 0 on average while PSI itself is (B - 1)s."""
    found = no_drift(500, 2_000, windows=1_000, seed=2)

    debiased = np.mean([one.debiased for one in found])
    raw = np.mean([one.value for one in found])
    bias = 10 * (1 / 500 + 1 / 2_000)
    assert debiased == pytest.approx(0, abs=0.15 * bias)
    assert raw == pytest.approx(bias, rel=0.15)


def test_fixed_threshold_misfires() -> None:
    """A fixed threshold of 0.1 calls a third or more of windows of 100 undrifted rows drifted, and none of 2,000."""
    small = np.array([found.value > 0.1 for found in no_drift(100, 2_000, windows=300, seed=3)])
    large = np.array([found.value > 0.1 for found in no_drift(2_000, 2_000, windows=300, seed=3)])

    assert small.mean() > 0.33
    assert large.mean() == 0


def test_p_value_sees_what_the_fixed_threshold_does_not() -> None:
    """A shift by 0.1 standard deviations never reaches 0.1 and has overwhelming evidence at 20,000 rows."""
    rng = np.random.default_rng(4)
    training = rng.normal(size=20_000)
    bins = quantile_bins(training)
    baseline = bins.count(training)
    groups = coarse_cells(bins, baseline)

    found = population_stability(roll_up(bins.count(rng.normal(0.1, 1, 20_000)), groups), roll_up(baseline, groups))

    assert found.value < 0.1
    assert found.p_value < 1e-9


def test_symmetric() -> None:
    """PSI does not tell live from baseline."""
    a, b = np.array([10, 20, 70]), np.array([400, 300, 300])

    assert population_stability(a, b).value == pytest.approx(population_stability(b, a).value)


def test_group_empty_on_both_sides_says_nothing() -> None:
    """Groups without a row on either side change nothing; smoothing them would have, because n is not m."""
    assert population_stability(np.array([10, 90]), np.array([5_000, 5_000])) == population_stability(
        np.array([10, 0, 90, 0]), np.array([5_000, 0, 5_000, 0])
    )


def test_group_the_baseline_left_empty() -> None:
    """Rows where the baseline has none give a finite PSI and evidence."""
    found = population_stability(np.array([50, 50, 20]), np.array([5_000, 5_000, 0]))

    assert 0.5 < found.value < math.inf
    assert found.p_value < 1e-6


@pytest.mark.parametrize(("live", "baseline"), [([0, 0], [5, 5]), ([5, 5], [0, 0]), ([0, 0], [0, 0])])
def test_no_rows_no_evidence(live: list[int], baseline: list[int]) -> None:
    """Without rows on a side PSI is 0 with a p-value of 1."""
    found = population_stability(np.array(live), np.array(baseline))

    assert (0.0, 0.0, 1.0) == (found.value, found.debiased, found.p_value)


def test_single_group() -> None:
    """Everything in one group on both sides is no distance and no evidence."""
    found = population_stability(np.array([10]), np.array([1_000]))

    assert (0.0, 0.0, 1.0, 1) == (found.value, found.debiased, found.p_value, found.groups)
