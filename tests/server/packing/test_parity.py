from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from server.packing.bundle_writer import pack_bundle
from server.packing.conversion import convert, signature_for
from server.packing.errors import EstimatorError, ParityError
from server.packing.onnx_model import OnnxModel
from server.packing.options import PackOptions
from server.packing.parity import check_parity, estimator_answers
from server.packing.table import infer_columns

NUMBERS = ["length", "size"]


def converted(estimator: Any, table: pd.DataFrame, features: list[str], task: Any, classes: list[Any]) -> OnnxModel:
    options = PackOptions(model="m", out=Path(), target="yes")
    signature = signature_for(infer_columns(table, features, "FP32"), task, classes, options)
    return OnnxModel(convert(estimator, table, signature, options), signature, classes)


@pytest.fixture
def estimator(table: pd.DataFrame) -> LogisticRegression:
    return LogisticRegression().fit(table[NUMBERS], table["yes"])


@pytest.mark.parametrize(("rows", "expected"), [(300, 1000), (999, 1000), (1000, 1000), (4321, 4321), (10_001, 10_000)])
def test_at_least_a_thousand_rows_are_compared(
    estimator: LogisticRegression, table: pd.DataFrame, rows: int, expected: int
) -> None:
    """A small table is drawn from again, a large one is sampled."""
    many = pd.concat([table] * 34, ignore_index=True).iloc[:rows]
    model = converted(estimator, table, NUMBERS, "binary", [False, True])

    report = check_parity(estimator, many, model, "binary", [False, True], seed=0)

    assert report["rows"] == expected
    assert report["largest_difference"] < 1e-6
    assert report["label_ties"] == 0


def test_no_row_of_a_larger_table_is_compared_twice(estimator: LogisticRegression, table: pd.DataFrame) -> None:
    """Ten thousand drawn of twelve are ten thousand different ones."""
    many = pd.concat([table] * 40, ignore_index=True)
    model = converted(estimator, table, NUMBERS, "binary", [False, True])
    seen: list[int] = []
    right = estimator.predict
    estimator.predict = lambda rows: seen.extend(rows.index) or right(rows)

    check_parity(estimator, many, model, "binary", [False, True], seed=0)

    assert len(seen) == len(set(seen)) == 10_000


@pytest.mark.parametrize("rows", [300, 4000])
def test_an_estimator_that_was_changed_after_conversion_is_caught(
    estimator: LogisticRegression, table: pd.DataFrame, rows: int
) -> None:
    """A row that answers otherwise is found and shown with its values and both answers."""
    many = pd.concat([table] * 14, ignore_index=True).iloc[:rows]
    model = converted(estimator, table, NUMBERS, "binary", [False, True])
    estimator.intercept_ = estimator.intercept_ + 0.01

    with pytest.raises(ParityError) as caught:
        check_parity(estimator, many, model, "binary", [False, True], seed=0)

    message = str(caught.value)
    shown = message.split("row ")[1].split(" of the table")[0]
    assert f"length={many.loc[int(shown), 'length']}, size={many.loc[int(shown), 'size']}" in message
    expected = estimator.predict_proba(many.loc[[int(shown)], NUMBERS])[0]
    assert f"expected [{expected[0]:.7g}, {expected[1]:.7g}], got [" in message
    assert "output 'probabilities' by more than 1e-05 on " in message


def test_one_wrong_row_in_a_small_table_is_enough(estimator: LogisticRegression, table: pd.DataFrame) -> None:
    """Every row of a table of fewer than a thousand is compared, however rows are drawn again."""
    model = converted(estimator, table, NUMBERS, "binary", [False, True])
    right = estimator.predict_proba

    class OneRowWrong(LogisticRegression):
        def predict_proba(self, X: pd.DataFrame) -> Any:
            wrong = (X.index == 123).astype(float)[:, None]
            return right(X) + wrong * 1e-3 * np.array([1, -1])

    wrong = OneRowWrong()
    wrong.__dict__.update(estimator.__dict__)

    with pytest.raises(ParityError, match="row 123 of the table"):
        check_parity(wrong, table, model, "binary", [False, True], seed=0)


