"""The codec against a signature of every kind of input, without a server."""

import itertools
import math
import re
import tracemalloc
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.contract.manifest import Column, Signature, Tensor
from server.errors import InvalidRequestError
from server.protocol.datatypes import DATATYPES
from server.protocol.json_codec import decode_request, encode_tensor
from server.protocol.rows import decode_rows_request, rows_to_arrays
from server.protocol.tensors import TensorLimits, decode_inputs

LIMIT = 1000
LIMITS = TensorLimits(elements=LIMIT, rows=LIMIT, nesting=8)
FIRST = {"BYTES": '""', "BOOL": "false"}
INTEGERS = {name: np.iinfo(kind.dtype) for name, kind in DATATYPES.items() if kind.element is int}


def column_of(datatype: str, nullable: bool = False) -> Signature:
    """Returns the signature of one column `x`."""
    kind = "categorical" if datatype == "BYTES" else "numeric"
    return Signature(
        layout="columns",
        inputs=[Tensor(name="x", datatype=datatype, shape=[-1, 1])],
        outputs=[],
        columns=[Column(name="x", datatype=datatype, kind=kind, nullable=nullable)],
    )


def matrix_of(columns: int) -> Signature:
    """Returns the signature of one matrix `x`, in which only the first column may be missing."""
    return Signature(
        layout="matrix",
        inputs=[Tensor(name="x", datatype="FP32", shape=[-1, columns])],
        outputs=[],
        columns=[
            Column(name=f"c{place}", datatype="FP32", kind="numeric", nullable=place == 0) for place in range(columns)
        ],
    )


def decode(signature: Signature, data: str, shape: str, datatype: str | None = None, members: str = "") -> Any:
    """Returns the array of a request whose one input is written as given."""
    datatype = datatype or signature.inputs[0].datatype
    sent = f'{{"inputs": [{{"name": "x", "shape": {shape}, "datatype": "{datatype}", "data": {data}{members}}}]}}'
    return decode_inputs(decode_request(sent.encode(), 8).inputs, None, signature, LIMITS).arrays["x"]


def values_of(datatype: str) -> st.SearchStrategy[Any]:
    """Returns every value that a datatype has."""
    if datatype in INTEGERS:
        return st.integers(INTEGERS[datatype].min, INTEGERS[datatype].max)
    width = {"FP32": 32, "FP64": 64}.get(datatype)
    if width is not None:
        return st.floats(width=width, allow_nan=False, allow_infinity=False)
    return st.text() if datatype == "BYTES" else st.booleans()


@pytest.mark.parametrize("datatype", sorted(DATATYPES.keys() - {"FP16"}))
@given(st.data())
def test_every_value_of_every_datatype_survives(datatype: str, data: st.DataObject) -> None:
    """As (rows,) or (rows, 1), flat or nested, the graph gets (rows, 1) of what was sent, and so does the client."""
    values = data.draw(st.lists(values_of(datatype), max_size=20))
    nested, flat_shape = data.draw(st.booleans()), data.draw(st.booleans())
    written = [[value] for value in values] if nested and not flat_shape else values
    shape = [len(values)] if flat_shape else [len(values), 1]

    array = decode(column_of(datatype), msgspec.json.encode(written).decode(), str(shape))
    answer = msgspec.json.decode(encode_tensor("x", datatype, array))

    assert (array.shape, array.dtype) == ((len(values), 1), DATATYPES[datatype].dtype)
    assert array.ravel().tolist() == values
    assert answer == {"name": "x", "shape": [len(values), 1], "datatype": datatype, "data": values}


@given(st.lists(st.integers(0, 3), min_size=2, max_size=2), st.data())
def test_data_of_another_size_is_refused(shape: list[int], data: st.DataObject) -> None:
    """Flat data is taken exactly when it has as many elements as its shape says."""
    count = data.draw(st.integers(0, 10))
    signature = matrix_of(shape[1])

    if count == math.prod(shape):
        assert decode(signature, str([0] * count), str(shape)).shape == tuple(shape)
    else:
        with pytest.raises(InvalidRequestError, match=f"expected {math.prod(shape)} elements .* got {count}"):
            decode(signature, str([0] * count), str(shape))


