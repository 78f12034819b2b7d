"""Whether the graph answers as the estimator does, checked before anything is written."""

from typing import Any, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from server.contract.manifest import LabelClass, Signature, Task
from server.packing.client_tensors import client_tensors
from server.packing.errors import EstimatorError, ParityError
from server.packing.estimator_source import feature_names
from server.packing.onnx_model import Answers, OnnxModel

MIN_ROWS = 1_000
MAX_ROWS = 10_000
# Probabilities from floats differ by about 1e-7 where the conversion is right and by 1e-3 where it is wrong.
PROBABILITY_TOLERANCE = 1e-5
# A regression's values are compared in units of their own spread and size.
VALUE_TOLERANCE = 1e-5
_NEW_CATEGORY = "a category that no table has"
_NEW_CATEGORY_ROWS = 100


def check_parity(
    estimator: Any, table: pd.DataFrame, model: OnnxModel, task: Task, classes: list[LabelClass], seed: int
) -> dict[str, float]:
    """Returns how far the two are apart on a sample of the table's rows, at least 1,000.

    The estimator sees the rows as they are in the table, the graph the tensors that a client would
    send for them. Up to 10,000 rows are drawn, each at most once; a table of fewer than 1,000 rows
    is drawn from with replacement. Classes must be equal wherever the estimator's two best
    are further apart than the tolerance. Then, column by column, rows with a string that the table
    does not have: production will bring some.

    Returns:
        ``rows``, ``tolerance``, ``largest_difference``; for classifiers ``label_ties``, the rows
        where another class was answered because two were equally probable; with columns of strings
        ``columns_refusing_new``, those of which the estimator fails on a new category.

    Raises:
        ParityError: a row differs by more than the tolerance; the message says which and how.
        EstimatorError: the estimator fails on the table.
    """
    rows = _sample(table, seed)
    report = _compare(estimator, rows, model, task, classes, "")
    texts = [column.name for column in model.signature.columns if column.kind == "categorical"]
    if texts:
        report["columns_refusing_new"] = 0.0
    for name in texts:
        probe = rows.iloc[:_NEW_CATEGORY_ROWS].assign(**{name: _NEW_CATEGORY})
        try:
            estimator_answers(estimator, probe, model.signature, task, classes)
        except EstimatorError:
            report["columns_refusing_new"] += 1
        else:
            _compare(estimator, probe, model, task, classes, f" with a new category in {name!r}")
    return report


def _compare(
    estimator: Any, rows: pd.DataFrame, model: OnnxModel, task: Task, classes: list[LabelClass], where: str
) -> dict[str, float]:
    expected = estimator_answers(estimator, rows, model.signature, task, classes)
    got = model.answer(client_tensors(rows, model.signature))
    tolerance = _tolerance(expected, task)
    apart = np.abs(expected.numbers - got.numbers).reshape(len(rows), -1)
    # A NaN is beyond every tolerance.
    worst = np.where(np.isnan(apart), np.inf, apart).max(axis=1)
    if (worst > tolerance).any():
        row = int(worst.argmax())
        output = "value" if task == "regression" else "probabilities"
        _refuse(
            f"output {output!r} by more than {tolerance:.2g} on {int((worst > tolerance).sum())} of {len(rows)} rows"
            f"{where}",
            _described(rows, row, model),
            f"expected {_shown(expected.numbers[row])}, got {_shown(got.numbers[row])}",
            model,
        )
    report = {"rows": float(len(rows)), "tolerance": tolerance, "largest_difference": float(worst.max())}
    if task != "regression":
        best = np.sort(expected.numbers, axis=1)
        differs = expected.classes != got.classes
        wrong = differs & (best[:, -1] - best[:, -2] > 2 * tolerance)
        if wrong.any():
            row = int(wrong.argmax())
            named = [*classes, "no class"]
            _refuse(
                f"output 'label' on {int(wrong.sum())} of {len(rows)} rows{where}",
                _described(rows, row, model),
                f"expected {named[expected.classes[row]]!r}, got {named[got.classes[row]]!r}",
                model,
            )
        report["label_ties"] = float(differs.sum())
    return report


def estimator_answers(
    estimator: Any, rows: pd.DataFrame, signature: Signature, task: Task, classes: list[LabelClass]
) -> Answers:
    """Returns what the estimator itself says to rows of the table.

    Raises:
        EstimatorError: it fails.
    """
    features = rows[[column.name for column in signature.columns]]
    numeric = all(column.kind == "numeric" for column in signature.columns)
    # An estimator fitted without names warns when it is given some.
    given = features.to_numpy() if feature_names(estimator) is None and numeric else features
    try:
        # On a busy machine OpenMP's threads wait for each other spinning: 5 s for what takes one 0.5 s.
        with threadpool_limits(limits=1, user_api="openmp"):
            predicted = np.asarray(estimator.predict(given))
            probabilities = None if task == "regression" else np.asarray(estimator.predict_proba(given))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        said = str(error).strip().partition("\n")[0]
        raise EstimatorError(f"the estimator fails on rows of the table: {said}") from error
    if probabilities is None:
        return Answers(classes=np.empty(0, dtype=np.int64), numbers=_one_column(predicted))
    places = {one: place for place, one in enumerate(classes)}
    return Answers(
        classes=np.array([places[label] for label in predicted.tolist()]), numbers=probabilities.astype(np.float64)
    )


def _one_column(predicted: NDArray[Any]) -> NDArray[np.float64]:
    if predicted.ndim == 2 and predicted.shape[1] > 1:
        raise EstimatorError(f"expected a regressor with one output, got one with {predicted.shape[1]}")
    return predicted.ravel().astype(np.float64)


def _sample(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    if MIN_ROWS <= len(table) <= MAX_ROWS:
        return table
    size = min(max(len(table), MIN_ROWS), MAX_ROWS)
    drawn = np.random.default_rng(seed).choice(len(table), size, replace=len(table) < MIN_ROWS)
    if len(table) < MIN_ROWS:
        drawn[: len(table)] = np.arange(len(table))
    return table.iloc[np.sort(drawn)]


def _tolerance(expected: Answers, task: Task) -> float:
    if task != "regression":
        return PROBABILITY_TOLERANCE
    return float(VALUE_TOLERANCE * (np.abs(expected.numbers).max() + np.std(expected.numbers) + 1e-30))


def _refuse(what: str, row: str, difference: str, model: OnnxModel) -> NoReturn:
    floats = any(tensor.datatype == "FP32" for tensor in model.signature.inputs)
    advice = "; if it is a matter of precision, --float fp64 helps" if floats else ""
    raise ParityError(f"the graph differs from the estimator in {what}; {row}: {difference}{advice}")


def _described(rows: pd.DataFrame, row: int, model: OnnxModel) -> str:
    values = rows.iloc[row][[column.name for column in model.signature.columns]].to_dict()
    return f"row {rows.index[row]} of the table ({', '.join(f'{name}={value!r}' for name, value in values.items())})"


def _shown(value: Any) -> str:
    return "[" + ", ".join(f"{one:.7g}" for one in value) + "]" if np.ndim(value) else f"{value:.7g}"
