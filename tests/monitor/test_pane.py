import zlib
from functools import reduce
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.pane import Pane
from monitor.performance.cells import ClassificationCells, RegressionCells

GOLDEN = Path(__file__).parent / "golden"
_COUNT = st.integers(0, 2**40)


@st.composite
def cells(draw: st.DrawFn, classification: bool) -> ClassificationCells | RegressionCells | None:
    rows = draw(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), max_size=4))
    times = draw(st.sampled_from([1, -1, 7, -7]))
    if not rows:
        return None
    truth, p = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    if classification:
        found = ClassificationCells.empty(2)
        found.add(truth, (p > 0.5).astype(np.int64), np.stack([1 - p, p], axis=1), times)
        return found
    sums = RegressionCells.empty()
    sums.add(truth.astype(np.float64), p, times)
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
        weight_excess=np.array(draw(st.lists(_COUNT, min_size=3, max_size=3) | st.just([])), dtype=np.int64),
        heaviest=draw(st.integers(1, 10_000)),
        hidden=draw(st.dictionaries(st.sampled_from(["a", "b"]), _COUNT)),
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
    back.add(*row, times=-1)
    labelled, retracted = (msgspec.structs.replace(Pane.empty(), performance=found) for found in (cells, back))

    assert labelled.labelled == 1
    assert Pane.empty() == labelled.merge(retracted)


@pytest.mark.parametrize("data", [b"", b"junk", Pane.empty().to_bytes()[:-3]])
def test_damaged_bytes_are_refused(data: bytes) -> None:
    """Bytes that are no pane raise ValueError, whatever is wrong with them."""
    with pytest.raises(ValueError, match="not a pane"):
        Pane.from_bytes(data)


def golden(kind: str) -> Pane:
    """Returns the pane that the golden files of format 1 hold."""
    if kind == "empty":
        return Pane.empty()
    if kind == "regression":
        sums = RegressionCells.empty()
        sums.add(np.array([1.0, 2.0, -3.5]), np.array([1.5, 2.0, 1e6]))
        counts, classes = np.array([1, 2], dtype=np.int64), np.zeros(0, dtype=np.int64)
        return Pane(
            requests=3, rows=3, roles={"champion": 3}, counts=counts, classes=classes, scored=3, score_sum=2**70,
            performance=sums,
        )  # fmt: skip
    cells = ClassificationCells.empty(2)
    cells.add(np.array([0, 1, 1]), np.array([0, 1, 0]), np.array([[0.75, 0.25], [0.25, 0.75], [0.625, 0.375]]))
    counts, classes = np.array([0, 3, 2, 1, 0, 4, 2], dtype=np.int64), np.array([4, 2], dtype=np.int64)
    return Pane(
        requests=5, rows=6, errors=1, type_errors=1, roles={"champion": 4, "shadow": 1}, counts=counts,
        classes=classes, scored=6, score_sum=-40_000_000, performance=cells,
    )  # fmt: skip


def weighted(kind: str) -> Pane:
    """Returns the pane that the golden files of format 2 hold: the same, and what is new in that format."""
    excess = np.array([12, 0, 2**40], dtype=np.int64)
    pane = golden(kind)
    if kind == "classification":
        assert isinstance(pane.performance, ClassificationCells)
        pane.performance.add(np.array([1]), np.array([1]), np.array([[0.25, 0.75]]), 4)
    return msgspec.structs.replace(pane, weight_excess=excess, heaviest=4, hidden={"tailnum": 2**33})


@pytest.mark.parametrize("kind", ["classification", "regression", "empty"])
def test_golden_panes_of_format_1(kind: str) -> None:
    """What an earlier monitor saved is read as rows that count once each and hide nothing, and adds up as ever."""
    pane = Pane.from_bytes((GOLDEN / f"pane-{kind}.v1.bin").read_bytes())

    assert pane == golden(kind)
    assert (pane.weight_excess.size, pane.heaviest, pane.hidden) == (0, 1, {})
    assert pane.merge(weighted(kind)) == weighted(kind).merge(golden(kind))


@pytest.mark.parametrize("kind", ["classification", "regression", "empty"])
def test_golden_panes_of_format_2(kind: str) -> None:
    """What is written today, below the compression, whose bytes are zlib's business."""
    data = (GOLDEN / f"pane-{kind}.v2.bin").read_bytes()

    assert Pane.from_bytes(data) == weighted(kind)
    assert zlib.decompress(weighted(kind).to_bytes()) == zlib.decompress(data)


def test_a_pane_of_a_newer_format_is_refused() -> None:
    """An older monitor says so instead of leaving out what it does not know."""
    newer = zlib.compress(msgspec.msgpack.encode({"format": 3}))

    with pytest.raises(ValueError, match="expected a pane of format 2 or below"):
        Pane.from_bytes(newer)
