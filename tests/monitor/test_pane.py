from functools import reduce

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.pane import Pane
from monitor.performance.cells import ClassificationCells, RegressionCells

_COUNT = st.integers(0, 2**40)


@st.composite
def cells(draw: st.DrawFn, classification: bool) -> ClassificationCells | RegressionCells | None:
    rows = draw(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), max_size=4))
    sign = draw(st.sampled_from([1, -1]))
    if not rows:
        return None
    truth, p = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    if classification:
        found = ClassificationCells.empty(2)
        found.add(truth, (p > 0.5).astype(np.int64), np.stack([1 - p, p], axis=1), sign)
        return found
    sums = RegressionCells.empty()
    sums.add(truth.astype(np.float64), p, sign)
    return sums


@st.composite
def panes(draw: st.DrawFn, classification: bool) -> Pane:
    if draw(st.integers(0, 5)) == 0:
        return Pane.empty()
    return Pane(
        requests=draw(_COUNT),
        rows=draw(_COUNT),
        errors=draw(_COUNT),
        type_errors=draw(_COUNT),
        roles=draw(st.dictionaries(st.sampled_from(["champion", "challenger", "shadow"]), _COUNT)),
        counts=np.array(draw(st.lists(_COUNT, min_size=5, max_size=5)), dtype=np.int64),
        classes=np.array(draw(st.lists(_COUNT, min_size=2, max_size=2)), dtype=np.int64),
        scored=draw(_COUNT),
        score_sum=draw(st.integers(-(2**80), 2**80)),
        performance=draw(cells(classification)),
    )


_SAME_KIND = st.booleans().flatmap(lambda kind: st.lists(panes(kind), min_size=3, max_size=5))


@given(_SAME_KIND)
def test_merge_is_associative_commutative_and_has_an_empty_element(members: list[Pane]) -> None:
    """Panes are a commutative monoid, exactly, retracted labels included."""
    a, b, c = members[:3]

    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(b) == b.merge(a)
    assert a.merge(Pane.empty()) == a == Pane.empty().merge(a)
    assert reduce(Pane.merge, members) == reduce(Pane.merge, reversed(members))


@given(_SAME_KIND)
def test_bytes_hold_the_whole_pane(members: list[Pane]) -> None:
    """What is read back from bytes is the pane, and merging leaves its parts as they were."""
    a, b = members[:2]
    before = a.to_bytes(), b.to_bytes()

    a.merge(b)

    assert before == (a.to_bytes(), b.to_bytes())
    assert Pane.from_bytes(a.to_bytes()) == a
    assert Pane.from_bytes(a.merge(b).to_bytes()) == a.merge(b)


def test_a_label_taken_back_leaves_nothing() -> None:
    """A pane whose only label was retracted is the pane that never had one."""
    cells, back = ClassificationCells.empty(2), ClassificationCells.empty(2)
    row = (np.array([1]), np.array([1]), np.array([[0.2, 0.8]]))
    cells.add(*row)
    back.add(*row, sign=-1)
    labelled, retracted = (msgspec.structs.replace(Pane.empty(), performance=found) for found in (cells, back))

    assert labelled.labelled == 1
    assert Pane.empty() == labelled.merge(retracted)


@pytest.mark.parametrize("data", [b"", b"junk", Pane.empty().to_bytes()[:-3]])
def test_damaged_bytes_are_refused(data: bytes) -> None:
    """Bytes that are no pane raise ValueError, whatever is wrong with them."""
    with pytest.raises(ValueError, match="not a pane"):
        Pane.from_bytes(data)
