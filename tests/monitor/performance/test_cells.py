import numpy as np
import pytest

from monitor.performance.cells import (
    SCALE,
    ClassificationCells,
    RegressionCells,
    fixed_point_square_sum,
    fixed_point_sum,
)


def binary(truth: list[int], p: list[float]) -> ClassificationCells:
    cells = ClassificationCells.empty(2)
    chances = np.array(p)
    cells.add(np.array(truth), (chances >= 0.5).astype(np.int64), np.stack([1 - chances, chances], axis=1))
    return cells


def test_confusion_is_truth_by_predicted() -> None:
    """Rows of the confusion counts are truth, columns are predictions."""
    assert [[1, 2], [0, 1]] == binary([0, 0, 0, 1], [0.1, 0.9, 0.8, 0.7]).confusion.tolist()


def test_score_bins_are_fine_at_the_ends() -> None:
    """Scores of a rare class, all below a hundredth, fall into dozens of bins and keep their order."""
    chances = np.linspace(0, 0.01, 1_000)
    cells = binary([0] * 1_000, chances.tolist())

    assert np.count_nonzero(cells.score_counts[0]) > 30
    assert np.flatnonzero(cells.score_counts[0])[-1] < 40


def test_reliability_bins_cover_the_ends() -> None:
    """Probabilities of exactly 0 and 1 lie in the first and the last reliability bin."""
    cells = binary([0, 1, 1], [0.0, 1.0, 0.05])

    assert [1, 1, *[0] * 17, 1] == cells.reliability[0].tolist()
    assert SCALE == cells.reliability[1][-1]


def test_loss_is_limited() -> None:
    """A probability of 0 for what came true costs 16 nats, not infinitely many."""
    assert 16 * SCALE == binary([1], [0.0]).log_loss_sum


def test_not_a_number_is_the_worst_score() -> None:
    """Probabilities that are not numbers cost the most, and infinite or negative ones are limited to [0, 1]."""
    cells = ClassificationCells.empty(2)

    cells.add(np.array([1, 1]), np.array([0, 0]), np.array([[np.nan, np.nan], [-1.0, np.inf]]))

    assert 16 * SCALE == cells.log_loss_sum
    assert SCALE == cells.brier_sum
    assert [1, *[0] * 18, 1] == cells.reliability[0].tolist()


def test_multiclass_reliability_is_of_the_highest_class() -> None:
    """With more than two classes reliability compares the highest probability with being right."""
    cells = ClassificationCells.empty(3)

    cells.add(np.array([0, 1]), np.array([0, 0]), np.array([[0.9, 0.05, 0.05], [0.92, 0.04, 0.04]]))

    assert (2, 1) == (cells.reliability[0][18], cells.reliability[2][18])
    assert (0, 0) == cells.score_counts.shape


@pytest.mark.parametrize(("truth", "predicted"), [([2], [0]), ([0], [-1])])
def test_classes_are_checked(truth: list[int], predicted: list[int]) -> None:
    """A class that does not exist is refused and nothing is counted."""
    cells = ClassificationCells.empty(2)

    with pytest.raises(ValueError, match=r"expected .* in \[0, 2\)"):
        cells.add(np.array(truth), np.array(predicted), np.array([[0.5, 0.5]]))
    assert cells == ClassificationCells.empty(2)


def test_too_few_classes() -> None:
    """A classifier has two classes at least."""
    with pytest.raises(ValueError, match="got 1"):
        ClassificationCells.empty(1)


def test_different_classes_do_not_merge() -> None:
    """Cells of different numbers of classes do not merge."""
    with pytest.raises(ValueError, match="expected cells of 2 classes, got 3"):
        ClassificationCells.empty(2).merge(ClassificationCells.empty(3))


def test_sums_beyond_64_bits() -> None:
    """Sums are exact where 64 bits end."""
    values = np.array([1e15, 2.0**60, 0.5, -0.25])

    assert (10**15 + 2**60) * SCALE + SCALE // 4 == fixed_point_sum(values)


def test_rows_without_a_finite_error() -> None:
    """Regression rows that are not finite, or whose squares are not, are counted as unusable and left out."""
    cells = RegressionCells.empty()

    cells.add(np.array([1.0, np.nan, 1.0, 1e200]), np.array([2.0, 1.0, np.inf, 0.0]))

    assert (1, 3) == (cells.n, cells.unusable)
    assert (SCALE, SCALE**2) == (cells.error_sum, cells.square_sum)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6, 1e9, 1e30])
def test_squares_are_exact(size: float) -> None:
    """The sum of squares is that of the rounded values as integers of any size."""
    values = np.random.default_rng(0).normal(0, size, 2_000)
    units = [round(value * SCALE) for value in values.tolist()]

    assert sum(unit**2 for unit in units) == fixed_point_square_sum(values)
