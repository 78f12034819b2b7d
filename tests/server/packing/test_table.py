from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from server.contract.manifest import Column
from server.packing.errors import TableError
from server.packing.options import PackOptions
from server.packing.table import choose_features, digest_of, drop_unlabelled, infer_columns, period_of, read_table


def options(**given: Any) -> PackOptions:
    return PackOptions(**{"model": "m", "out": Path(), "target": "y", **given})


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.csv.gz", "T.CSV"])
def test_parquet_and_csv_read_alike(tmp_path: Path, name: str) -> None:
    """The same rows come out of either format."""
    rows = pd.DataFrame({"a": [1, 2], "b": [0.5, None], "c": ["x", None]})
    if name.endswith("parquet"):
        rows.to_parquet(tmp_path / name)
    else:
        rows.to_csv(tmp_path / name, index=False)

    read = read_table(tmp_path / name)

    assert infer_columns(read, ["a", "b", "c"], "FP32") == infer_columns(rows, ["a", "b", "c"], "FP32")
    assert read["a"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.csv", None, "cannot read the table"),
        ("t.xlsx", b"x", "ends in .parquet or .csv, got t.xlsx"),
        ("t.parquet", b"no parquet", "cannot read the table"),
        ("t.csv", b"", "cannot read the table"),
        ("t.csv", b'a,b\n1,"2\n', "cannot read the table"),
        ("t.csv", b"a,b\n", "at least one row"),
        ("t.csv", b"a\n\xff\xfe\xfa\n", "cannot read the table"),
    ],
)
def test_a_table_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    """A wrong path or a broken file ends in one sentence with the path."""
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(TableError, match=message) as caught:
        read_table(tmp_path / name)

    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "datatype", "kind", "nullable"),
    [
        ([0.5, 1.5], "FP32", "numeric", False),
        ([0.5, None], "FP32", "numeric", True),
        ([1, 2], "INT64", "numeric", False),
        ([1, None], "FP32", "numeric", True),
        (pd.array([1, None], dtype="Int64"), "FP32", "numeric", True),
        (pd.array([1, 2], dtype="Int8"), "INT64", "numeric", False),
        ([True, False], "BOOL", "numeric", False),
        (np.array([True, False], dtype=object), "BOOL", "numeric", False),
        (pd.array([True, None], dtype="boolean"), "FP32", "numeric", True),
        (np.array([True, None], dtype=object), "FP32", "numeric", True),
        (["x", "y"], "BYTES", "categorical", False),
        (["x", None], "BYTES", "categorical", True),
        (["x", ""], "BYTES", "categorical", False),
        (pd.Categorical(["x", None]), "BYTES", "categorical", True),
        (np.array(["x", np.nan], dtype=object), "BYTES", "categorical", True),
    ],
)
def test_a_column_gets_the_datatype_that_can_hold_it(values: Any, datatype: str, kind: Any, nullable: bool) -> None:
    """Whatever pandas calls it, the wire type follows from the values; only floats and strings can be missing."""
    table = pd.DataFrame({"x": values})

    assert infer_columns(table, ["x"], "FP32") == [Column(name="x", datatype=datatype, kind=kind, nullable=nullable)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([None, None], "no value at all"),
        ([1.0, np.inf], "finite FP32 values, got inf"),
        ([1.0, -1e39], "finite FP32 values, got -1e\\+39"),
        (pd.to_datetime(["2024-01-01", "2024-01-02"]), "got Timestamp; leave it out with --features"),
        (np.array([1, "x"], dtype=object), "got int, str"),
        (["x", "", None], "both empty strings and missing values"),
        (np.array([1, 2**63], dtype=np.uint64), "integers within INT64, got 9223372036854775808"),
        (pd.Categorical([1, 2]), "got int"),
    ],
)
def test_a_column_that_no_client_could_send_is_refused(values: Any, message: str) -> None:
    """The sentence names the column and what it holds."""
    with pytest.raises(TableError, match=message) as caught:
        infer_columns(pd.DataFrame({"x": values}), ["x"], "FP32")

    assert "column 'x'" in str(caught.value)


