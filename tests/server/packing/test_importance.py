from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.inspection import permutation_importance as reference
from sklearn.linear_model import LogisticRegression, Ridge

from server.packing.client_tensors import client_tensors
from server.packing.conversion import convert, signature_for
from server.packing.importance import permutation_importance
from server.packing.onnx_model import OnnxModel
from server.packing.options import PackOptions
from server.packing.table import infer_columns
from server.packing.training_metrics import read_truth

FEATURES = ["strong", "weak", "idle"]


@pytest.fixture
def rows() -> pd.DataFrame:
    random = np.random.default_rng(3)
    rows = pd.DataFrame(random.normal(size=(3000, 3)), columns=FEATURES)
    rows["price"] = 3 * rows["strong"] + rows["weak"]
    rows["yes"] = rows["price"] + random.normal(size=3000) > 0
    return rows


@pytest.mark.parametrize("layout", ["columns", "matrix"])
@pytest.mark.parametrize(
    ("final", "target", "task", "classes", "scoring"),
    [(Ridge(), "price", "regression", [], "r2"), (LogisticRegression(), "yes", "binary", [False, True], "roc_auc")],
)
def test_importance_is_that_of_scikit_learn(
    rows: pd.DataFrame, layout: Any, final: Any, target: str, task: Any, classes: list[Any], scoring: str
) -> None:
    """Asking the graph gives what scikit-learn's own measure gives, up to the chance of shuffling."""
    estimator = final.fit(rows[FEATURES], rows[target])
    options = PackOptions(model="m", out=Path(), target=target, layout=layout)
    signature = signature_for(infer_columns(rows, FEATURES, "FP32"), task, classes, options)
    model = OnnxModel(convert(estimator, rows, signature, options), signature, classes)
    truth = read_truth(rows, target, task, classes)
    expected = reference(estimator, rows[FEATURES], rows[target], scoring=scoring, n_repeats=3, random_state=0)

    got = permutation_importance(model, client_tensors(rows, signature), truth, task, seed=0)

    assert got == pytest.approx(list(expected["importances_mean"]), rel=0.08, abs=0.01)
    assert got[0] > got[1] > got[2]
    assert got[2] == pytest.approx(0, abs=0.002)
    assert got == permutation_importance(model, client_tensors(rows, signature), truth, task, seed=0)


def test_importance_is_nothing_where_the_metric_is_undefined(rows: pd.DataFrame) -> None:
    """With a single class in the table there is no ROC AUC to lose."""
    estimator = LogisticRegression().fit(rows[FEATURES], rows["yes"])
    options = PackOptions(model="m", out=Path(), target="yes")
    signature = signature_for(infer_columns(rows, FEATURES, "FP32"), "binary", [False, True], options)
    model = OnnxModel(convert(estimator, rows, signature, options), signature, [False, True])

    got = permutation_importance(model, client_tensors(rows, signature), np.zeros(3000, dtype=np.int64), "binary", 0)

    assert got == [0.0, 0.0, 0.0]
