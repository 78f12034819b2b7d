import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from monitor.drift.wasserstein import robust_scale, wasserstein
from server.contract.histogram import NumericBins, quantile_bins


def test_equals_scipy_on_discrete_values() -> None:
    """With a bin for every value, W1 is that of the rows themselves."""
    rng = np.random.default_rng(0)
    training, rows = rng.integers(0, 60, 4_000) * 0.5, rng.binomial(59, 0.3, 700) * 0.5
    bins = quantile_bins(training)
    baseline = bins.count(training)

    found = wasserstein(bins, bins.count(rows), baseline) * robust_scale(bins, baseline)

    assert found == pytest.approx(wasserstein_distance(rows, training))


@pytest.mark.parametrize("shift", [0.0, 0.2, 1.0])
def test_equals_scipy_within_the_bins(shift: float) -> None:
    """On continuous values W1 differs from that of the rows by a live row's mean bin width at most, here 0.02."""
    rng = np.random.default_rng(1)
    training, rows = rng.gamma(2, size=20_000), rng.gamma(2, size=5_000) + shift
    bins = quantile_bins(training)
    live, baseline = bins.count(rows), bins.count(training)
    within = np.clip(rows, bins.edges[0], bins.upper)

    found = wasserstein(bins, live, baseline) * robust_scale(bins, baseline)

    widths = np.diff([*bins.edges, bins.upper])
    assert found == pytest.approx(wasserstein_distance(within, training), abs=widths @ live[1:-2] / 5_000)
    assert found == pytest.approx(wasserstein_distance(within, training), abs=0.02)


def test_unit_is_a_standard_deviation() -> None:
    """A normal feature moved by half a standard deviation has W1 of one half, in whatever unit it is measured."""
    rng = np.random.default_rng(2)
    training, rows = rng.normal(size=50_000), rng.normal(0.5, 1, size=50_000)
    for unit in (1e-3, 1.0, 1e6):
        bins = quantile_bins(training * unit)

        assert wasserstein(bins, bins.count(rows * unit), bins.count(training * unit)) == pytest.approx(0.5, abs=0.03)


def test_out_of_range_is_a_lower_bound() -> None:
    """Values out of range count as lying on the range's ends, so W1 is at most the true distance."""
    training = np.arange(100.0)
    bins = quantile_bins(training)
    baseline = bins.count(training)
    rows = np.full(50, 1e9)

    found = wasserstein(bins, bins.count(rows), baseline) * robust_scale(bins, baseline)

    assert found == pytest.approx(wasserstein_distance(np.full(50, 99.0), training))


def test_robust_scale_of_a_normal_feature() -> None:
    """The robust scale of a normal feature is its standard deviation, whatever a few outliers do."""
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(0, 3, 50_000), np.full(50, 60.0)])
    bins = quantile_bins(values)

    assert robust_scale(bins, bins.count(values)) == pytest.approx(3, rel=0.03)


def test_scale_of_a_mostly_constant_feature() -> None:
    """Where 95 % of the rows are zero, as with rain, IQR is 0 and a quarter of the standard deviation serves."""
    values = np.concatenate([np.zeros(950), np.arange(1.0, 51.0)])
    bins = quantile_bins(values)

    assert robust_scale(bins, bins.count(values)) == pytest.approx(values.std() / 4)


def test_constant_feature() -> None:
    """A constant feature has scale 1 and no distance within its range."""
    bins = NumericBins(edges=[3.0], upper=3.0)
    baseline = np.array([0, 80, 0, 1])

    assert robust_scale(bins, baseline) == 1
    assert wasserstein(bins, np.array([0, 8, 0, 2]), baseline) == 0


@pytest.mark.parametrize("live", [[0, 0, 0, 0], [0, 0, 0, 9]])
def test_nothing_known_is_no_distance(live: list[int]) -> None:
    """Without live values, or with missing ones only, W1 is 0."""
    bins = NumericBins(edges=[3.0], upper=3.0)

    assert wasserstein(bins, np.array(live), np.array([0, 80, 0, 1])) == 0
