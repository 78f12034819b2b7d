import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from monitor.performance.auc import area_under_curve
from monitor.performance.cells import ClassificationCells


def histograms(truth: NDArray[np.int64], score: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    cells = ClassificationCells.empty(2)
    cells.add(truth, (score >= 0.5).astype(np.int64), np.stack([1 - score, score], axis=1))
    return cells.score_counts[0], cells.score_counts[1]


def scores(rng: np.random.Generator, n: int, share: float, offset: float) -> tuple[np.ndarray, np.ndarray]:
    truth = (rng.random(n) < share).astype(np.int64)
    return truth, 1 / (1 + np.exp(-rng.normal(offset + truth, 1)))


@pytest.mark.parametrize(("share", "offset"), [(0.3, -1.0), (0.5, 0.0), (0.01, -6.0)], ids=["usual", "even", "rare"])
def test_equals_sklearn_within_the_bins(share: float, offset: float) -> None:
    """AUC differs from that of the rows by half the share of pairs that share a bin, also for a rare class."""
    truth, score = scores(np.random.default_rng(0), 20_000, share, offset)
    negatives, positives = histograms(truth, score)

    found = area_under_curve(negatives, positives)

    assert found is not None
    tied = int(negatives @ positives) / (int(negatives.sum()) * int(positives.sum()))
    assert tied < 0.03
    assert found.value == pytest.approx(roc_auc_score(truth, score), abs=tied / 2)
    assert found.value == pytest.approx(roc_auc_score(truth, score), abs=0.0015)


def test_equals_sklearn_with_ties() -> None:
    """Scores of a few values only, with many ties, give the AUC of the rows."""
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, 500)
    score = (rng.integers(0, 8, 500) + truth) / 10

    found = area_under_curve(*histograms(truth, score))

    assert found is not None
    assert found.value == pytest.approx(roc_auc_score(truth, score))


def test_variance_is_delongs() -> None:
    """The interval is that of DeLong's placement values, computed pair by pair, on the logit scale."""
    rng = np.random.default_rng(2)
    low, high = rng.integers(0, 40, 60), rng.integers(10, 50, 45)
    kernel = (high[:, None] > low) + 0.5 * (high[:, None] == low)
    auc = kernel.mean()
    error = math.sqrt(kernel.mean(axis=1).var(ddof=1) / 45 + kernel.mean(axis=0).var(ddof=1) / 60)

    found = area_under_curve(np.bincount(low, minlength=50), np.bincount(high, minlength=50))

    assert found is not None
    reach = 1.959963984540054 * error / (auc * (1 - auc))
    ends = [1 / (1 + math.exp(-(math.log(auc / (1 - auc)) + side * reach))) for side in (-1, 1)]
    assert ends == pytest.approx([found.low, found.high])


@pytest.mark.parametrize(("n", "share"), [(80, 0.3), (1_000, 0.1)])
def test_interval_covers(n: int, share: float) -> None:
    """The 95 % interval holds the true AUC in 95 % of 1,000 samples, also of 80 rows."""
    rng = np.random.default_rng(3)
    true_auc = 0.5 * (1 + math.erf(0.5))  # P(N(1, 1) > N(0, 1))
    covered = []
    for _ in range(1_000):
        found = area_under_curve(*histograms(*scores(rng, n, share, -1.0)))
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        covered.append(found.low <= true_auc <= found.high)

    assert 0.95 - 3 * 0.0069 < np.mean(covered) < 0.95 + 3 * 0.0069


@pytest.mark.parametrize(
    ("negatives", "positives"),
    [([3, 0], [0, 3]), ([0, 3], [3, 0]), ([3, 1], [0, 1]), ([0, 1], [2, 1]), ([5, 0], [5, 0])],
    ids=["separated", "reversed", "one-positive", "one-negative", "one-bin"],
)
def test_no_interval_from_nothing(negatives: list[int], positives: list[int]) -> None:
    """Perfect separation, or a class of one row, tells no variance: AUC has no interval rather than one of width 0."""
    found = area_under_curve(np.array(negatives), np.array(positives))

    assert found is not None
    assert (None, None) == (found.low, found.high)


def test_one_class_has_no_auc() -> None:
    """Without a row of both classes there is no AUC."""
    assert area_under_curve(np.array([3, 4]), np.array([0, 0])) is None
