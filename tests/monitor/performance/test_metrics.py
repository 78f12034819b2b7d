import msgspec
import numpy as np
import pytest
from river import metrics as river
from sklearn import metrics as sklearn

from monitor.performance.cells import ClassificationCells, RegressionCells
from monitor.performance.metrics import (
    ClassificationMetrics,
    classification_metrics,
    confusion_matrix,
    regression_metrics,
)

RNG = np.random.default_rng(0)
N = 2_000
BINARY_P = RNG.beta(1, 2, N)
BINARY = (
    (RNG.random(N) < BINARY_P).astype(np.int64),
    (BINARY_P >= 0.5).astype(np.int64),
    np.stack([1 - BINARY_P, BINARY_P], axis=1),
)
MULTI_P = RNG.dirichlet([2.0, 3.0, 1.5, 2.0], N)
MULTI = (RNG.integers(0, 4, N), MULTI_P.argmax(axis=1), MULTI_P)
TASKS = pytest.mark.parametrize("rows", [BINARY, MULTI], ids=["binary", "multiclass"])


def measured(rows: tuple[np.ndarray, np.ndarray, np.ndarray]) -> tuple[ClassificationCells, ClassificationMetrics]:
    cells = ClassificationCells.empty(rows[2].shape[1])
    cells.add(*rows)
    found = classification_metrics(cells)
    assert found is not None
    return cells, found


@TASKS
def test_equals_sklearn(rows: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Every metric from the cells is scikit-learn's from the rows."""
    truth, predicted, p = rows
    average = "binary" if p.shape[1] == 2 else "macro"

    found = measured(rows)[1]

    assert found.n == N
    assert found.accuracy == pytest.approx(sklearn.accuracy_score(truth, predicted))
    assert found.precision == pytest.approx(sklearn.precision_score(truth, predicted, average=average))
    assert found.recall == pytest.approx(sklearn.recall_score(truth, predicted, average=average))
    assert found.f1 == pytest.approx(sklearn.f1_score(truth, predicted, average=average))
    assert found.log_loss == pytest.approx(sklearn.log_loss(truth, p, labels=range(p.shape[1])), abs=1e-7)
    brier = sklearn.brier_score_loss(truth, p[:, 1]) if average == "binary" else ((p - np.eye(4)[truth]) ** 2).sum() / N
    assert found.brier == pytest.approx(brier, abs=1e-7)


@TASKS
@pytest.mark.parametrize("kind", ["Accuracy", "BalancedAccuracy", "MacroF1", "WeightedF1", "CohenKappa", "MicroRecall"])
def test_river_cannot_tell_counts_from_rows(rows: tuple[np.ndarray, np.ndarray, np.ndarray], kind: str) -> None:
    """A river metric on the shared confusion matrix of the counts is the one that was shown every row."""
    by_row = getattr(river, kind)()
    for truth, predicted in zip(*(column.tolist() for column in rows[:2]), strict=True):
        by_row.update(truth, predicted)

    by_count = getattr(river, kind)(cm=confusion_matrix(measured(rows)[0].confusion))

    assert by_row.get() == pytest.approx(by_count.get())


def test_auc_is_of_binary_tasks() -> None:
    """A binary task has an AUC with its interval, more classes have none."""
    found = measured(BINARY)[1]

    assert found.auc == pytest.approx(sklearn.roc_auc_score(BINARY[0], BINARY[2][:, 1]), abs=0.001)
    assert found.auc_low is not None
    assert found.auc_high is not None
    assert found.auc_low < found.auc < found.auc_high
    assert measured(MULTI)[1].auc is None


def test_never_predicted_class() -> None:
    """Where precision and recall are undefined they are 0, and nothing divides by it."""
    found = measured((np.array([1, 1]), np.array([0, 0]), np.array([[0.9, 0.1], [0.8, 0.2]])))[1]

    assert (0, 0, 0, 0, None) == (found.accuracy, found.precision, found.recall, found.f1, found.auc)


def test_metrics_are_json() -> None:
    """Metrics go through JSON unharmed."""
    found = measured(BINARY)[1]

    assert found == msgspec.json.decode(msgspec.json.encode(found), type=ClassificationMetrics)


def test_regression_equals_sklearn_and_river() -> None:
    """Regression metrics from the sums are scikit-learn's and river's from the rows, though the mean is large."""
    rng = np.random.default_rng(1)
    truth = 1e6 + rng.normal(0, 2, 3_000)
    predicted = truth + rng.normal(0.3, 1, 3_000)
    cells, r2, rmse = RegressionCells.empty(), river.R2(), river.RMSE()
    cells.add(truth, predicted)
    for y, p in zip(truth.tolist(), predicted.tolist(), strict=True):
        r2.update(y, p)
        rmse.update(y, p)

    found = regression_metrics(cells)

    assert found is not None
    assert found.mae == pytest.approx(sklearn.mean_absolute_error(truth, predicted))
    assert found.rmse == pytest.approx(sklearn.root_mean_squared_error(truth, predicted))
    assert found.r2 == pytest.approx(sklearn.r2_score(truth, predicted))
    assert found.bias == pytest.approx(0.3, abs=0.05)
    assert (found.r2, found.rmse) == pytest.approx((r2.get(), rmse.get()))


def test_constant_truth_has_no_r2() -> None:
    """R² does not exist where the truth does not vary."""
    cells = RegressionCells.empty()
    cells.add(np.full(3, 0.1), np.array([0.0, 0.1, 0.2]))

    found = regression_metrics(cells)

    assert found is not None
    assert found.r2 is None


def test_no_rows_no_metrics() -> None:
    """Without labelled rows there are no metrics, rather than metrics of 0."""
    assert classification_metrics(ClassificationCells.empty(2)) is None
    assert regression_metrics(RegressionCells.empty()) is None
