import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.drift.rollup import coarse_cells, group_names, roll_up
from server.contract.histogram import CategoricalBins, NumericBins, quantile_bins

counts = st.lists(st.integers(0, 1000), min_size=1, max_size=300)


def numeric(edges: int) -> NumericBins:
    return NumericBins(edges=[float(edge) for edge in range(edges)], upper=float(edges))


@given(inside=counts, outside=st.tuples(*[st.integers(0, 5)] * 3))
def test_numeric_groups_are_runs(inside: list[int], outside: tuple[int, int, int]) -> None:
    """Whatever the baseline, numeric groups are gapless runs of adjacent cells and missing stands alone."""
    under, over, missing = outside
    baseline = np.array([under, *inside, over, missing])

    groups = coarse_cells(numeric(len(inside)), baseline)

    assert set(np.diff(groups).tolist()) <= {0, 1}
    assert groups[0] == 0
    assert groups[-1] == groups[-2] + 1
    assert groups[-2] <= 9
    assert len(group_names(numeric(len(inside)), groups)) == groups[-1] + 1


@given(inside=counts, seed=st.integers(0, 2**32))
def test_roll_up_keeps_every_row(inside: list[int], seed: int) -> None:
    """Rolling up moves rows between cells and loses none, also beyond the integers a double can hold."""
    live = np.random.default_rng(seed).integers(0, 2**53, len(inside) + 3)
    groups = coarse_cells(numeric(len(inside)), np.array([0, *inside, 0, 0]))

    rolled = roll_up(live, groups)

    assert sum(live.tolist()) == sum(rolled.tolist())


def test_groups_have_about_equal_mass() -> None:
    """A continuous feature's ten groups hold a tenth of the baseline each, within a bin of 1/256."""
    values = np.random.default_rng(0).normal(size=20_000)
    bins = quantile_bins(values)
    baseline = bins.count(values)

    rolled = roll_up(baseline, coarse_cells(bins, baseline))

    assert len(rolled) == 11
    assert rolled[:10] / 20_000 == pytest.approx(np.full(10, 0.1), abs=1 / 256)


def test_heavy_value_is_its_own_group() -> None:
    """A value that holds most of the rows takes the place of several groups, and its neighbours keep theirs."""
    baseline = np.array([0, 5, 90, 5, 0, 0])

    groups = coarse_cells(numeric(3), baseline)

    assert [0, 0, 1, 2, 2, 3] == groups.tolist()


def test_constant_feature_keeps_its_outside() -> None:
    """Under and over stay apart from the only value of a constant feature, or leaving it could not be seen."""
    bins = NumericBins(edges=[7.0], upper=7.0)

    groups = coarse_cells(bins, np.array([0, 100, 0, 0]))

    assert [0, 1, 2, 3] == groups.tolist()
    assert ["x < 7", "x = 7", "x > 7", "missing"] == group_names(bins, groups)


def test_baseline_of_missing_values_only() -> None:
    """Bins that hold no baseline row are still grouped, as if each held one."""
    groups = coarse_cells(numeric(4), np.array([0, 0, 0, 0, 0, 0, 50]), groups=2)

    assert [0, 0, 0, 1, 1, 1, 2] == groups.tolist()


def test_frequent_categories_keep_their_names() -> None:
    """Of more than ten categories the nine most frequent stand alone and the others together."""
    bins = CategoricalBins(categories=[f"c{i:02}" for i in range(12)])
    baseline = np.array([5, 5, 5, *range(100, 109), 0, 0])

    groups = coarse_cells(bins, baseline)

    assert [9, 9, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 10, 11] == groups.tolist()
    names = group_names(bins, groups)
    assert ["c11", "c10", "3 other categories", "new category", "missing"] == [*names[:2], *names[9:]]


def test_few_categories_stay_as_they_are() -> None:
    """Up to ten categories have a group each, beside new and missing."""
    bins = CategoricalBins(categories=["AA", "UA"])

    groups = coarse_cells(bins, np.array([1, 2, 0, 0]))

    assert ["AA", "UA", "new category", "missing"] == group_names(bins, groups)


def test_names_of_ranges() -> None:
    """The first group is open below and the last above, because under and over joined them."""
    bins = NumericBins(edges=[0.0, 12.5, 14.0], upper=20.0)

    assert ["x < 12.5", "12.5 ≤ x < 14", "x ≥ 14", "missing"] == group_names(bins, np.array([0, 0, 1, 2, 2, 3]))
    assert ["any value", "missing"] == group_names(bins, np.array([0, 0, 0, 0, 0, 1]))
