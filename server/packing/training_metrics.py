"""How good the packed model is on the table it was packed with."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import metrics

from server.contract.manifest import LabelClass, Task
from server.packing.errors import TableError
from server.packing.onnx_model import Answers

IMPORTANCE_METRIC = {"binary": "roc_auc", "multiclass": "accuracy", "regression": "r2"}


def read_truth(table: pd.DataFrame, target: str, task: Task, classes: list[LabelClass]) -> NDArray[np.generic]:
    """Returns the target: places of the classes (int64), or a regression's values (float64).

    Raises:
        TableError: a target that is not one of the estimator's classes, or not a finite number.
    """
    values = table[target]
    if task == "regression":
        try:
            numbers = values.to_numpy(dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise TableError(f"the target {target!r}: expected numbers for a regression, got {values.dtype}") from error
        if not np.isfinite(numbers).all():
            raise TableError(f"the target {target!r}: expected finite numbers, got an infinite one")
        return numbers
    places = {one: place for place, one in enumerate(classes)}
    found = [places.get(value, -1) for value in values.tolist()]
    if -1 in found:
        strange = values.iloc[found.index(-1)]
        raise TableError(f"the target {target!r}: expected one of the estimator's classes {classes}, got {strange!r}")
    return np.array(found, dtype=np.int64)


def measure(truth: NDArray[np.generic], answers: Answers, task: Task) -> dict[str, float]:
    """Returns the training metrics by their usual names; one that is undefined is left out.

    binary: accuracy, log_loss, brier, roc_auc. multiclass: accuracy, log_loss. regression: mae, rmse, r2.
    """
    if task == "regression":
        found = {
            "mae": metrics.mean_absolute_error(truth, answers.numbers),
            "rmse": metrics.root_mean_squared_error(truth, answers.numbers),
        }
        if len(truth) > 1:
            found["r2"] = metrics.r2_score(truth, answers.numbers)
    else:
        # Clipped as the monitor clips, and floats do not sum to 1 as exactly as scikit-learn asks.
        probabilities = np.clip(answers.numbers, 1e-15, None)
        chosen = probabilities[np.arange(len(truth)), truth.astype(np.int64)]
        found = {"accuracy": np.mean(answers.classes == truth), "log_loss": -np.mean(np.log(chosen))}
        if task == "binary":
            found["brier"] = np.mean((answers.numbers[:, 1] - truth.astype(np.float64)) ** 2)
            if 0 < truth.astype(np.int64).sum() < len(truth):
                found["roc_auc"] = metrics.roc_auc_score(truth, answers.numbers[:, 1])
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}
