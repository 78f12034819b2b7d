"""Several requests in one run: what each is told is what it would have been told alone."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.contract.manifest import Signature, Tensor
from server.errors import ExecutionError
from server.execution.session import Version, load_version
from server.execution.stacking import cut, stack, stacks
from server.protocol.datatypes import DATATYPES, Arrays

versions = cache(load_version)


@st.composite
def flights(draw: st.DrawFn) -> Arrays:
    """Returns one request to `flight`: strings, numbers that may be missing, no rows at all."""
    rows = draw(st.integers(0, 4))

    def column(values: st.SearchStrategy[Any], dtype: Any) -> Any:
        given = draw(st.lists(values, min_size=rows, max_size=rows))
        return np.array(given, dtype=dtype).reshape(-1, 1)

    numbers = st.floats(-1000, 1000, width=32)
    return {
        "carrier": column(st.sampled_from(["AA", "UA", "DL", "", "a longer name", "Ü"]), np.object_),
        "temp": column(numbers | st.just(float("nan")), np.float32),
        "hour": column(st.integers(-5, 30), np.int64),
        "distance": column(numbers, np.float32),
    }


@st.composite
def grids(draw: st.DrawFn) -> Arrays:
    """Returns one request to `grid`, whose layout is a matrix."""
    rows = draw(st.integers(0, 4))
    values = draw(st.lists(st.floats(-50, 50, width=32), min_size=2 * rows, max_size=2 * rows))
    return {"input": np.array(values, dtype=np.float32).reshape(rows, 2)}


def check(version: Version, requests: list[Arrays]) -> None:
    """Compares the requests' answers from one run with those from a run each."""
    counts = [len(next(iter(request.values()))) for request in requests]

    parts = cut(version.run(stack(requests)), counts)

    assert len(requests) == len(parts)
    for request, part in zip(requests, parts, strict=True):
        alone = version.run(request)
        assert alone.keys() == part.keys()
        for name, expected in alone.items():
            got = part[name]
            assert (expected.shape, expected.dtype) == (got.shape, got.dtype)
            if expected.dtype.kind == "f":
                np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
            else:
                assert expected.tolist() == got.tolist()


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(requests=st.lists(flights(), min_size=1, max_size=8))
def test_a_stack_of_columns_answers_as_each_alone(packed: Path, requests: list[Arrays]) -> None:
    """Strings, missing values and requests of no rows among them."""
    check(versions(packed / "flight" / "1"), requests)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(requests=st.lists(grids(), min_size=1, max_size=8))
def test_a_stack_of_matrices_answers_as_each_alone(packed: Path, requests: list[Arrays]) -> None:
    """Every output comes back in the shape and dtype that the request alone would get."""
    check(versions(packed / "grid" / "1"), requests)


@given(
    rows=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    tail=st.sampled_from([(), (1,), (3,), (2, 3)]),
    datatype=st.sampled_from(sorted(DATATYPES)),
)
def test_what_is_stacked_and_cut_is_as_it_was(rows: list[int], tail: tuple[int, ...], datatype: str) -> None:
    """Of every datatype and shape, each request gets its own elements back, in their dtype."""
    dtype = DATATYPES[datatype].dtype
    size = sum(rows) * int(np.prod(tail))
    values = np.array([str(i) for i in range(size)] if datatype == "BYTES" else np.arange(size) % 7, dtype=dtype)
    whole = values.reshape(sum(rows), *tail)
    parts = cut({"x": whole}, rows)

    again = stack(parts)

    assert rows == [len(part["x"]) for part in parts]
    assert (whole.dtype, whole.shape, whole.tolist()) == (again["x"].dtype, again["x"].shape, again["x"].tolist())


@pytest.mark.parametrize("got", [np.zeros((3, 1)), np.zeros(()), np.zeros((5, 1))])
def test_outputs_of_other_rows_than_the_inputs_are_given_to_nobody(got: "np.ndarray[Any, Any]") -> None:
    """A graph that drops or adds rows: whose the others are, nobody can say."""
    with pytest.raises(ExecutionError, match="output 'value': expected 4 rows like the inputs"):
        cut({"label": np.zeros(4), "value": got}, [1, 3])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float64)),
        (np.zeros((1, 1), np.int64), np.zeros((1, 1), np.float64)),
        (np.zeros((1, 1), np.float32), np.zeros(1, np.float32)),
        (np.zeros((1, 2), np.float32), np.zeros((1, 3), np.float32)),
    ],
)
def test_arrays_that_differ_in_kind_are_not_stacked(first: Any, second: Any) -> None:
    """Nothing is converted on the way: (rows,) beside (rows, 1) or another dtype is refused."""
    with pytest.raises((ValueError, TypeError)):
        stack([{"x": first}, {"x": second}])


def signature(layout: Any, shape: list[int]) -> Signature:
    tensor = Tensor(name="x", datatype="FP32", shape=[-1, 1])
    return Signature(layout=layout, inputs=[tensor], outputs=[tensor, Tensor(name="y", datatype="FP32", shape=shape)])


@pytest.mark.parametrize(
    ("layout", "shape", "expected"),
    [
        ("columns", [-1], True),
        ("matrix", [-1, 3], True),
        ("columns", [1, 3], False),
        ("matrix", [], False),
        ("tensors", [-1, 3], False),
    ],
)
def test_only_a_tables_rows_share_a_run(layout: str, shape: list[int], expected: bool) -> None:
    """A graph of tensors may mix what it is given, and an output of fixed rows cannot be cut."""
    assert stacks(signature(layout, shape)) == expected
