"""Inputs that are made up, and how far another machine's answers to them may be off."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from server.contract.manifest import Signature, Tensor
from server.packing.errors import ExamplesError
from server.packing.tensor_examples import made_up_inputs, record_examples


def tensors(*specs: tuple[str, str, list[int]], symbols: list[str] | None = None) -> list[Tensor]:
    return [Tensor(name=name, datatype=datatype, shape=shape, symbols=symbols or []) for name, datatype, shape in specs]


def answering(*runs: list[NDArray[Any]]) -> Callable[..., list[NDArray[Any]]]:
    """Returns what stands for a graph: run by run its outputs."""
    left = iter(runs)
    return lambda arrays: next(left)


def recorded(outputs: list[Tensor], *runs: list[NDArray[Any]]) -> float:
    """Returns the tolerance with which two runs of a graph are recorded."""
    signature = Signature(layout="tensors", inputs=tensors(("x", "FP32", [1])), outputs=outputs)
    return record_examples(signature, {"x": np.zeros(1, np.float32)}, answering(*runs)).tolerance


def test_free_dimensions_have_a_size_that_shows_which_they_are() -> None:
    """Without names the leading one is of rows; one name has one size wherever it stands."""
    unnamed = tensors(("a", "FP32", [-1, -1, 3]))
    named = tensors(("b", "FP32", [-1, -1]), symbols=["rows", "words"])
    turned = tensors(("c", "FP32", [-1, -1]), symbols=["words", "rows"])
    signature = Signature(layout="tensors", inputs=[*unnamed, *named], outputs=[])

    assert [array.shape for array in made_up_inputs(signature, 0).values()] == [(2, 8, 3), (2, 8)]
    both = Signature(layout="tensors", inputs=[*named, *turned], outputs=[])
    assert [array.shape for array in made_up_inputs(both, 0).values()] == [(2, 2), (2, 2)]


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_made_up_numbers_are_eighths(datatype: str) -> None:
    """So that JSON writes them shortly, and FP16 holds them."""
    signature = Signature(layout="tensors", inputs=tensors(("x", datatype, [50, 4])), outputs=[])

    values = made_up_inputs(signature, 1)["x"].astype(np.float64)

    assert np.array_equal(values * 8, np.round(values * 8))
    assert len(np.unique(values)) > 10


@pytest.mark.parametrize(
    ("datatype", "values", "tolerance"),
    [
        (np.float32, [0.5, -200.0], 0.02),
        (np.float16, [0.5, -200.0], 200 * 4 * 2**-10),
        (np.float64, [0.0, 0.0], 1e-7),
        (np.int64, [3, 4], 0.0),
    ],
)
def test_the_tolerance_is_by_the_scale_and_the_type(datatype: Any, values: list[float], tolerance: float) -> None:
    """A ten-thousandth of the largest number, or four roundings where they are more; never none for floats."""
    name = {np.float32: "FP32", np.float16: "FP16", np.float64: "FP64", np.int64: "INT64"}[datatype]
    output = np.array(values, dtype=datatype)

    assert recorded(tensors(("y", name, [2])), [output], [output]) == pytest.approx(tolerance)


def test_one_tolerance_is_wide_enough_for_every_output() -> None:
    """An output of integers beside one of floats narrows nothing."""
    outputs = [np.array([1]), np.array([1.0]), np.array([1000.0])]

    specs = tensors(("a", "INT64", [1]), ("b", "FP64", [1]), ("c", "FP64", [1]))
    assert recorded(specs, outputs, outputs) == pytest.approx(0.1)


def test_two_runs_may_differ_by_the_tolerance() -> None:
    """As sums in another order do; by more they may not."""
    first, near, far = (np.array([value]) for value in (1.0, 1.00009, 1.00011))
    spec = tensors(("y", "FP64", [1]))

    assert recorded(spec, [first], [near]) == pytest.approx(1e-4)
    with pytest.raises(ExamplesError, match="output 'y': expected the same answer"):
        recorded(spec, [first], [far])


@pytest.mark.parametrize(
    ("datatype", "first", "second"),
    [
        ("INT64", np.array([1, 2]), np.array([1, 3])),
        ("BYTES", np.array(["a"], object), np.array(["b"], object)),
        ("FP64", np.array([1.0, 2.0]), np.array([1.0, 2.0, 3.0])),
        ("FP64", np.array([1.0, 2.0]), np.array([1.0, np.nan])),
    ],
)
def test_an_unsteady_output_is_refused(datatype: str, first: NDArray[Any], second: NDArray[Any]) -> None:
    """Another integer, another text, another number of elements, no number the second time."""
    with pytest.raises(ExamplesError, match="output 'y': expected the same answer"):
        recorded(tensors(("y", datatype, [-1])), [first], [second])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_output_that_is_not_finite_is_the_one_that_is_named(value: float) -> None:
    """Not the one before it, which is as it should be."""
    outputs = [np.array([1.0]), np.array([value])]

    with pytest.raises(ExamplesError, match="output 'b': expected finite numbers, got one that is not"):
        recorded(tensors(("a", "FP64", [1]), ("b", "FP64", [1])), outputs, outputs)
