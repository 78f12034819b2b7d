import numpy as np
import pytest

from monitor.performance.calibration import calibration
from monitor.performance.cells import ClassificationCells


def reliability(truth: np.ndarray, p: np.ndarray) -> np.ndarray:
    cells = ClassificationCells.empty(2)
    cells.add(truth.astype(np.int64), (p >= 0.5).astype(np.int64), np.stack([1 - p, p], axis=1))
    return cells.reliability


def test_equals_direct_computation() -> None:
    """ECE over the cells is that over the rows, and so are the points of the diagram."""
    rng = np.random.default_rng(0)
    p = rng.random(5_000)
    truth = rng.random(5_000) < p**1.5
    places = np.minimum((p * 20).astype(int), 19)
    held = [places == place for place in range(20)]

    found = calibration(reliability(truth, p))

    assert found is not None
    assert found.ece == pytest.approx(sum(mask.mean() * abs(p[mask].mean() - truth[mask].mean()) for mask in held))
    assert found.gap == pytest.approx(p.mean() - truth.mean())
    assert [int(mask.sum()) for mask in held] == [point.n for point in found.points]
    assert [truth[mask].mean() for mask in held] == pytest.approx([point.y for point in found.points])


@pytest.mark.parametrize("n", [60, 3_000])
def test_null_band_is_that_of_perfect_calibration(n: int) -> None:
    """For a perfectly calibrated model ECE has the published mean, and exceeds the 95 % point in 5 % of samples."""
    rng = np.random.default_rng(1)
    rows = []
    for _ in range(1_000):
        p = rng.beta(2, 5, n)
        found = calibration(reliability(rng.random(n) < p, p))
        assert found is not None
        rows.append((found.ece, found.ece_null, found.ece > found.ece_null_95))

    ece, null, exceeded = np.mean(rows, axis=0)
    assert ece == pytest.approx(null, rel=0.05)
    assert ece > 0.005
    assert 0.025 < exceeded < 0.075


def test_overconfidence_exceeds_the_band() -> None:
    """A model whose probabilities are too extreme is far beyond the band, with a gap in the large of about 0."""
    rng = np.random.default_rng(2)
    p = rng.random(3_000)
    found = calibration(reliability(rng.random(3_000) < 0.25 + 0.5 * p, p))

    assert found is not None
    assert found.ece > 3 * found.ece_null_95
    assert abs(found.gap) < 0.03


def test_certain_predictions() -> None:
    """Probabilities of 0 and 1 that all come true have an ECE of 0 and a band of width 0."""
    found = calibration(reliability(np.array([0, 1]), np.array([0.0, 1.0])))

    assert found is not None
    assert (0, 0, 0) == (found.ece, found.ece_null, found.ece_null_95)


def test_no_rows() -> None:
    """Without labelled rows there is no calibration."""
    assert calibration(np.zeros((3, 20), dtype=np.int64)) is None
