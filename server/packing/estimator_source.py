"""Where the fitted estimator comes from, and what kind of answers it gives."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.base import is_classifier, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from server.contract.manifest import LabelClass, Task
from server.packing.errors import EstimatorError

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def load_estimator(source: str) -> Any:
    """Returns the estimator in a joblib file, or the one that ``module:function`` returns.

    The module may lie in the current folder. Loading a joblib file runs code that the file
    chooses: it must come from someone trusted.

    Raises:
        EstimatorError: there is no such file or function, or it gives nothing.
    """
    if Path(source).is_file():
        return _load_file(Path(source))
    if _FUNCTION.fullmatch(source):
        return _call_function(*source.split(":"))
    raise EstimatorError(f"expected a joblib file or module:function, got {source!r}, which is neither")


def _load_file(path: Path) -> Any:
    try:
        return joblib.load(path)
    except Exception as error:  # unpickling runs the file's own code and may raise anything
        raise EstimatorError(f"cannot load an estimator from {path}: {_said(error)}") from error


def _call_function(module_name: str, function_name: str) -> Any:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(module_name), function_name)
        return function()
    except Exception as error:  # the function is the user's and may raise anything
        raise EstimatorError(f"cannot get an estimator from {module_name}:{function_name}: {_said(error)}") from error
    finally:
        sys.path.remove(here)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def task_of(estimator: Any) -> Task:
    """Returns what the estimator's answers are.

    Raises:
        EstimatorError: it is not fitted, has several outputs, is neither classifier nor regressor,
            or is a classifier without ``predict_proba``.
    """
    name = type(estimator).__name__
    if not hasattr(estimator, "predict") or not hasattr(estimator, "get_params"):
        raise EstimatorError(f"expected a scikit-learn classifier or regressor, got {name}")
    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        raise EstimatorError(f"expected a fitted estimator, got a {name} that was not fitted") from error
    if is_regressor(estimator):
        return "regression"
    if not is_classifier(estimator):
        raise EstimatorError(f"expected a classifier or a regressor, got {name}, which is neither")
    if not hasattr(estimator, "predict_proba"):
        raise EstimatorError(f"expected a classifier with predict_proba, got {name}, which has none")
    return "binary" if len(classes_of(estimator)) == 2 else "multiclass"


def classes_of(estimator: Any) -> list[LabelClass]:
    """Returns a classifier's classes as Python values, in the order of its probabilities.

    Raises:
        EstimatorError: several outputs, fewer than two classes, or classes that are neither
            integers, strings nor booleans.
    """
    given = estimator.classes_
    if isinstance(given, list) or np.ndim(given) != 1:
        raise EstimatorError(f"expected one output, got a {type(estimator).__name__} with several")
    classes = [int(one) if isinstance(one, float) and one.is_integer() else one for one in np.asarray(given).tolist()]
    strange = [one for one in classes if not isinstance(one, (bool, int, str))]
    if strange:
        raise EstimatorError(f"expected classes that are integers, strings or booleans, got {strange[0]!r}")
    if len(classes) < 2:
        raise EstimatorError(f"expected at least two classes, got {classes}")
    return classes


def feature_names(estimator: Any) -> list[str] | None:
    """Returns the columns the estimator was fitted on, None where it was fitted without names."""
    names = getattr(estimator, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]


def selects_columns(estimator: Any) -> bool:
    """Returns whether a ColumnTransformer within the estimator picks its columns apart."""
    return any(isinstance(part, ColumnTransformer) for part in parts_of(estimator))


def parts_of(estimator: Any) -> Iterator[Any]:
    """Yields the estimator and every estimator inside it, fitted ones where it kept both."""
    yield estimator
    inner: list[Any] = []
    for name in ("steps", "transformers_", "transformer_list", "estimators"):
        inner += [entry[1] for entry in getattr(estimator, name, None) or [] if isinstance(entry, tuple)]
    for name in ("best_estimator_", "estimator_", "regressor_", "transformer_", "final_estimator_"):
        inner.append(getattr(estimator, name, None))
    for name in ("estimators_", "calibrated_classifiers_"):
        inner += [one for one in np.ravel(np.asarray(getattr(estimator, name, []), dtype=object))]
    inner.append(getattr(estimator, "estimator", None))
    for part in inner:
        if hasattr(part, "get_params") or hasattr(part, "estimator"):
            yield from parts_of(part)