TABLE = pd.DataFrame({"a": [1.0], "b": [2.0], "y": [1], "at": ["2024-01-01"]})


@pytest.mark.parametrize(
    ("given", "fitted_on", "expected"),
    [
        (options(time="at"), None, ["a", "b"]),
        (options(), None, ["a", "b", "at"]),
        (options(), ["b", "a"], ["b", "a"]),
        (options(features=["b"]), None, ["b"]),
        (options(features=["a", "b"]), ["b", "a"], ["b", "a"]),
    ],
)
def test_features_are_what_the_estimator_was_fitted_on(
    given: PackOptions, fitted_on: list[str] | None, expected: list[str]
) -> None:
    """The estimator's own order wins; without it every column but target and time."""
    assert choose_features(TABLE, given, fitted_on) == expected


@pytest.mark.parametrize(
    ("given", "fitted_on", "message"),
    [
        (options(target="late"), None, "the target column 'late' is not in the table, which has a, b, y, at"),
        (options(time="when"), None, "the time column 'when' is not in the table"),
        (options(features=["a", "z"]), None, "the feature 'z' is not in the table"),
        (options(), ["a", "z"], "the feature 'z' is not in the table"),
        (options(features=["a", "y"]), None, "the target 'y' is also a feature"),
        (options(features=["a", "a"]), None, "features that are all different"),
        (options(features=["a"]), ["a", "b"], "fitted on a, b, got the features a"),
    ],
)
def test_features_that_do_not_fit_are_refused(given: PackOptions, fitted_on: list[str] | None, message: str) -> None:
    """The sentence names the column that is wrong and those there are."""
    with pytest.raises(TableError, match=message):
        choose_features(TABLE, given, fitted_on)


def test_two_columns_of_one_name_are_refused() -> None:
    """Nobody could say which of them a client means."""
    with pytest.raises(TableError, match="got 'a' more than once"):
        choose_features(pd.concat([TABLE, TABLE[["a"]]], axis=1), options(), None)


@pytest.mark.parametrize(
    "values",
    [["2024-01-02T01:00:00+01:00", "2024-01-05"], pd.to_datetime(["2024-01-05", "2024-01-02"], utc=True), None],
)
def test_the_period_is_the_first_and_last_time_in_utc(values: Any) -> None:
    """A time without an offset is taken for UTC; without a column there is no period."""
    if values is None:
        assert period_of(TABLE, None) == (None, None)
    else:
        table = pd.DataFrame({"t": pd.Series(values).map(str)})
        expected = (datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 5, tzinfo=UTC))
        assert period_of(table, "t") == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.5], "got plain numbers"),
        (["soon"], "expected times in ISO 8601"),
        (["01/02/2024"], "expected times in ISO 8601"),
        ([None], "no value at all"),
    ],
)
def test_a_time_column_without_times_is_refused(values: list[Any], message: str) -> None:
    """Numbers might be seconds or milliseconds: nothing is guessed."""
    with pytest.raises(TableError, match=message):
        period_of(pd.DataFrame({"t": pd.Series(values, dtype=object if values == [None] else None)}), "t")


def test_a_table_without_any_target_is_refused() -> None:
    """There would be nothing to measure."""
    with pytest.raises(TableError, match="'y' is missing in all of them"):
        drop_unlabelled(pd.DataFrame({"y": [None, None]}), "y")


def test_the_digest_depends_on_names_values_and_order() -> None:
    """Equal tables have equal digests, and a renamed column another."""
    table = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})

    same = digest_of(table.copy())

    assert digest_of(table) == same
    assert len({same, digest_of(table.rename(columns={"a": "c"})), digest_of(table.iloc[::-1])}) == 3
