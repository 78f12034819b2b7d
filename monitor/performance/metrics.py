"""The metrics of labelled rows, from their cells."""

from fractions import Fraction
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray
from river import metrics

from monitor.effective_size import effective_share
from monitor.performance.auc import area_under_curve
from monitor.performance.calibration import ReliabilityPoint, calibration
from monitor.performance.cells import SCALE, ClassificationCells, RegressionCells

# river annotates only some of its functions.
_metrics: Any = metrics


class ClassificationMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """How right a classifier was on ``n`` labelled rows, worth ``n_effective`` where the log is a sample.

    ``precision``, ``recall`` and ``f1`` are of the second class for a binary task and macro
    averages otherwise. ``auc`` is None for more than two classes and without rows of both; for
    ``ece`` and its null band see ``calibration``; ``calibration_gap`` is mean p - mean y.
    """

    n: int
    n_effective: float
    accuracy: float
    log_loss: float
    brier: float
    auc: float | None
    auc_low: float | None
    auc_high: float | None
    precision: float
    recall: float
    f1: float
    ece: float
    ece_null: float
    ece_null_95: float
    calibration_gap: float
    reliability: list[ReliabilityPoint]


class RegressionMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """How right a regression was on ``n`` labelled rows, worth ``n_effective`` where the log is a sample.

    ``bias`` is the mean of predicted - truth; ``r2`` is None when the truth does not vary.
    """

    n: int
    n_effective: float
    unusable: int
    mae: float
    rmse: float
    bias: float
    r2: float | None


def classification_metrics(cells: ClassificationCells) -> ClassificationMetrics | None:
    """Returns the metrics of a classifier's labelled rows, None when there is none.

    Formula: accuracy = Σ_k C_kk / n; precision = TP / (TP + FP), recall = TP / (TP + FN), f1 their
    harmonic mean, 0 where undefined: river's metrics on one shared confusion matrix.
    log loss = -Σ ln p(truth) / n in nats; Brier = Σ (p - y)² / n.

    Null hypothesis: none. Range: [0, 1], log loss [0, 16], Brier [0, 2] for more than two classes.

    Reference: Brier (1950), Monthly Weather Review 78(1); Good (1952) for the log score; Montiel et
    al. (2021), "River: machine learning for streaming data in Python", JMLR 22.

    >>> cells = ClassificationCells.empty(2)
    >>> cells.add(np.array([0, 1, 1]), np.array([0, 1, 0]), np.array([[0.8, 0.2], [0.3, 0.7], [0.6, 0.4]]))
    >>> found = classification_metrics(cells)
    >>> round(found.accuracy, 3), round(found.log_loss, 3), round(found.brier, 3), found.auc, found.recall
    (0.667, 0.499, 0.163, 1.0, 0.5)
    """
    n = cells.n
    share = effective_share(n, cells.weight_excess)
    calibrated = calibration(cells.reliability, share)
    if n <= 0 or calibrated is None:
        return None
    binary = cells.classes == 2
    scores = cells.score_counts if share == 1 else cells.score_counts * share
    auc = area_under_curve(scores[0], scores[1]) if binary else None
    matrix = confusion_matrix(cells.confusion)
    kinds = (
        (_metrics.Precision, _metrics.Recall, _metrics.F1)
        if binary
        else (_metrics.MacroPrecision, _metrics.MacroRecall, _metrics.MacroF1)
    )
    precision, recall, f1 = (float(kind(cm=matrix).get()) for kind in kinds)
    return ClassificationMetrics(
        n=n,
        n_effective=n * share,
        accuracy=float(_metrics.Accuracy(cm=matrix).get()),
        log_loss=cells.log_loss_sum / SCALE / n,
        brier=cells.brier_sum / SCALE / n,
        auc=auc.value if auc else None,
        auc_low=auc.low if auc else None,
        auc_high=auc.high if auc else None,
        precision=precision,
        recall=recall,
        f1=f1,
        ece=calibrated.ece,
        ece_null=calibrated.ece_null,
        ece_null_95=calibrated.ece_null_95,
        calibration_gap=calibrated.gap,
        reliability=calibrated.points,
    )


def confusion_matrix(confusion: NDArray[np.int64]) -> metrics.ConfusionMatrix:
    """Returns river's confusion matrix of the counts, which any of river's metrics takes as ``cm``.

    A count enters as one update of that weight, so the cost is that of k² updates however many rows
    there are. Classes are their places, so for a binary task the positive class is 1.

    Args:
        confusion: int64, (classes, classes), truth by predicted.

    >>> metrics.MCC(cm=confusion_matrix(np.array([[7, 2], [0, 5]])))
    MCC: 0.74535599249993
    """
    matrix = _metrics.ConfusionMatrix()
    for truth, predicted in np.argwhere(confusion).tolist():
        matrix.update(truth, predicted, w=int(confusion[truth, predicted]))
    return cast(metrics.ConfusionMatrix, matrix)


def regression_metrics(cells: RegressionCells) -> RegressionMetrics | None:
    """Returns the metrics of a regression's labelled rows, None when there is none.

    Formula: MAE = Σ|e| / n, RMSE = √(Σe² / n), bias = Σe / n with e = predicted - truth, and
    R² = 1 - Σe² / (Σy² - (Σy)² / n), the last difference in exact integers so that a large mean
    does not cancel the variance away.

    Null hypothesis: none; R² is 0 for predicting the mean. Range: R² ≤ 1, the others ≥ 0 but bias.

    Reference: Draper and Smith (1998), "Applied Regression Analysis", chapter 1.

    >>> cells = RegressionCells.empty()
    >>> cells.add(np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.0, 3.0]))
    >>> found = regression_metrics(cells)
    >>> round(found.mae, 4), round(found.rmse, 4), round(found.bias, 4), found.r2
    (0.1667, 0.2887, 0.1667, 0.875)
    """
    n = cells.n
    if n <= 0:
        return None
    spread = Fraction(n * cells.truth_square_sum - cells.truth_sum**2, n)
    return RegressionMetrics(
        n=n,
        n_effective=n * effective_share(n, cells.weight_excess),
        unusable=cells.unusable,
        mae=cells.absolute_sum / SCALE / n,
        rmse=float(Fraction(cells.square_sum, n * SCALE**2)) ** 0.5,
        bias=cells.error_sum / SCALE / n,
        r2=float(1 - cells.square_sum / spread) if spread > 0 else None,
    )