@pytest.mark.parametrize("datatype", INTEGERS)
def test_integers_out_of_range_are_refused_at_both_ends(datatype: str) -> None:
    """One below the least and one above the greatest; numpy would wrap them."""
    for value in (int(INTEGERS[datatype].min) - 1, int(INTEGERS[datatype].max) + 1, 10**40):
        with pytest.raises(InvalidRequestError, match=f"expected {datatype} at element 1, got int {value}"):
            decode(column_of(datatype), f"[0, {value}]", "[2]")


@pytest.mark.parametrize(
    ("datatype", "written", "got"),
    [
        *itertools.product(["INT64", "UINT8"], ["1.0", "1e2"], [re.escape("got float 1")]),
        *itertools.product(["INT64", "UINT8", "FP32", "FP64", "BYTES"], ["true"], ["got bool True"]),
        *itertools.product(["INT64", "UINT8", "FP32", "FP64", "BOOL"], ['"1"'], ["got a string$"]),
        ("BOOL", "1", "got int 1"),
        ("BYTES", "1.5", "got float 1.5"),
        ("FP32", "{}", "got an object"),
        ("BYTES", '{"secret": 1}', "got an object$"),
    ],
)
def test_a_value_of_another_type_is_refused(datatype: str, written: str, got: str) -> None:
    """No type is read as another, 1.0 not as an integer either; a payload is not echoed."""
    with pytest.raises(InvalidRequestError, match=rf"input 'x': expected {datatype} at element 1, {got}"):
        decode(column_of(datatype), f"[{FIRST.get(datatype, '0')}, {written}]", "[2]")


@pytest.mark.parametrize("declared", ["FP64", "FP32", "INT64", "UINT8"])
def test_numbers_declared_as_another_type_are_read_as_floats(declared: str) -> None:
    """numpy's default is FP64, and a client's integers are integers."""
    array = decode(column_of("FP32"), "[1, 2]", "[2]", declared)

    assert (array.dtype, array.ravel().tolist()) == (np.float32, [1.0, 2.0])


@pytest.mark.parametrize(
    ("model", "declared"), [("INT64", "FP64"), ("FP32", "BOOL"), ("FP32", "BYTES"), ("BYTES", "?")]
)
def test_no_other_declared_type_is_taken(model: str, declared: str) -> None:
    """Only numbers, and only into floats."""
    with pytest.raises(InvalidRequestError, match=f"expected datatype {model}, got '{re.escape(declared)}'"):
        decode(column_of(model), "[]", "[0]", declared)


def test_fp16_is_for_binary_data() -> None:
    """JSON has no half-precision numbers."""
    with pytest.raises(InvalidRequestError, match="FP16 is for binary data only"):
        decode(column_of("FP32"), "[1]", "[1]", "FP16")


@pytest.mark.parametrize("value", ["3.4028236e38", "-1e39", "1" + "0" * 39])
@pytest.mark.parametrize("others", ["", "null, "])
def test_what_overflows_a_float_is_refused(value: str, others: str) -> None:
    """Finite as sent, infinite in float32; the same beside a missing value, which takes the slower way."""
    rows = 2 if others else 1
    with pytest.raises(InvalidRequestError, match=f"expected a value within FP32, got .* at element {rows - 1}"):
        decode(column_of("FP32", nullable=True), f"[{others}{value}]", f"[{rows}]")


def test_the_greatest_floats_are_taken() -> None:
    """The bound itself is a value."""
    greatest = float(np.finfo(np.float32).max)

    assert decode(column_of("FP32"), f"[{greatest}, {-greatest}]", "[2]").ravel().tolist() == [greatest, -greatest]


@pytest.mark.parametrize("missing", ["null", "NaN"])
def test_missing_values_are_taken_only_where_the_column_allows_them(missing: str) -> None:
    """In a matrix by the column they stand in, by row and by name."""
    array = decode(matrix_of(2), f"[[1, 2], [{missing}, 4]]", "[2, 2]")

    assert math.isnan(array[1, 0])
    with pytest.raises(InvalidRequestError, match="at element 3, got null; column 'c1' had no missing values"):
        decode(matrix_of(2), f"[[1, 2], [3, {missing}]]", "[2, 2]")
    with pytest.raises(InvalidRequestError, match="column 'x' had no missing values"):
        decode(column_of("INT64"), f"[{missing}]", "[1]")


