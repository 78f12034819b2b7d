import math

import numpy as np
import pytest
from scipy.stats import ks_2samp

from monitor.drift.ks import kolmogorov_smirnov
from server.contract.histogram import quantile_bins


def test_equals_scipy_on_discrete_values() -> None:
    """With a bin for every value, D is that of the rows themselves."""
    rng = np.random.default_rng(0)
    training, rows = rng.integers(0, 40, 3_000) * 1.0, rng.integers(3, 43, 500) * 1.0
    bins = quantile_bins(training)

    found = kolmogorov_smirnov(bins.count(rows)[:-1], bins.count(training)[:-1], alpha=0.05)

    assert found.statistic == pytest.approx(ks_2samp(rows, training).statistic)


def test_bins_hide_at_most_a_bin() -> None:
    """On continuous values D over 256 quantile bins is at most D over the rows, and at most a bin's share less."""
    rng = np.random.default_rng(1)
    training, rows = rng.normal(size=5_000), rng.normal(0.3, 1.2, size=2_000)
    bins = quantile_bins(training)
    live, baseline = bins.count(rows)[:-1], bins.count(training)[:-1]

    found = kolmogorov_smirnov(live, baseline, alpha=0.05)

    exact = ks_2samp(rows, training).statistic
    assert exact - max(live / 2_000 + baseline / 5_000) <= found.statistic <= exact + 1e-12


@pytest.mark.parametrize("alpha", [0.1, 0.02])
def test_threshold_is_calibrated(alpha: float) -> None:
    """Without drift about a share alpha of windows exceeds the threshold."""
    rng = np.random.default_rng(2)
    exceeded = []
    for _ in range(1_000):
        training = rng.normal(size=3_000)
        bins = quantile_bins(training)
        found = kolmogorov_smirnov(bins.count(rng.normal(size=400))[:-1], bins.count(training)[:-1], alpha)
        exceeded.append(found.statistic > found.threshold)

    noise = 3 * math.sqrt(alpha * (1 - alpha) / 1_000)
    assert 0.6 * alpha - noise < np.mean(exceeded) < alpha + noise


def test_threshold_shrinks_with_rows() -> None:
    """The threshold falls like one over the root of the rows, and never exceeds 1."""
    few, many = np.array([2, 3]), np.array([20_000, 30_000])

    assert kolmogorov_smirnov(few, few, 0.001).threshold == 1
    assert kolmogorov_smirnov(many, many, 0.05).threshold == pytest.approx(
        math.sqrt(-math.log(0.025) / 2) * math.sqrt(2 / 50_000)
    )


def test_no_rows_no_evidence() -> None:
    """Without rows on a side D is 0 and below its threshold."""
    found = kolmogorov_smirnov(np.array([0, 0]), np.array([1, 1]), alpha=0.05)

    assert (0.0, 1.0) == (found.statistic, found.threshold)
