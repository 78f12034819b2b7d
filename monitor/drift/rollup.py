"""Ten coarse groups of a histogram's cells, on which PSI is defined."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.contract.histogram import Bins, NumericBins

GROUPS = 10


def coarse_cells(bins: Bins, baseline: NDArray[np.int64], groups: int = GROUPS) -> NDArray[np.int64]:
    """Returns the coarse group of every cell: int64, (cells,), groups numbered from 0 without gaps.

    Numeric: at most ``groups`` runs of adjacent bins with about equal baseline mass, then missing.
    Under joins the first run and over the last. When the whole baseline lies in one bin (a constant
    feature) the three stay apart, or a move away from the constant could not be seen.

    Categorical: when there are more than ``groups`` categories, the most frequent ``groups - 1``
    and one group for the others, else one group each; then new, then missing.

    Args:
        bins: the feature's bins.
        baseline: int64, (cells,).
        groups: how many groups of known values at most, at least 2.

    >>> bins = NumericBins(edges=[0.0, 1.0, 2.0, 3.0], upper=4.0)
    >>> coarse_cells(bins, np.array([0, 25, 25, 25, 25, 0, 9]), groups=2).tolist()
    [0, 0, 0, 1, 1, 1, 2]
    """
    if isinstance(bins, NumericBins):
        return _adjacent_bins(baseline, groups)
    return _frequent_categories(baseline, groups)


def roll_up(counts: NDArray[Any], groups: NDArray[np.int64]) -> NDArray[Any]:
    """Returns the counts of the coarse groups: as the cells' dtype, (groups,).

    Args:
        counts: int64 or, effective ones, float64, (cells,).
        groups: what ``coarse_cells`` returned for the same bins.

    >>> roll_up(np.array([1, 25, 25, 20, 25, 4, 9]), np.array([0, 0, 0, 1, 1, 1, 2])).tolist()
    [51, 49, 9]
    """
    sums = np.zeros(int(groups.max()) + 1, dtype=counts.dtype)
    np.add.at(sums, groups, counts)  # bincount's weights would pass through float64
    return sums


def group_names(bins: Bins, groups: NDArray[np.int64]) -> list[str]:
    """Returns a readable name for every coarse group.

    >>> bins = NumericBins(edges=[0.0, 1.0, 2.5, 3.0], upper=4.0)
    >>> group_names(bins, np.array([0, 0, 0, 1, 2, 2, 3]))
    ['x < 2.5', '2.5 ≤ x < 3', 'x ≥ 3', 'missing']
    """
    if isinstance(bins, NumericBins):
        return [_range_name(bins, np.flatnonzero(groups == group)) for group in range(int(groups.max()) + 1)]
    members: list[list[str]] = [[] for _ in range(int(groups.max()) + 1)]
    for group, name in zip(groups.tolist(), [*bins.categories, "new category", "missing"], strict=True):
        members[group].append(name)
    return [names[0] if len(names) == 1 else f"{len(names)} other categories" for names in members]


def _adjacent_bins(baseline: NDArray[np.int64], groups: int) -> NDArray[np.int64]:
    inside = baseline[1:-2]
    if inside.sum() == 0:
        inside = np.ones_like(inside)
    mass_below = np.cumsum(inside) - inside
    # A bin goes where its middle falls, so a heavy bin takes the place of several groups; the
    # integers are doubled because the middle is at half a count.
    place = groups * (2 * mass_below + inside) // (2 * int(inside.sum()))
    _, runs = np.unique(np.minimum(place, groups - 1), return_inverse=True)
    runs = runs.astype(np.int64)
    last = int(runs[-1])
    if np.count_nonzero(inside) == 1:
        return np.concatenate(([0], np.ones_like(runs), [2, 3]))
    return np.concatenate(([0], runs, [last, last + 1]))


def _frequent_categories(baseline: NDArray[np.int64], groups: int) -> NDArray[np.int64]:
    known = len(baseline) - 2
    if known <= groups:
        return np.arange(known + 2, dtype=np.int64)
    order = np.argsort(-baseline[:known], kind="stable")
    cells = np.full(known + 2, groups - 1, dtype=np.int64)
    cells[order[: groups - 1]] = np.arange(groups - 1)
    cells[-2:] = (groups, groups + 1)
    return cells


def _range_name(bins: NumericBins, cells: NDArray[np.int64]) -> str:
    first, last, under, over = int(cells[0]), int(cells[-1]), 0, len(bins.edges) + 1
    if first == over + 1:
        return "missing"
    if (first, last) == (under, over):
        return "any value"
    if first == under:
        return f"x < {bins.edges[last]:.6g}"
    if first == over:
        return f"x > {bins.upper:.6g}"
    low = bins.edges[first - 1]
    if last == over:
        return f"x ≥ {low:.6g}"
    if last == over - 1:
        return f"x = {low:.6g}" if low == bins.upper else f"{low:.6g} ≤ x ≤ {bins.upper:.6g}"
    return f"{low:.6g} ≤ x < {bins.edges[last]:.6g}"