def test_a_missing_string_is_an_empty_one() -> None:
    """What the packed pipeline was given for it."""
    assert decode(column_of("BYTES", nullable=True), '["a", null]', "[2]").ravel().tolist() == ["a", ""]


@pytest.mark.parametrize("infinite", ["Infinity", "-Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize("others", ["", "NaN, "])
def test_infinities_are_refused_in_every_form(infinite: str, others: str) -> None:
    """Also where missing values are allowed, and beside a bare NaN."""
    rows = 2 if others else 1
    with pytest.raises(InvalidRequestError, match=r"got -?Infinity|got -?1e999|out of range"):
        decode(column_of("FP32", nullable=True), f"[{others}{infinite}]", f"[{rows}]")


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        ("[[1, 2], [3]]", "[2, 2]"),
        ("[[1, 2], 3, 4]", "[2, 2]"),
        ("[1, [2, 3, 4]]", "[2, 2]"),
        ("[[1, 2, 3], [4]]", "[2, 2]"),
        ("[[[1], [2]], [[3], [4]]]", "[2, 2]"),
        ("[[[1, 2], [3, 4]]]", "[2, 2]"),
        ("[[]]", "[0, 2]"),
        ("[[1, 2]]", "[1, 2, 1]"),
        ("{}", "[1, 2]"),
        ('"abcd"', "[2, 2]"),
        ("null", "[1, 2]"),
    ],
)
def test_ragged_or_otherwise_nested_data_is_refused(data: str, shape: str) -> None:
    """Nesting follows the shape at every level, or there is none."""
    with pytest.raises(InvalidRequestError, match="input 'x': expected"):
        decode(matrix_of(2), data, shape)


@pytest.mark.parametrize("shape", ["[]", "[1]", "[-1, 2]", "[2, -1]", "[1, 3]", "[1, 1, 2]"])
def test_a_shape_that_is_not_the_signatures_is_refused(shape: str) -> None:
    """Negative, of another rank, or of another number of columns."""
    with pytest.raises(InvalidRequestError, match=re.escape("expected shape [-1, 2], got " + shape)):
        decode(matrix_of(2), "[1, 2]", shape)


@pytest.mark.parametrize("shape", ["[1.0, 2]", "[true, 2]", '["1", 2]', "1", "null"])
def test_a_shape_that_is_none_is_refused(shape: str) -> None:
    """Dimensions are integers in an array."""
    with pytest.raises(InvalidRequestError, match=r"shape"):
        decode(matrix_of(2), "[1, 2]", shape)


@pytest.mark.parametrize("size", [10**9, 2**62, 2**63, 10**30])
@pytest.mark.parametrize("members", ['"data": []', '"parameters": {}'])
def test_a_huge_dimension_costs_nothing(size: int, members: str) -> None:
    """Refused before anything of that size is made, data or none; a product that overflows 64 bits too."""
    inputs = f'[{{"name": "x", "shape": [{size}, 30], "datatype": "FP32", {members}}}]'
    tracemalloc.start()

    with pytest.raises(InvalidRequestError, match=f"expected at most {LIMIT} elements in all inputs, got more"):
        decode_inputs(msgspec.Raw(inputs.encode()), None, matrix_of(30), LIMITS)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 100_000


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
@pytest.mark.parametrize("member", ["id", "parameters", "inputs", "outputs", "unknown"])
def test_deep_nesting_is_refused_wherever_it_stands(opening: str, member: str) -> None:
    """100,000 deep, closed or not, in members that are read and in those that are skipped."""
    closing = {"[": "]", '{"a":': "}", '[{"a":': "}]"}[opening]
    for end in ("", "1" + closing * 100_000):
        body = f'{{"inputs": [], "{member}": ' + opening * 100_000 + end + ("}" if end else "")
        with pytest.raises(InvalidRequestError):
            request = decode_request(body.encode(), 8)
            decode_inputs(request.inputs, None, matrix_of(2), LIMITS)


