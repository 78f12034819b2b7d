import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.svm import LinearSVC

from server.packing.errors import EstimatorError
from server.packing.estimator_source import classes_of, load_estimator, task_of

ROWS = np.arange(24.0).reshape(12, 2)


def fitted(truth: Any) -> LogisticRegression:
    return LogisticRegression().fit(ROWS, truth)


def test_a_joblib_file_gives_its_estimator(tmp_path: Path) -> None:
    """What was dumped is what is packed."""
    joblib.dump(fitted([0, 1] * 6), tmp_path / "model.joblib")

    loaded = load_estimator(str(tmp_path / "model.joblib"))

    assert task_of(loaded) == "binary"


def test_a_function_of_the_current_folder_gives_its_estimator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``train:make`` works where train.py lies, without installing anything, and leaves no path behind."""
    (tmp_path / "train_here.py").write_text("def make():\n    return {'an': 'estimator'}\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)

    assert load_estimator("train_here:make") == {"an": "estimator"}
    assert sys.path == before


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.joblib", "expected a joblib file or module:function, got 'nowhere.joblib'"),
        ("broken.joblib", "cannot load an estimator from"),
        ("no_such_module:make", "cannot get an estimator from no_such_module:make: ModuleNotFoundError"),
        ("raising:missing", "AttributeError: module 'raising' has no attribute 'missing'"),
        ("raising:make", "RuntimeError: no data here$"),
    ],
)
def test_a_source_that_gives_nothing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    """Whatever the user's code raises becomes one sentence."""
    (tmp_path / "broken.joblib").write_bytes(b"not a pickle")
    (tmp_path / "raising.py").write_text("def make():\n    raise RuntimeError('no data here\\nreally')\n")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(EstimatorError, match=message):
        load_estimator(source)


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        (fitted([0, 1] * 6), "binary"),
        (fitted(["a", "b", "c"] * 4), "multiclass"),
        (LinearRegression().fit(ROWS, ROWS[:, 0]), "regression"),
    ],
)
def test_the_task_follows_from_the_estimator(estimator: Any, expected: str) -> None:
    """Two classes, more, or a number."""
    assert task_of(estimator) == expected


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        ("text", "expected a scikit-learn classifier or regressor, got str"),
        (LogisticRegression(), "got a LogisticRegression that was not fitted"),
        (KMeans(2, n_init=1).fit(ROWS), "got KMeans, which is neither"),
        (LinearSVC().fit(ROWS, [0, 1] * 6), "a classifier with predict_proba, got LinearSVC"),
    ],
)
def test_an_estimator_that_cannot_be_served_is_refused(estimator: Any, message: str) -> None:
    """The sentence says what is wanted instead."""
    with pytest.raises(EstimatorError, match=message):
        task_of(estimator)


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        ([False, True] * 6, [False, True]),
        ([0.0, 1.0] * 6, [0, 1]),
        (np.array([3, 7] * 6, dtype=np.int8), [3, 7]),
        (["b", "a"] * 6, ["a", "b"]),
    ],
)
def test_classes_are_plain_values(truth: Any, expected: list[Any]) -> None:
    """They go into JSON, and whole floats are the integers that the graph answers."""
    assert list(map(repr, classes_of(fitted(truth)))) == list(map(repr, expected))


def test_classes_of_another_kind_are_refused() -> None:
    """Half a class cannot be a label of an ONNX classifier."""
    estimator = fitted([0, 1] * 6)
    estimator.classes_ = np.array([0.5, 1.5])

    with pytest.raises(EstimatorError, match=r"integers, strings or booleans, got 0\.5"):
        classes_of(estimator)
