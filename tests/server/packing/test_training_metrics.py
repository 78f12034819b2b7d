from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from server.packing.errors import TableError
from server.packing.onnx_model import Answers
from server.packing.training_metrics import measure, read_truth


def classified(*probabilities: list[float]) -> Answers:
    numbers = np.array(probabilities)
    return Answers(classes=numbers.argmax(axis=1), numbers=numbers)


def test_binary_metrics_are_those_of_scikit_learn() -> None:
    """Each by its usual definition, the probability being that of the second class."""
    truth = np.array([0, 1, 1, 0])
    answers = classified([0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.55, 0.45])

    found = measure(truth, answers, "binary")

    assert found == pytest.approx(
        {
            "accuracy": 0.75,
            "log_loss": metrics.log_loss(truth, answers.numbers),
            "brier": metrics.brier_score_loss(truth, answers.numbers[:, 1]),
            "roc_auc": metrics.roc_auc_score(truth, answers.numbers[:, 1]),
        }
    )


def test_multiclass_metrics_are_those_of_scikit_learn() -> None:
    """The log loss takes the probability of the true class."""
    truth = np.array([2, 1, 0])
    answers = classified([0.2, 0.3, 0.5], [0.1, 0.7, 0.2], [0.3, 0.4, 0.3])

    found = measure(truth, answers, "multiclass")

    assert found == pytest.approx({"accuracy": 2 / 3, "log_loss": metrics.log_loss(truth, answers.numbers)})


def test_regression_metrics_are_those_of_scikit_learn() -> None:
    """Mean absolute error, root of the mean square, explained variance."""
    truth, said = np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 2.0])

    found = measure(truth, Answers(classes=np.empty(0, dtype=np.int64), numbers=said), "regression")

    assert found == pytest.approx({"mae": 1.0, "rmse": (5 / 3) ** 0.5, "r2": metrics.r2_score(truth, said)})


def test_a_metric_without_a_value_is_left_out() -> None:
    """No ROC AUC of one class, no R² of one row; a certain mistake is finite."""
    one_class = measure(np.array([1, 1]), classified([0.2, 0.8], [1.0, 0.0]), "binary")
    one_row = measure(
        np.array([1.0]), Answers(classes=np.empty(0, dtype=np.int64), numbers=np.array([2.0])), "regression"
    )

    assert set(one_class) == {"accuracy", "log_loss", "brier"}
    assert set(one_row) == {"mae", "rmse"}
    assert np.isfinite(list(one_class.values())).all()


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([True, False], [False, True]),
        ([1, 0], [False, True]),
        ([1.0, 0.0], [0, 1]),
        (["b", "a"], ["a", "b"]),
        (pd.array([True, False], dtype="boolean"), [False, True]),
    ],
)
def test_the_truth_is_the_place_of_the_class(values: Any, classes: list[Any]) -> None:
    """However the table spells it, 1 and true and 1.0 are one class."""
    truth = read_truth(pd.DataFrame({"y": values}), "y", "binary", classes)

    assert truth.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("values", "task", "message"),
    [
        (["a", "z"], "binary", r"one of the estimator's classes \['a', 'b'\], got 'z'"),
        (["a", "z"], "regression", "expected numbers for a regression"),
        ([1.0, np.inf], "regression", "expected finite numbers"),
    ],
)
def test_a_target_that_is_not_the_estimators_is_refused(values: Any, task: Any, message: str) -> None:
    """The wrong column named as the target is found at once."""
    with pytest.raises(TableError, match=message):
        read_truth(pd.DataFrame({"y": values}), "y", task, ["a", "b"])
