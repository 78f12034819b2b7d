import numpy as np
import pytest
from scipy.stats import binom, binomtest

from monitor.quality.rates import feature_quality, rate_p_value
from server.contract.histogram import CategoricalBins, NumericBins

NUMERIC = NumericBins(edges=[0.0, 1.0], upper=2.0)
CATEGORICAL = CategoricalBins(categories=["a", "b"])


@pytest.mark.parametrize(("count", "n", "seen", "m"), [(9, 200, 3, 1_000), (2, 50, 0, 500), (30, 90, 20, 70)])
def test_equals_scipy(count: int, n: int, seen: int, m: int) -> None:
    """The p-value is the exact binomial tail at the exact upper confidence bound, plus what that bound may miss."""
    alpha = 0.05

    found = rate_p_value(count, n, seen, m, alpha=alpha)

    bound = binomtest(seen, m, alternative="less").proportion_ci(1 - alpha / 10, method="exact").high
    assert found == pytest.approx(binomtest(count, n, bound, alternative="greater").pvalue + alpha / 10)


@pytest.mark.parametrize("rate", [0.0005, 0.01, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(("n", "m"), [(20, 60), (60, 20)])
def test_false_alarms_are_bounded_exactly(rate: float, n: int, m: int) -> None:
    """Summed over every baseline and every live count, p < alpha has probability alpha at most when no rate changed."""
    alpha = 0.05
    probability = sum(
        binom.pmf(seen, m, rate) * binom.pmf(count, n, rate)
        for seen in range(m + 1)
        for count in range(n + 1)
        if rate_p_value(count, n, seen, m, alpha=alpha) < alpha
    )

    assert probability <= alpha


def test_never_seen_is_not_impossible() -> None:
    """One value never seen in 1,000 baseline rows is no issue among 100 live rows, but four are."""
    assert rate_p_value(1, 100, 0, 1_000, alpha=0.01) > 0.01
    assert rate_p_value(6, 100, 0, 1_000, alpha=0.01) < 0.01


def test_tolerance_raises_the_null() -> None:
    """A rise within the tolerance is no issue however many rows prove it."""
    assert rate_p_value(1_500, 100_000, 1_000, 100_000, alpha=0.01) < 0.01
    assert rate_p_value(1_500, 100_000, 1_000, 100_000, alpha=0.01, tolerance=0.01) == 1


def test_issues_of_a_numeric_feature() -> None:
    """Missing values and values on either side of the range are issues of a numeric feature."""
    found = feature_quality(NUMERIC, np.array([20, 300, 300, 80, 300]), np.array([0, 500, 490, 0, 10]), alpha=0.001)

    assert ["missing", "out_of_range"] == found.issues
    assert (0.3, 0.01) == (found.missing_rate, found.missing_baseline)
    assert found.out_of_range_rate == pytest.approx(100 / 700)
    assert found.new_rate is None


def test_issues_of_a_categorical_feature() -> None:
    """New categories are an issue of a categorical feature, as a share of the known values."""
    found = feature_quality(CATEGORICAL, np.array([40, 40, 20, 100]), np.array([400, 400, 0, 800]), alpha=0.001)

    assert ["new_category"] == found.issues
    assert found.new_rate == 0.2
    assert found.out_of_range_rate is None


def test_baseline_that_was_always_missing() -> None:
    """What was always missing in training cannot be missing more often."""
    found = feature_quality(NUMERIC, np.array([0, 0, 0, 0, 50]), np.array([0, 0, 0, 0, 100]), alpha=0.05)

    assert found.issues == []
    assert found.out_of_range_rate is None


@pytest.mark.parametrize("bins", [NUMERIC, CATEGORICAL], ids=["numeric", "categorical"])
def test_no_rows(bins: NumericBins | CategoricalBins) -> None:
    """Without live rows there are no rates and no issues."""
    found = feature_quality(bins, np.zeros(bins.cells, dtype=np.int64), np.full(bins.cells, 9), alpha=0.05)

    assert (0, None, 1.0, []) == (found.n, found.missing_rate, found.missing_p_value, found.issues)