def test_deep_nesting_behind_a_bare_nan_is_refused() -> None:
    """Which another parser reads."""
    with pytest.raises(InvalidRequestError, match="expected JSON, got a body that is not"):
        decode_request(b'{"inputs": [NaN], "id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 8)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ("[]", r"input 'x' is missing: expected \['x'\], got \[\]"),
        ('[{"name": "y", "shape": [0, 2], "datatype": "FP32", "data": []}]', "input 'x' is missing"),
        ('[{"name": "x", "shape": [0, 2], "datatype": "FP32"}]', "expected data, got none"),
        ('[{"name": "x", "datatype": "FP32", "data": []}]', "`shape`"),
        ('[{"shape": [0, 2], "datatype": "FP32", "data": []}]', "`name`"),
        ('[{"name": "x", "shape": [0, 2], "data": []}]', "`datatype`"),
        ("null", "got `null`"),
        ("{}", "got `object`"),
    ],
)
def test_inputs_that_are_not_the_signatures_are_refused(inputs: str, sentence: str) -> None:
    """Each with a sentence that names it."""
    with pytest.raises(InvalidRequestError, match=sentence):
        decode_inputs(msgspec.Raw(inputs.encode()), None, matrix_of(2), LIMITS)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [("xy", "input 'y' is unknown"), ("xx", "input 'x' is given twice"), ("xyy", "input 'y' is unknown")],
)
def test_inputs_too_many_are_refused(names: str, sentence: str) -> None:
    """An input the model does not have, or one twice."""
    inputs = [{"name": name, "shape": [0, 2], "datatype": "FP32", "data": []} for name in names]
    with pytest.raises(InvalidRequestError, match=sentence):
        decode_inputs(msgspec.Raw(msgspec.json.encode(inputs)), None, matrix_of(2), LIMITS)


def test_null_and_unknown_members_are_skipped_and_the_last_of_two_wins() -> None:
    """What plain dumps send, and what JSON leaves open."""
    members = ', "parameters": null, "novel": {"a": [1]}, "data": [7]'

    request = decode_request(
        b'{"inputs": 1, "id": "a", "id": "b", "outputs": null, "parameters": null, "inputs": []}', 8
    )

    assert (request.id, request.outputs, request.parameters, bytes(request.inputs)) == ("b", None, None, b"[]")
    assert decode(column_of("INT64"), "[6]", "[1]", members=members).tolist() == [[7]]


@pytest.mark.parametrize(
    "body", [b"", b" ", b"{", b"[]", b"1", b"{}x", b"\xff", b'{"id": "\xff"}', b'{"id": "\\ud800"}']
)
@pytest.mark.parametrize("decoder", [decode_request, decode_rows_request])
def test_what_is_no_request_is_refused(decoder: Any, body: bytes) -> None:
    """Not JSON, not UTF-8, not an object."""
    with pytest.raises(InvalidRequestError):
        decoder(body, 8)


@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:NaInfty1e9x \\', max_size=60).map(str.encode))
def test_no_body_is_a_fault_of_ours(body: bytes) -> None:
    """Any bytes are a request or an InvalidRequestError."""
    for read in (
        lambda: decode_inputs(msgspec.Raw(body), None, matrix_of(2), LIMITS),
        lambda: decode_rows_request(body, 8),
    ):
        try:
            read()
        except InvalidRequestError as error:
            assert str(error)


@given(st.lists(st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=10))
def test_rows_and_tensors_are_two_forms_of_one(values: list[float | None]) -> None:
    """The same values as rows and as a tensor make the same array; an absent member is a null one."""
    signature = column_of("FP32", nullable=True)
    rows = [{} if value is None else {"x": value} for value in values]

    by_rows = rows_to_arrays(rows, signature, LIMITS)["x"]
    by_tensor = decode(signature, msgspec.json.encode(values).decode(), f"[{len(values)}]")

    np.testing.assert_array_equal(by_rows, by_tensor)
    assert by_rows.dtype == by_tensor.dtype
