"""Bins fixed on the training data, in which production rows are counted ever after.

Counts in the same bins add: over minutes, restarts, partitions and replicas. Every distance the
monitor computes derives from such counts, so no test touches raw rows again.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

NUMERIC_BINS = 256

# A JSON number is a double; the model sees it in its signature's type, and 39.02 is another number
# in float32. Values are cast before they are binned, here and when packing, or a value sitting
# exactly on an edge would be counted in different bins in training and in production.
_DTYPES: Mapping[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
}


def as_numbers(values: Sequence[float | None] | NDArray[Any], datatype: str) -> NDArray[np.float64]:
    """Returns values as float64 after a cast to the signature's datatype; missing becomes NaN.

    Args:
        values: numbers, with None or NaN where missing; shape (rows,).
        datatype: the column's datatype in the Open Inference Protocol, such as ``FP32``.

    Raises:
        ValueError, TypeError: a value is not a number.
    """
    numbers = np.asarray(values, dtype=np.float64)
    dtype = _DTYPES[datatype]
    if issubclass(dtype, np.floating) and dtype is not np.float64:
        with np.errstate(over="ignore"):
            return numbers.astype(dtype).astype(np.float64)
    return numbers


class NumericBins(msgspec.Struct, frozen=True, kw_only=True, tag="numeric"):
    """Bins of a numeric feature: bin i holds edges[i] ≤ x < edges[i+1], the last edges[-1] ≤ x ≤ upper.

    Cells, in order: under, one per edge, over, missing.
    """

    edges: list[float]
    upper: float

    @property
    def cells(self) -> int:
        """How many counts a histogram over these bins has."""
        return len(self.edges) + 3

    def locate(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Returns the cell of every value. values: float64, (rows,), NaN where missing."""
        cells = np.searchsorted(np.asarray(self.edges), values, side="right")
        cells[values > self.upper] = len(self.edges) + 1
        cells[np.isnan(values)] = len(self.edges) + 2
        return cells

    def count(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Returns the counts of values per cell: int64, (cells,)."""
        return np.bincount(self.locate(values), minlength=self.cells)


class CategoricalBins(msgspec.Struct, frozen=True, kw_only=True, tag="categorical"):
    """Bins of a categorical feature. Cells, in order: one per category, new, missing."""

    categories: list[str]

    @property
    def cells(self) -> int:
        """How many counts a histogram over these bins has."""
        return len(self.categories) + 2

    def index(self) -> dict[str | None, int]:
        """Returns the cell of every known category and of None; what is absent from it is new."""
        cells: dict[str | None, int] = {name: i for i, name in enumerate(self.categories)}
        cells[None] = len(self.categories) + 1
        return cells

    def count(self, values: Sequence[str | None]) -> NDArray[np.int64]:
        """Returns the counts of values (None where missing) per cell: int64, (cells,)."""
        index, new = self.index(), len(self.categories)
        return np.bincount([index.get(value, new) for value in values], minlength=self.cells)


Bins = NumericBins | CategoricalBins


def quantile_bins(values: NDArray[np.float64], bins: int = NUMERIC_BINS) -> NumericBins:
    """Returns at most ``bins`` bins that hold about equally many of the values.

    Every edge is a value that occurs, so a value that occurs very often gets a bin of its own and a
    discrete feature with few values gets one bin for each.

    Args:
        values: float64, (rows,); NaN is missing and skipped.
        bins: how many bins at most.

    Raises:
        ValueError: there is no value that is not missing, or one is infinite.
    """
    known = values[~np.isnan(values)]
    if known.size == 0:
        raise ValueError("expected at least one value that is not missing, got none")
    if not np.isfinite(known).all():
        raise ValueError("expected finite values, got an infinite one")
    distinct = np.unique(known)
    if distinct.size <= bins:
        edges = distinct
    else:
        edges = np.unique(np.quantile(known, np.arange(bins) / bins, method="lower"))
    return NumericBins(edges=edges.tolist(), upper=float(distinct[-1]))