def test_another_label_with_equal_probabilities_is_caught(estimator: LogisticRegression, table: pd.DataFrame) -> None:
    """A threshold moved in ``predict`` alone would answer other classes than were tested."""
    model = converted(estimator, table, NUMBERS, "binary", [False, True])

    class Strict(LogisticRegression):
        def predict(self, X: pd.DataFrame) -> Any:
            return self.predict_proba(X)[:, 1] > 0.8

    strict = Strict()
    strict.__dict__.update(estimator.__dict__)

    with pytest.raises(ParityError, match=r"output 'label' on \d+ of 1000 rows; .* expected False, got True"):
        check_parity(strict, table, model, "binary", [False, True], seed=0)


def test_a_regression_is_compared_in_its_own_scale(table: pd.DataFrame) -> None:
    """Prices in the millions may differ by their rounding, and by no more."""
    prices = 1e6 * table["price"]
    ridge = Ridge().fit(table[NUMBERS], prices)
    model = converted(ridge, table, NUMBERS, "regression", [])

    report = check_parity(ridge, table, model, "regression", [], seed=0)
    ridge.intercept_ += 1e6

    assert report["largest_difference"] < report["tolerance"] < 0.0001 * prices.max()
    with pytest.raises(ParityError, match="output 'value'"):
        check_parity(ridge, table, model, "regression", [], seed=0)


def encoded(encoder: Any, table: pd.DataFrame) -> Any:
    columns = ColumnTransformer([("texts", encoder, ["place"]), ("numbers", "passthrough", ["length"])])
    return make_pipeline(columns, LogisticRegression()).fit(table[["place", "length"]], table["yes"])


def test_a_new_category_is_compared_as_well(table: pd.DataFrame) -> None:
    """A graph that is right on every row of the table may yet code what production brings otherwise."""
    encoder = OrdinalEncoder(
        categories=[["none", "north", "south", "west"]], handle_unknown="use_encoded_value", unknown_value=9
    )
    estimator = encoded(encoder, table)
    model = converted(estimator, table, ["place", "length"], "binary", [False, True])
    estimator.steps[0][1].transformers_[0][1].unknown_value = 30

    with pytest.raises(ParityError, match="with a new category in 'place'"):
        check_parity(estimator, table, model, "binary", [False, True], seed=0)


@pytest.mark.parametrize(("how", "refusing"), [("ignore", 0), ("error", 1)])
def test_columns_that_refuse_a_new_category_are_counted(table: pd.DataFrame, how: str, refusing: int) -> None:
    """An encoder that fails on new categories is allowed, but the model card must say so."""
    estimator = encoded(OneHotEncoder(handle_unknown=how), table)
    model = converted(estimator, table, ["place", "length"], "binary", [False, True])

    report = check_parity(estimator, table, model, "binary", [False, True], seed=0)

    assert report["columns_refusing_new"] == refusing


def test_an_estimator_that_fails_on_its_own_table_is_named(table: pd.DataFrame, tmp_path: Path) -> None:
    """Gaps that the estimator cannot take are found before a client sends one."""
    whole = table.assign(amount=table["amount"].fillna(0))
    estimator = LogisticRegression().fit(whole[["amount"]], whole["yes"])

    with pytest.raises(EstimatorError, match=r"the estimator fails on rows of the table: .*NaN"):
        pack_bundle(estimator, table, PackOptions(model="m", out=tmp_path, target="yes"))


def test_names_are_given_only_to_an_estimator_that_had_some(table: pd.DataFrame) -> None:
    """An estimator fitted on an array gets an array: scikit-learn warns otherwise."""
    estimator = LogisticRegression().fit(table[NUMBERS].to_numpy(), table["yes"])
    options = PackOptions(model="m", out=Path(), target="yes")
    signature = signature_for(infer_columns(table, NUMBERS, "FP32"), "binary", [False, True], options)

    answers = estimator_answers(estimator, table, signature, "binary", [False, True])

    assert answers.numbers.shape == (300, 2)
