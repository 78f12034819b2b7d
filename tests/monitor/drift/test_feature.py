import msgspec
import numpy as np
import pytest

from monitor.drift.feature import FeatureDrift, feature_drift
from server.contract.histogram import Bins, CategoricalBins, NumericBins, quantile_bins

NUMERIC = quantile_bins(np.random.default_rng(0).normal(size=5_000))
BASELINE = NUMERIC.count(np.random.default_rng(0).normal(size=5_000))


def drift_of(
    bins: Bins, live: list[int] | np.ndarray, baseline: list[int] | np.ndarray, tolerance: float = 0.1
) -> FeatureDrift:
    return feature_drift(bins, np.array(live), np.array(baseline), importance=0.2, alpha=0.001, tolerance=tolerance)


def test_shift_is_found_and_named() -> None:
    """A shift by one standard deviation is drift, by every measure, and the bins that moved say where."""
    found = drift_of(NUMERIC, NUMERIC.count(np.random.default_rng(1).normal(1, 1, 800)), BASELINE)

    assert found.drifted
    assert found.n == 800
    assert found.ks is not None
    assert found.ks_threshold is not None
    assert found.ks > found.ks_threshold
    assert found.wasserstein == pytest.approx(1, abs=0.15)
    assert found.ranked == pytest.approx(0.2 * found.psi_debiased)
    assert found.top_bins[0].bin.startswith("x ≥ 1.2")
    assert found.top_bins[0].live > 3 * found.top_bins[0].baseline


def test_no_shift_is_no_drift() -> None:
    """Rows of the baseline's own distribution have not drifted."""
    found = drift_of(NUMERIC, NUMERIC.count(np.random.default_rng(2).normal(size=800)), BASELINE)

    assert not found.drifted
    assert found.psi_p_value > 0.001


def test_tolerance_holds_back_small_shifts() -> None:
    """A shift with overwhelming evidence and no size is drift only to whoever set the tolerance lower."""
    live = NUMERIC.count(np.random.default_rng(3).normal(0.1, 1, 50_000))

    assert drift_of(NUMERIC, live, BASELINE).psi_p_value < 1e-6
    assert not drift_of(NUMERIC, live, BASELINE).drifted
    assert drift_of(NUMERIC, live, BASELINE, tolerance=0.001).drifted


def test_size_without_evidence_is_no_drift() -> None:
    """Twenty rows that fall 14 to 6 instead of even are a large shift, and chance enough to be no drift."""
    found = drift_of(CategoricalBins(categories=["a", "b"]), [14, 6, 0, 0], [500, 500, 0, 0])

    assert found.psi_debiased > 0.1
    assert not found.drifted


@pytest.mark.parametrize(
    ("bins", "baseline"),
    [(NUMERIC, BASELINE.tolist()), (CategoricalBins(categories=["a", "b"]), [50, 50, 0, 0])],
    ids=["numeric", "categorical"],
)
def test_no_rows(bins: Bins, baseline: list[int]) -> None:
    """Without a live row there is a finding of no rows, no evidence and no drift."""
    found = drift_of(bins, [0] * bins.cells, baseline)

    assert (0, 0.0, 0.0, 1.0, None, None) == (
        found.n,
        found.psi,
        found.psi_debiased,
        found.psi_p_value,
        found.ks,
        found.wasserstein,
    )
    assert not found.drifted
    assert found.top_bins == []


def test_only_missing() -> None:
    """A feature that went missing altogether has drifted, and there is no distance to compute."""
    found = drift_of(NUMERIC, [0] * (NUMERIC.cells - 1) + [500], BASELINE)

    assert found.drifted
    assert (None, None, None) == (found.ks, found.ks_threshold, found.wasserstein)
    assert found.top_bins[0] == type(found.top_bins[0])(bin="missing", live=1.0, baseline=0.0)


def test_constant_feature_that_moves() -> None:
    """A feature that was constant in training and now has another value has drifted."""
    bins = NumericBins(edges=[7.0], upper=7.0)

    assert drift_of(bins, [0, 60, 40, 0], [0, 1000, 0, 0]).drifted
    assert not drift_of(bins, [0, 100, 0, 0], [0, 1000, 0, 0], tolerance=0.0).drifted


def test_new_category_is_drift() -> None:
    """Rows of a category that training never had are drift, with the new category first."""
    found = drift_of(CategoricalBins(categories=["a", "b"]), [400, 400, 200, 0], [500, 500, 0, 0])

    assert found.drifted
    assert found.ks is None
    assert found.top_bins[0].bin == "new category"


def test_harmful_importance_counts_as_none() -> None:
    """A feature whose permutation helps the model ranks last and not below."""
    found = feature_drift(NUMERIC, np.roll(BASELINE, 100), BASELINE, importance=-0.1, alpha=0.01, tolerance=0.1)

    assert found.ranked == 0


def test_finding_is_json() -> None:
    """A finding goes through JSON unharmed, so no number in it is infinite or not a number."""
    found = drift_of(NUMERIC, np.roll(BASELINE, 40), BASELINE)

    assert found == msgspec.json.decode(msgspec.json.encode(found), type=FeatureDrift)
