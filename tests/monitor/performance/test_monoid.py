"""The laws of every kind of cells, in one suite: ways of adding the same rows give the same cells."""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.comparison.paired import PairedCells
from monitor.performance.cells import ClassificationCells, RegressionCells

Rows = tuple[Any, ...]


class Kind(NamedTuple):
    name: str
    empty: Callable[[], Any]
    rows: Callable[[np.random.Generator, int], Rows]


def classified(classes: int) -> Callable[[np.random.Generator, int], Rows]:
    def rows(rng: np.random.Generator, n: int) -> Rows:
        probabilities = rng.dirichlet(np.full(classes, 0.3), n)
        probabilities[rng.random(n) < 0.1] = np.nan
        return rng.integers(0, classes, n), rng.integers(0, classes, n), probabilities

    return rows


def predicted(rng: np.random.Generator, n: int) -> Rows:
    truth, value = rng.lognormal(0, 8, n), rng.normal(0, 1e9, n)
    value[rng.random(n) < 0.1] = np.inf
    truth[rng.random(n) < 0.1] *= 1e140  # beyond 64 bits in fixed point
    return truth, value


def paired(rng: np.random.Generator, n: int) -> Rows:
    return rng.random(n) < 0.7, rng.random(n) < 0.7, rng.random(n) < 0.9, rng.uniform(-1, 1, n)


KINDS = [
    Kind("binary", lambda: ClassificationCells.empty(2), classified(2)),
    Kind("multiclass", lambda: ClassificationCells.empty(5), classified(5)),
    Kind("regression", RegressionCells.empty, predicted),
    Kind("paired", PairedCells.empty, paired),
]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
sizes = st.tuples(*[st.integers(0, 40)] * 3)
seeds = st.integers(0, 2**32)


def draw(kind: Kind, seed: int, sizes: tuple[int, ...]) -> tuple[list[Rows], Rows]:
    rng = np.random.default_rng(seed)
    parts = [kind.rows(rng, size) for size in sizes]
    return parts, tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))


def cells_of(kind: Kind, *parts: Rows) -> Any:
    cells = kind.empty()
    for rows in parts:
        cells.add(*rows)
    return cells


def merged(first: Any, *others: Any) -> Any:
    cells = first.copy()
    for other in others:
        cells.merge(other)
    return cells


@each_kind
@given(seed=seeds, sizes=sizes)
def test_merge_is_a_commutative_monoid(kind: Kind, seed: int, sizes: tuple[int, ...]) -> None:
    """Merging is associative and commutative, exactly, and empty cells change nothing."""
    a, b, c = (cells_of(kind, rows) for rows in draw(kind, seed, sizes)[0])

    assert merged(merged(a, b), c) == merged(a, merged(b, c))
    assert merged(a, b) == merged(b, a)
    assert merged(a, kind.empty()) == a == merged(kind.empty(), a)


@each_kind
@given(seed=seeds, sizes=sizes)
def test_batches_do_not_matter(kind: Kind, seed: int, sizes: tuple[int, ...]) -> None:
    """Rows added together, in batches, one by one, backwards or merged give the same cells to the bit."""
    parts, whole = draw(kind, seed, sizes)
    singly = [tuple(column[i : i + 1] for column in whole) for i in range(len(whole[0]))]
    backwards = tuple(column[::-1] for column in whole)

    expected = cells_of(kind, whole)

    assert expected == cells_of(kind, *parts)
    assert expected == cells_of(kind, *singly)
    assert expected == cells_of(kind, backwards)
    assert expected == merged(*(cells_of(kind, rows) for rows in parts))


@each_kind
@given(seed=seeds, sizes=sizes)
def test_taking_back_leaves_nothing(kind: Kind, seed: int, sizes: tuple[int, ...]) -> None:
    """Adding with sign -1 undoes adding, exactly, in whatever order: a corrected label leaves no trace."""
    (kept, wrong, _), whole = draw(kind, seed, sizes)
    cells = cells_of(kind, wrong, kept)

    cells.add(*wrong, times=-1)

    assert cells == cells_of(kind, kept)
    cells.add(*whole, times=-1)
    cells.add(*whole)
    assert cells == cells_of(kind, kept)


@each_kind
@given(seed=seeds, sizes=sizes)
def test_record_keeps_everything(kind: Kind, seed: int, sizes: tuple[int, ...]) -> None:
    """Cells survive their record going through MessagePack, also when sums are negative or beyond 64 bits."""
    cells = cells_of(kind, draw(kind, seed, sizes)[1])
    back = kind.empty()
    back.add(*draw(kind, seed + 1, sizes)[1], times=-1)
    cells.merge(back)

    record = msgspec.msgpack.decode(msgspec.msgpack.encode(cells.to_record()))

    assert cells == type(cells).from_record(record)


@each_kind
def test_copy_and_record_share_nothing(kind: Kind) -> None:
    """What happens to a copy, or to cells read from a record, does not happen to the original."""
    cells = cells_of(kind, draw(kind, 1, (20,))[1])
    copy, read = cells.copy(), type(cells).from_record(cells.to_record())
    before = cells.to_record()

    copy.merge(cells)
    read.merge(cells)

    assert before == cells.to_record()
    assert copy == read != cells


@each_kind
def test_shapes_are_checked(kind: Kind) -> None:
    """Arrays that differ in length are refused and nothing is counted."""
    cells = kind.empty()
    first, *rest = draw(kind, 1, (5,))[1]

    with pytest.raises(ValueError, match=r"expected .* got"):
        cells.add(first[:-1], *rest)
    assert cells == kind.empty()


@each_kind
def test_cells_differ_from_other_things(kind: Kind) -> None:
    """Cells are not equal to something else and, being mutable, are no dictionary keys."""
    assert kind.empty() != "cells"
    with pytest.raises(TypeError):
        hash(kind.empty())
