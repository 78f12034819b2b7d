"""Rows of named values and instances, as the arrays of a table."""

import re
from typing import Any

import numpy as np
import pytest

from server.contract.manifest import Signature, Tensor
from server.errors import InvalidRequestError
from server.protocol.rows import decode_instances, decode_rows_request, rows_to_arrays
from server.protocol.tensors import TensorLimits
from tests.server.protocol.requests import LIMITS, column, columns_of, tensors_of

TABLE = columns_of(column("a", "FP32", nullable=True), column("b", "INT64"), column("c", "BYTES", nullable=True))
GRID = Signature(
    layout="matrix",
    inputs=[Tensor(name="x", datatype="FP32", shape=[-1, 2])],
    outputs=[],
    columns=[column("a", "FP32", nullable=True), column("b", "FP32")],
)


def test_instances_are_objects_or_lists_in_column_order() -> None:
    """Both make the same arrays, even side by side; an absent member is missing, as null is."""
    instances = decode_instances(b'{"signature_name": "s", "instances": [[null, 2, "z"], {"b": 2, "c": "z"}]}')

    arrays = rows_to_arrays(instances, TABLE, LIMITS)

    np.testing.assert_array_equal(arrays["a"], np.full((2, 1), np.nan, np.float32), strict=True)
    np.testing.assert_array_equal(arrays["b"], np.array([[2], [2]]), strict=True)
    assert arrays["c"].tolist() == [["z"], ["z"]]


def test_rows_fill_a_matrix() -> None:
    """In the columns' order, whatever the order of the members."""
    arrays = rows_to_arrays([{"b": 2, "a": 1.5}, [None, 4]], GRID, LIMITS)

    np.testing.assert_array_equal(arrays["x"], np.array([[1.5, 2], [np.nan, 4]], np.float32), strict=True)


@pytest.mark.parametrize("signature", [TABLE, GRID])
def test_no_rows_are_rows(signature: Signature) -> None:
    """Zero of them have every input."""
    assert [len(array) for array in rows_to_arrays([], signature, LIMITS).values()] == [0] * len(signature.inputs)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([{"b": 1}, {"b": 1, "z": 2}], "row 1: expected columns among ['a', 'b', 'c'], got unknown 'z'"),
        ([[1, 2]], "row 0: expected 3 values, of columns ['a', 'b', 'c'], got 2"),
        ([{}], "column 'b': expected a value at element 0, got null; column 'b' had no missing values"),
        ([{"b": 1}, {"b": 2.0}], "column 'b': expected INT64 at element 1, got float 2.0"),
        ([{"b": True}], "column 'b': expected INT64 at element 0, got bool True"),
        ([{"b": [1]}], "column 'b': expected INT64 at element 0, got an array"),
        ([{"b": 2**63}], f"column 'b': expected INT64 at element 0, got int {2**63}"),
        ([{"a": 16777217, "b": 1}], "column 'a': expected an integer that FP32 holds exactly, got int 16777217"),
        ([{"a": 1e39, "b": 1}], "column 'a': expected a value within FP32, got 1e+39 at element 0"),
        ([{"a": "1", "b": 1}], "column 'a': expected FP32 at element 0, got a string"),
        ([{"b": 1}] * 101, "expected at most 100 rows"),
    ],
)
def test_rows_that_do_not_fit_are_refused(rows: list[Any], sentence: str) -> None:
    """With the row or the column, and no payload."""
    with pytest.raises(InvalidRequestError, match=re.escape(sentence)):
        rows_to_arrays(rows, TABLE, LIMITS)


def test_rows_have_a_limit_of_elements() -> None:
    """Rows times columns: 300 are taken, 301 would not be."""
    rows = [{"b": 1}] * 100

    assert len(rows_to_arrays(rows, TABLE, TensorLimits(elements=300, rows=100, nesting=8))["b"]) == 100
    with pytest.raises(InvalidRequestError, match="expected at most 299 elements in all inputs"):
        rows_to_arrays(rows, TABLE, TensorLimits(elements=299, rows=100, nesting=8))


def test_a_model_without_a_table_has_no_rows() -> None:
    """The sentence says where to send tensors."""
    with pytest.raises(InvalidRequestError, match=r"send them to POST /v2/models/.*/infer"):
        rows_to_arrays([], tensors_of(Tensor(name="x", datatype="FP32", shape=[-1])), LIMITS)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"instances": {}}', b'{"instances": [1]}', b'{"instances": ' + b"[" * 10**5]
)
def test_a_body_without_instances_is_refused(body: bytes) -> None:
    """Instances are objects or lists."""
    with pytest.raises(InvalidRequestError):
        decode_instances(body)


def test_parameters_of_rows_have_a_depth() -> None:
    """As those of tensors."""
    with pytest.raises(InvalidRequestError, match="parameters: expected at most 2 levels"):
        decode_rows_request(b'{"rows": [], "parameters": {"a": [[]]}}', 2)
