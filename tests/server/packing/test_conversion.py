from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from server.contract.manifest import decode_manifest
from server.packing.bundle_writer import pack_bundle
from server.packing.conversion import signature_for
from server.packing.errors import ConversionError, ParityError, TableError
from server.packing.options import PackOptions
from server.packing.table import infer_columns

NUMBERS = ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["length", "amount"])


def of_texts(encoder: Any) -> Any:
    return make_pipeline(ColumnTransformer([("texts", encoder, ["place", "word"]), NUMBERS]), LogisticRegression())


def parity(folder: Path) -> dict[str, float]:
    return decode_manifest((folder / "bundle.json").read_bytes()).parity


def filled(gap: Any, **how: Any) -> Any:
    return make_pipeline(SimpleImputer(missing_values=gap, **how), OneHotEncoder(handle_unknown="ignore"))


@pytest.mark.parametrize("gap", [None, np.nan], ids=["None", "NaN"])
@pytest.mark.parametrize(
    "encoder",
    [
        lambda gap: OneHotEncoder(handle_unknown="ignore"),
        lambda gap: OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
        lambda gap: filled(gap, strategy="most_frequent"),
        lambda gap: filled(gap, strategy="constant", fill_value="?"),
    ],
    ids=["one-hot", "ordinal", "most frequent", "constant"],
)
def test_a_missing_string_means_the_same_to_the_graph(
    table: pd.DataFrame, tmp_path: Path, encoder: Callable[[Any], Any], gap: Any
) -> None:
    """The empty string on the wire is to the graph what the gap in the table is to the estimator."""
    words = table["word"].astype(object)
    rows = table.assign(word=words.where(words.notna(), gap))
    estimator = of_texts(encoder(gap)).fit(rows[["place", "word", "length", "amount"]], rows["yes"])

    folder = pack_bundle(estimator, rows, PackOptions(model="m", out=tmp_path, target="yes"))

    column = decode_manifest((folder / "bundle.json").read_bytes()).signature.columns[1]
    assert (column.name, column.datatype, column.nullable) == ("word", "BYTES", True)
    assert parity(folder)["largest_difference"] < 1e-5


@pytest.mark.parametrize("imputing", [False, True])
def test_gaps_of_two_kinds_suit_encoders_and_are_refused_for_imputers(
    table: pd.DataFrame, tmp_path: Path, imputing: bool
) -> None:
    """An imputer looks for one kind of gap only; in scikit-learn it would fill half of them."""
    words, places = table["word"].astype(object), table["place"].astype(object)
    rows = table.assign(word=words.where(words.notna(), np.nan), place=places.where(table.index > 5, None))
    encoder = (
        filled(np.nan, strategy="constant", fill_value="?") if imputing else OneHotEncoder(handle_unknown="ignore")
    )
    estimator = of_texts(encoder).fit(rows[["place", "word", "length", "amount"]], rows["yes"])
    options = PackOptions(model="m", out=tmp_path, target="yes")

    if imputing:
        with pytest.raises(TableError, match="missing strings come in several kinds, None, nan"):
            pack_bundle(estimator, rows, options)
    else:
        assert parity(pack_bundle(estimator, rows, options))["largest_difference"] < 1e-5


def test_a_gap_that_reads_like_a_category_is_refused(table: pd.DataFrame, tmp_path: Path) -> None:
    """A passenger named "nan" must not be taken for nobody."""
    words = table["word"].astype(object)
    rows = table.assign(word=words.where(words.notna(), np.nan).where(table.index > 0, "nan"))
    estimator = of_texts(OneHotEncoder(handle_unknown="ignore"))
    estimator.fit(rows[["place", "word", "length", "amount"]], rows["yes"])

    with pytest.raises(TableError, match="column 'word' has missing values and also the string 'nan'"):
        pack_bundle(estimator, rows, PackOptions(model="m", out=tmp_path, target="yes"))


