"""The training table: reading it, and what each of its columns is on the wire."""

import hashlib
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from server.contract.manifest import Column
from server.packing.errors import TableError
from server.packing.options import PackOptions


def read_table(path: Path) -> pd.DataFrame:
    """Returns the table in a Parquet (``.parquet``) or CSV (``.csv``, also compressed) file.

    Raises:
        TableError: no such file, another kind of file, one that cannot be parsed, or no rows.
    """
    kinds = {suffix.lower() for suffix in path.suffixes}
    try:
        if ".parquet" in kinds:
            table = pd.read_parquet(path)
        elif ".csv" in kinds:
            table = pd.read_csv(path, low_memory=False)
        else:
            raise TableError(f"expected a table that ends in .parquet or .csv, got {path.name}")
    except (OSError, ValueError) as error:
        said = str(error).partition("\n")[0]
        raise TableError(f"cannot read the table {path}: {said}") from error
    if table.empty:
        raise TableError(f"expected at least one row and one column in {path}, got none")
    table.columns = table.columns.astype(str)
    return table


def choose_features(table: pd.DataFrame, options: PackOptions, fitted_on: list[str] | None) -> list[str]:
    """Returns the names of the model's columns, in the order in which the estimator takes them.

    Args:
        fitted_on: the columns the estimator remembers, None where it was fitted without names.

    Raises:
        TableError: a column named in the options or needed by the estimator is not there, or is
            both feature and target.
    """
    present = list(table.columns)
    doubles = sorted({name for name in present if present.count(name) > 1})
    if doubles:
        raise TableError(f"expected columns of different names, got {doubles[0]!r} more than once")
    for what, name in (("target", options.target), ("time", options.time)):
        if name is not None and name not in present:
            raise TableError(f"the {what} column {name!r} is not in the table, which has {_listed(present)}")
    chosen = options.features or fitted_on
    if chosen is None:
        chosen = [name for name in present if name not in (options.target, options.time)]
    absent = [name for name in chosen if name not in present]
    if absent:
        raise TableError(f"the feature {absent[0]!r} is not in the table, which has {_listed(present)}")
    if options.target in chosen:
        raise TableError(f"the target {options.target!r} is also a feature: the model would read the answer")
    if len(set(chosen)) != len(chosen) or not chosen:
        raise TableError(f"expected features that are all different, got {_listed(chosen)}")
    if fitted_on is not None and sorted(chosen) != sorted(fitted_on):
        raise TableError(f"the estimator was fitted on {_listed(fitted_on)}, got the features {_listed(chosen)}")
    return fitted_on or chosen


def infer_columns(table: pd.DataFrame, features: list[str], datatype: str) -> list[Column]:
    """Returns what each feature is on the wire.

    Booleans are BOOL, integers INT64, other numbers ``datatype``, strings and categories BYTES.
    Only floats can say "missing", so an integer or boolean column with gaps is a float one.

    Raises:
        TableError: a column is of another type, is all missing, holds an infinity, or holds both
            empty strings and missing values, which are the same on the wire.
    """
    return [_infer(table[name], name, datatype) for name in features]


def _infer(values: "pd.Series[Any]", name: str, datatype: str) -> Column:
    missing = values.isna()
    if missing.all():
        raise TableError(f"column {name!r} has no value at all; leave it out with --features")
    nullable = bool(missing.any())
    if _is_text(values[~missing]):
        if nullable and (values[~missing] == "").any():
            raise TableError(
                f"column {name!r} has both empty strings and missing values, which no client could tell apart; "
                "replace one of them"
            )
        return Column(name=name, datatype="BYTES", kind="categorical", nullable=nullable)
    if types.is_bool_dtype(values) or set(map(type, values[~missing])) <= {bool, np.bool_}:
        exact = "BOOL"
    elif types.is_integer_dtype(values):
        exact = "INT64"
        if int(values.max()) > np.iinfo(np.int64).max:
            raise TableError(f"column {name!r}: expected integers within INT64, got {values.max()}")
    elif types.is_float_dtype(values):
        exact = datatype
    else:
        found = sorted({type(value).__name__ for value in values[~missing]})
        raise TableError(
            f"column {name!r}: expected numbers, booleans or strings, got {', '.join(found)}; "
            "leave it out with --features, or name it with --time"
        )
    if exact == datatype:
        _refuse_infinite(values, name, datatype)
    return Column(name=name, datatype=datatype if nullable else exact, kind="numeric", nullable=nullable)


def _is_text(known: "pd.Series[Any]") -> bool:
    if types.is_numeric_dtype(known) or types.is_datetime64_any_dtype(known):
        return False
    return set(map(type, known)) == {str}


def _refuse_infinite(values: "pd.Series[Any]", name: str, datatype: str) -> None:
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    limit = np.finfo(np.float32).max if datatype == "FP32" else np.inf
    beyond = numbers[np.abs(numbers) > limit] if datatype == "FP32" else numbers[np.isinf(numbers)]
    if beyond.size:
        raise TableError(f"column {name!r}: expected finite {datatype} values, got {beyond[0]:g}")


def drop_unlabelled(table: pd.DataFrame, target: str) -> pd.DataFrame:
    """Returns the rows whose target is known, each with the number it had in the table.

    Raises:
        TableError: there is none.
    """
    labelled = table[table[target].notna()]
    if labelled.empty:
        raise TableError(f"expected rows with a known target, got none: {target!r} is missing in all of them")
    return labelled


def period_of(table: pd.DataFrame, time: str | None) -> tuple[datetime | None, datetime | None]:
    """Returns the first and the last time in a column, in UTC; None twice without a column.

    Raises:
        TableError: the column does not hold times.
    """
    if time is None:
        return None, None
    if types.is_numeric_dtype(table[time]):
        raise TableError(f"the time column {time!r}: expected dates or times, got plain numbers")
    try:
        # Nothing is guessed: 01/02 is January to some and February to others.
        times = pd.to_datetime(table[time], utc=True, format="ISO8601")
    except (ValueError, TypeError) as error:
        said = str(error).partition(". ")[0].partition("\n")[0]
        raise TableError(f"the time column {time!r}: expected times in ISO 8601: {said}") from error
    if times.isna().all():
        raise TableError(f"the time column {time!r} has no value at all")
    return times.min().to_pydatetime(), times.max().to_pydatetime()


def digest_of(table: pd.DataFrame) -> str:
    """Returns the SHA-256 of a table's column names and values."""
    digest = hashlib.sha256("\n".join(table.columns).encode())
    digest.update(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes())
    return digest.hexdigest()


def _listed(names: list[str]) -> str:
    return ", ".join(names)
