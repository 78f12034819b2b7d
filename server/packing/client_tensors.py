"""The very tensors a client would send for rows of the training table."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from server.contract.manifest import Column, Signature

Tensors = Mapping[str, NDArray[np.generic]]

_DTYPES = {"BOOL": np.bool_, "INT64": np.int64, "FP32": np.float32, "FP64": np.float64}


def client_tensors(table: pd.DataFrame, signature: Signature) -> Tensors:
    """Returns one array per input of the signature.

    A missing number is NaN, a missing string is the empty one, as the server's codecs have it.
    Shapes: (rows, 1) each in layout columns, (rows, columns) in layout matrix.
    """
    arrays = [column_array(table[column.name], column) for column in signature.columns]
    if signature.layout == "matrix":
        return {signature.inputs[0].name: np.stack(arrays, axis=1)}
    return {column.name: array.reshape(-1, 1) for column, array in zip(signature.columns, arrays, strict=True)}


def column_array(values: "pd.Series[Any]", column: Column) -> NDArray[np.generic]:
    """Returns one column's values in its datatype, (rows,)."""
    if column.datatype == "BYTES":
        return np.array(["" if gap else value for value, gap in zip(values, values.isna(), strict=True)], dtype=object)
    dtype = _DTYPES[column.datatype]
    if np.issubdtype(dtype, np.floating):
        return values.to_numpy(dtype=np.float64, na_value=np.nan).astype(dtype)
    return values.to_numpy(dtype=dtype)


def take_rows(tensors: Tensors, rows: "NDArray[np.int64] | slice") -> Tensors:
    """Returns some rows of every tensor."""
    return {name: array[rows] for name, array in tensors.items()}


def rows_in(tensors: Tensors) -> int:
    """Returns how many rows the tensors hold."""
    return len(next(iter(tensors.values())))