def test_integers_beyond_the_floats_stay_exact(tmp_path: Path) -> None:
    """Ids of ten digits as categories are told apart, though float32 would merge them."""
    ids = np.repeat(2**31 + np.arange(4), 100)
    rows = pd.DataFrame({"id": ids, "x": np.tile([0.5, 1.5], 200), "y": (ids % 2 == 0)})
    encoder = ColumnTransformer([("id", OneHotEncoder(), ["id"]), ("x", StandardScaler(), ["x"])])
    estimator = make_pipeline(encoder, LogisticRegression()).fit(rows[["id", "x"]], rows["y"])

    folder = pack_bundle(estimator, rows, PackOptions(model="m", out=tmp_path, target="y"))

    assert parity(folder)["largest_difference"] < 1e-5


def test_columns_may_be_called_like_the_inside_of_the_graph(table: pd.DataFrame, tmp_path: Path) -> None:
    """A column called "variable" or "input" does not collide with skl2onnx's own names."""
    names = {"length": "variable", "amount": "input", "size": "in/0", "flag": "estimator/input"}
    rows = table.rename(columns=names)
    estimator = make_pipeline(SimpleImputer(), Ridge()).fit(rows[list(names.values())], rows["price"])

    folder = pack_bundle(estimator, rows, PackOptions(model="m", out=tmp_path, target="price"))

    assert [one.name for one in decode_manifest((folder / "bundle.json").read_bytes()).signature.inputs] == [
        "variable",
        "input",
        "in/0",
        "estimator/input",
    ]


def test_an_estimator_that_skl2onnx_does_not_know_is_named(table: pd.DataFrame, tmp_path: Path) -> None:
    """The sentence says which class it was and nothing is written."""
    estimator = TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1)
    estimator.fit(table[["length"]], table["price"].clip(lower=1))

    with pytest.raises(ConversionError, match=r"cannot convert this TransformedTargetRegressor: .*shape calculator"):
        pack_bundle(estimator, table, PackOptions(model="m", out=tmp_path, target="price"))

    assert list(tmp_path.iterdir()) == []


def test_matrix_takes_numbers_only(table: pd.DataFrame) -> None:
    """A string cannot ride in a tensor of floats."""
    options = PackOptions(model="m", out=Path(), target="yes", layout="matrix")
    columns = infer_columns(table, ["length", "place"], "FP32")

    with pytest.raises(TableError, match="layout matrix takes numbers only, and column 'place' holds strings"):
        signature_for(columns, "binary", [False, True], options)


def test_a_feature_may_not_have_the_name_of_an_output(table: pd.DataFrame) -> None:
    """The graph could not tell its input from its output."""
    options = PackOptions(model="m", out=Path(), target="yes")
    columns = infer_columns(table.rename(columns={"length": "label"}), ["label"], "FP32")

    with pytest.raises(TableError, match="the feature 'label' has the name of an output"):
        signature_for(columns, "binary", [False, True], options)


def test_doubles_keep_what_floats_lose(tmp_path: Path) -> None:
    """Seconds since 1970 are beyond float32: refused there, and exact in float64."""
    seconds = 1.7e9 + np.arange(400.0)
    rows = pd.DataFrame({"seconds": seconds, "gap": np.where(np.arange(400) % 9, 1.0, np.nan)})
    rows["y"] = rows["seconds"] - 1.7e9
    estimator = make_pipeline(SimpleImputer(), StandardScaler(), Ridge(alpha=1e-6)).fit(
        rows[["seconds", "gap"]], rows["y"]
    )

    with pytest.raises(ParityError, match="--float fp64 helps"):
        pack_bundle(estimator, rows, PackOptions(model="m", out=tmp_path, target="y"))
    folder = pack_bundle(estimator, rows, PackOptions(model="m", out=tmp_path, target="y", float_type="fp64"))

    assert parity(folder)["largest_difference"] < 1e-3
