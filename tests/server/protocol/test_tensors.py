"""Tensors through both codecs: what one says the other says, and both refuse the same."""

import base64
import math
import re
import struct
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from server.contract.manifest import Signature, Tensor
from server.errors import InvalidRequestError, TiltyardError
from server.protocol.datatypes import DATATYPES, converts
from server.protocol.json_codec import decode_request
from server.protocol.status import status_of
from server.protocol.tensors import (
    SelectedOutput,
    TensorLimits,
    decode_raw,
    encode_answer,
    encode_outputs,
    select_outputs,
)
from tests.server.protocol.requests import (
    FORMS,
    LIMITS,
    WRITERS,
    as_binary,
    as_json,
    body_of,
    column,
    columns_of,
    read,
    send,
    tensors_of,
)

BOUNDED = settings(max_examples=40, deadline=None)
FLOATS = {"FP16": 16, "FP32": 32, "FP64": 64}
NUMBERS = sorted(DATATYPES.keys() - {"BOOL", "BYTES"})


def elements_of(datatype: str) -> st.SearchStrategy[Any]:
    kind = DATATYPES[datatype]
    if datatype in FLOATS:
        return st.floats(width=FLOATS[datatype], allow_nan=False, allow_infinity=False)  # type: ignore[arg-type]
    if kind.element is int:
        return st.integers(int(kind.least), int(kind.greatest))
    return st.text() if kind.element is str else st.booleans()


def arrays_of(datatype: str) -> st.SearchStrategy[np.ndarray]:
    """Returns arrays of any small shape, scalars and empty ones included."""
    shapes = npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    return npst.arrays(DATATYPES[datatype].dtype, shapes, elements=elements_of(datatype), fill=st.nothing())


def free(name: str, datatype: str, rank: int) -> Tensor:
    return Tensor(name=name, datatype=datatype, shape=[-1] * rank)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("datatype", sorted(DATATYPES))
@BOUNDED
@given(st.data())
def test_every_array_survives_both_ways(datatype: str, form: str, data: st.DataObject) -> None:
    """A client's tensor of any type and shape reaches the graph bit by bit, and comes back so as an answer."""
    array = data.draw(arrays_of(datatype))
    spec = free("x", datatype, array.ndim)
    signature = tensors_of(spec, outputs=())
    binary = form == "binary"
    if datatype == "FP16" and not binary:
        with pytest.raises(InvalidRequestError, match="FP16 is for binary data only"):
            send(form, datatype, array, signature)
        return

    got = send(form, datatype, array, signature)
    tensors = encode_outputs({"x": got}, [spec], frozenset({"x"} if binary else ()))
    answer = encode_answer("m", "1", "id", {"x": got}, tensors, [spec], [SelectedOutput("x", binary)])

    assert (got.dtype, got.shape) == (array.dtype, array.shape)
    assert got.tobytes() == array.tobytes() if datatype != "BYTES" else got.tolist() == array.tolist()
    head = msgspec.json.decode(answer.body[: answer.header_length])
    [output] = head["outputs"]
    again = body_of(({**output, "name": "x"}, answer.body[answer.header_length :] if binary else b""))
    np.testing.assert_array_equal(read(*again, signature).arrays["x"], array, strict=True)


@BOUNDED
@given(st.data())
def test_both_codecs_convert_alike(data: st.DataObject) -> None:
    """The same numbers of one type, for a model of another, become the same array in both codecs, or are refused."""
    datatype, wanted = data.draw(st.sampled_from(NUMBERS)), data.draw(st.sampled_from(NUMBERS))
    values = data.draw(st.lists(elements_of(datatype), max_size=60))
    array = np.array(values, DATATYPES[datatype].dtype)
    signature = tensors_of(free("x", wanted, 1))

    outcomes: list[Any] = []
    for form in FORMS:
        try:
            outcomes.append(send(form, datatype, array, signature).tobytes())
        except InvalidRequestError as error:
            outcomes.append(re.sub(r"(-?inf|nan|got \S+)", "", str(error)))

    assert (datatype == "FP16" and "FP16 is for" in outcomes[0]) or outcomes[0] == outcomes[1]
    if not converts(datatype, wanted):
        assert f"expected datatype {wanted}" in outcomes[1]


TAKEN = [
    ("INT64", "UINT8", [0, 255]),
    ("UINT64", "INT8", [0, 127]),
    ("UINT64", "INT64", [2**63 - 1]),
    ("INT64", "UINT64", [2**63 - 1]),
    ("INT8", "INT64", [-128]),
    ("INT32", "FP32", [2**24, -(2**24), 2**24 + 2, 2**31 - 2**7]),
    ("INT64", "FP32", [-(2**63)]),
    ("INT64", "FP64", [-(2**63), 2**53, 2**53 + 2]),
    ("UINT64", "FP64", [2**63 + 2**11]),
    ("INT64", "FP16", [2048, -65504, 4096]),
    ("FP64", "FP32", [0.1, 3.4028234663852886e38, 16777217.0, 1e-300]),
    ("FP32", "FP64", [0.1]),
    ("FP64", "FP16", [65504, 65519.0]),
]
REFUSED = [
    ("INT64", "UINT8", [0, 256], "a value within UINT8, got 256 at element 1"),
    ("INT64", "UINT64", [0, -1], "a value within UINT64, got -1 at element 1"),
    ("UINT64", "INT64", [0, 2**63], f"a value within INT64, got {2**63} at element 1"),
    ("INT16", "INT8", [0, -129], "a value within INT8, got -129 at element 1"),
    ("INT64", "FP32", [0, 16777217], "an integer that FP32 holds exactly, got 16777217 at element 1"),
    ("INT64", "FP32", [0, -16777217], "an integer that FP32 holds exactly, got -16777217 at element 1"),
    ("INT64", "FP64", [0, 2**53 + 1], "an integer that FP64 holds exactly, got 9007199254740993 at element 1"),
    ("UINT64", "FP64", [0, 2**64 - 1], "an integer that FP64 holds exactly, got 18446744073709551615 at element 1"),
    ("INT64", "FP16", [0, 2049], "an integer that FP16 holds exactly, got 2049 at element 1"),
    ("INT64", "FP16", [0, 65536], "an integer that FP16 holds exactly, got 65536 at element 1"),
    ("FP64", "FP32", [0, 3.5e38], r"a value within FP32, got 3.5e\+38 at element 1"),
    ("FP64", "FP32", [0, -1e300], r"a value within FP32, got -1e\+300 at element 1"),
    ("FP32", "FP16", [0, 65520], "a value within FP16, got 65520.0 at element 1"),
    ("FP32", "INT64", [0], "datatype INT64, got 'FP32'"),
    ("BOOL", "UINT8", [0], "datatype UINT8, got 'BOOL'"),
    ("UINT8", "BOOL", [0], "datatype BOOL, got 'UINT8'"),
    ("INT64", "BYTES", [0], "datatype BYTES, got 'INT64'"),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("many", [1, 100], ids=["few", "many"])
@pytest.mark.parametrize(("datatype", "wanted", "values"), TAKEN)
def test_numbers_convert_where_nothing_but_rounding_is_lost(
    datatype: str, wanted: str, values: list[Any], many: int, form: str
) -> None:
    """Integers into other widths and floats where exact, floats into the model's float type."""
    array = np.array(values * many, DATATYPES[datatype].dtype)

    got = send(form, datatype, array, tensors_of(free("x", wanted, 1)), TensorLimits(1000, 1000, 8))

    assert got.dtype == DATATYPES[wanted].dtype
    np.testing.assert_array_equal(got, array.astype(DATATYPES[wanted].dtype))
    if DATATYPES[datatype].element is int:
        assert [int(value) for value in got] == values * many


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("datatype", "wanted", "values", "sentence"), REFUSED)
def test_numbers_that_would_be_others_are_refused(
    datatype: str, wanted: str, values: list[Any], sentence: str, form: str
) -> None:
    """With the element that would be."""
    array = np.array(values, DATATYPES[datatype].dtype)
    with pytest.raises(InvalidRequestError, match=f"^input 'x': expected {sentence}$"):
        send(form, datatype, array, tensors_of(free("x", wanted, 1)))


@pytest.mark.parametrize(
    ("datatype", "written", "sentence"),
    [
        ("FP32", "16777217", "an integer that FP32 holds exactly, got int 16777217 at element 1"),
        ("FP32", "-16777219", "an integer that FP32 holds exactly, got int -16777219 at element 1"),
        ("FP64", "9007199254740993", "an integer that FP64 holds exactly, got int 9007199254740993 at element 1"),
        ("FP64", "1" + "0" * 400, "int beyond 256 bits|out of range"),
        ("FP32", "1" + "0" * 39, r"a value within FP32, got int 1\d+ at element 1"),
    ],
)
@pytest.mark.parametrize("before", ["0.5", "null"])
@pytest.mark.parametrize("nested", [False, True])
def test_an_integer_in_json_is_a_float_only_where_exact(
    datatype: str, written: str, sentence: str, before: str, nested: bool
) -> None:
    """Flat, nested, and beside a missing value; as a float literal the same number rounds."""
    signature = columns_of(column("x", datatype, nullable=True))

    def ask(literal: str) -> Any:
        data = f"[[{before}], [{literal}]]" if nested else f"[{before}, {literal}]"
        tensor = f'{{"name": "x", "shape": [2, 1], "datatype": "{datatype}", "data": {data}}}'
        return read(f'{{"inputs": [{tensor}]}}'.encode(), None, signature).arrays["x"]

    with pytest.raises(InvalidRequestError, match=sentence):
        ask(written)
    if len(written) < 20:
        assert ask(written + ".0")[1, 0] == DATATYPES[datatype].dtype.type(float(written))
        assert ask("16777218")[1, 0] == 16777218


@pytest.mark.parametrize("count", [1, 41])
@pytest.mark.parametrize(("datatype", "integer"), [("FP32", 2**24 + 1), ("FP64", 2**53 + 1), ("FP64", -(2**53) - 1)])
def test_an_inexact_integer_is_found_among_few_and_many(datatype: str, integer: int, count: int) -> None:
    """The next float, which the JSON decoder would make of it, is within the bound of FP64."""
    tensor = {"name": "x", "shape": [count], "datatype": datatype, "data": [0] * (count - 1) + [integer]}
    with pytest.raises(InvalidRequestError, match=f"holds exactly, got int {integer} at element {count - 1}"):
        read(*body_of((tensor, b"")), tensors_of(free("x", datatype, 1)))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_missing_values_only_where_the_column_allows_them(datatype: str, form: str) -> None:
    """null, or NaN's bits; never in a model that is no table's; infinities nowhere."""
    array = np.array([1, np.nan], DATATYPES[datatype].dtype)

    got = send(form, datatype, array, columns_of(column("x", "FP32", nullable=True)))

    assert (got[0, 0], math.isnan(got[1, 0])) == (1, True)
    with pytest.raises(InvalidRequestError, match=r"at element 1, got (null|NaN); column 'x' had no missing values"):
        send(form, datatype, array, columns_of(column("x", "FP32")))
    with pytest.raises(InvalidRequestError, match=r"expected a value at element 1, got (null|NaN)$"):
        send(form, datatype, array, tensors_of(free("x", "FP32", 1)))


@pytest.mark.parametrize("form", FORMS)
def test_missing_values_of_a_matrix_are_its_columns(form: str) -> None:
    """By the column that an element stands in."""
    signature = Signature(
        layout="matrix",
        inputs=[Tensor(name="x", datatype="FP32", shape=[-1, 2])],
        outputs=[],
        columns=[column("a", "FP32"), column("b", "FP32", nullable=True)],
    )

    assert math.isnan(send(form, "FP32", np.array([[1, 2], [3, np.nan]], np.float32), signature)[1, 1])
    with pytest.raises(InvalidRequestError, match=r"at element 2, got .*; column 'a' had no missing values"):
        send(form, "FP32", np.array([[1, np.nan], [np.nan, 4]], np.float32), signature)


@pytest.mark.parametrize("infinite", [np.inf, -np.inf])
def test_infinite_bits_are_refused(infinite: float) -> None:
    """Also where a value may be missing, and behind one that is."""
    array = np.array([np.nan, infinite], np.float32)
    with pytest.raises(InvalidRequestError, match=r"expected finite numbers, got -?inf at element 1; send NaN"):
        send("binary", "FP32", array, columns_of(column("x", "FP32", nullable=True)))


@pytest.mark.parametrize("datatype", ["INT64", "BOOL"])
def test_a_type_without_a_missing_value_has_none(datatype: str) -> None:
    """Whatever the column says; but integers for a column of floats may have some."""
    tensor = {"name": "x", "shape": [1], "datatype": datatype, "data": [None]}
    with pytest.raises(InvalidRequestError, match=f"got null, which {datatype} cannot hold"):
        read(*body_of((tensor, b"")), columns_of(column("x", datatype, nullable=True)))

    integers = {"name": "x", "shape": [3], "datatype": "INT64", "data": [1, None, 3]}
    got = read(*body_of((integers, b"")), columns_of(column("x", "FP32", nullable=True))).arrays["x"]

    np.testing.assert_array_equal(got, np.array([[1], [np.nan], [3]], np.float32))


def test_json_and_binary_inputs_in_one_request() -> None:
    """The bytes are in the request's order, not in the signature's; the event keeps each as it came."""
    names = "abcd"
    signature = tensors_of(*(free(name, "FP32", 1) for name in names))
    arrays = {name: np.array([place, place + 0.5], np.float32) for place, name in enumerate(names)}
    inputs = [as_binary("d", "FP32", arrays["d"]), as_json("b", "FP32", arrays["b"])]
    inputs += [as_binary("a", "FP64", arrays["a"].astype(np.float64)), as_json("c", "FP64", arrays["c"])]
    inputs[1][0]["novel"] = {"x": None}

    decoded = read(*body_of(*inputs), signature)

    for name in names:
        np.testing.assert_array_equal(decoded.arrays[name], arrays[name], strict=True)
    packed = [{**tensor, "base64": base64.b64encode(data).decode()} if data else tensor for tensor, data in inputs]
    for tensor in packed:
        tensor.pop("parameters", None)
        tensor["shape"] = list(tensor["shape"])
    assert msgspec.json.decode(decoded.logged) == packed


def test_json_is_kept_as_it_came() -> None:
    """The event has the client's very bytes, but on one line: the log has one event a line."""
    inputs = b'[ {"name":"x", "shape":[1], \t"datatype":"FP32","novel":"Z\xc3\xbcrich","data":[1.50]}]'
    signature = tensors_of(free("x", "FP32", 1))

    assert bytes(read(b'{"inputs":' + inputs + b"}", None, signature).logged) == inputs
    pretty = inputs.replace(b" ", b"\r\n")
    assert bytes(read(b'{"inputs":' + pretty + b"}", None, signature).logged) == inputs.replace(b" ", b"\r ")


@pytest.mark.parametrize("member", [b'"novel":"\xff"', b'"id":"\xc3"', b'"parameters":{"\xff":1}'])
def test_what_is_not_utf8_is_refused_even_where_it_is_skipped(member: bytes) -> None:
    """Else it would stand in the log, which nobody could read any more."""
    tensor = b'{"name":"x","shape":[0],"datatype":"FP32","data":[],' + member + b"}"
    with pytest.raises(InvalidRequestError, match="expected JSON in UTF-8"):
        read(b'{"inputs":[' + tensor + b"]}", None, tensors_of(free("x", "FP32", 1)))


X = {"name": "x", "shape": [2], "datatype": "FP32"}


def sized(size: Any, **members: Any) -> dict[str, Any]:
    return {**X, "parameters": {"binary_data_size": size}, **members}


@pytest.mark.parametrize(
    ("tensor", "tail", "sentence"),
    [
        (sized(8), b"1234567", "expected 8 bytes of binary data, got 7"),
        (sized(8), b"123456789", "expected 8 bytes of binary data after the JSON, got 9"),
        (sized(7), b"1234567", "expected 8 bytes for 2 elements, got 7"),
        (sized(12), b"123456789012", "expected 8 bytes for 2 elements, got 12"),
        (sized(-8), b"", "binary_data_size as an integer of 0 or more"),
        (sized(10**30), b"", f"expected {10**30} bytes of binary data, got 0"),
        (sized(8.0), b"12345678", "binary_data_size as an integer of 0 or more"),
        (sized(True), b"1", "binary_data_size as an integer of 0 or more"),
        (sized("8"), b"12345678", "binary_data_size as an integer of 0 or more"),
        (sized(8, data=[1, 2]), b"12345678", "expected data in JSON or in binary, got both"),
        (sized(None), b"", "expected data, got none"),
        (X, b"", "expected data, got none"),
        ({**X, "data": None}, b"", "expected data, got none"),
        ({**X, "data": [1, 2]}, b"1", "expected 0 bytes of binary data after the JSON, got 1"),
        ({**X, "parameters": {"shared_memory_region": "r"}}, b"", "'shared_memory_region' is not supported"),
        (sized(4, datatype="FP32", shape=[1000000000]), b"1234", "at most 1000 elements"),
        (sized(0, shape=[2**63]), b"", "at most 1000 elements"),
    ],
)
def test_bytes_that_are_not_what_the_json_says_are_refused(tensor: dict[str, Any], tail: bytes, sentence: str) -> None:
    """Too few, too many, beside JSON data, or of no size."""
    with pytest.raises(InvalidRequestError, match=re.escape(sentence)):
        read(*body_of((tensor, tail)), tensors_of(free("x", "FP32", 1)))


def test_binary_data_needs_the_header() -> None:
    """Without it nobody knows where the JSON ends."""
    with pytest.raises(InvalidRequestError, match="expected the header Inference-Header-Content-Length"):
        read(body_of((sized(8), b""))[0], None, tensors_of(free("x", "FP32", 1)))


@pytest.mark.parametrize("header_length", [-1, 3, 10**18])
def test_a_header_beyond_the_body_is_refused(header_length: int) -> None:
    """Negative, or more than there is."""
    with pytest.raises(InvalidRequestError, match=f"expected 0 to 2, the body's size, got {header_length}"):
        read(b"{}", header_length, tensors_of(free("x", "FP32", 1)))


STRINGS = np.array(["a", "", "Zü"], object)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (struct.pack("<I", 2**32 - 1) + b"abc", "expected element 0 to end within its 7 bytes"),
        (struct.pack("<I", 4) + b"abc", "expected element 0 to end within its 7 bytes"),
        (struct.pack("<I", 1) + b"a" + b"\0\0\0", "expected element 1 to end within its 8 bytes"),
        (struct.pack("<I", 1) + b"\xff", "expected UTF-8 at element 0"),
        (struct.pack("<I", 3) + b"\xed\xa0\x80", "expected UTF-8 at element 0"),
        (struct.pack("<I", 1) + b"a", "expected 3 elements in its bytes, got 1"),
        (struct.pack("<I", 0) * 4, "expected at most 3 elements in its bytes, got more"),
        (b"", "expected 3 elements in its bytes, got 0"),
    ],
)
def test_strings_with_lying_lengths_are_refused(data: bytes, sentence: str) -> None:
    """Before anything of that length is made."""
    tensor, _ = as_binary("x", "BYTES", STRINGS)
    tensor["parameters"]["binary_data_size"] = len(data)
    with pytest.raises(InvalidRequestError, match=sentence):
        read(*body_of((tensor, data)), tensors_of(free("x", "BYTES", 1)))


def test_a_bool_is_0_or_1() -> None:
    """numpy would take any byte, and the graph might see neither true nor false."""
    tensor = {**sized(2), "datatype": "BOOL"}
    with pytest.raises(InvalidRequestError, match="expected 0 or 1 at element 1, got 2"):
        read(*body_of((tensor, b"\1\2")), tensors_of(free("x", "BOOL", 1)))


@pytest.mark.parametrize("padding", range(8))
def test_numbers_are_aligned_wherever_the_json_ends(padding: int) -> None:
    """Bytes are used where they are when the machine can read them there, else copied."""
    array = np.array([1.5, -2.5])
    body, header_length = body_of(as_binary("x", "FP64", array), novel="x" * padding)

    got = read(body, header_length, tensors_of(free("x", "FP64", 1))).arrays["x"]

    assert got.flags.aligned
    np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("shape", "taken"),
    [((99, 1), True), ((100, 1), True), ((101, 1), False), ((10, 99), True), ((10, 100), True), ((10, 101), False)],
)
def test_rows_and_elements_have_limits(shape: tuple[int, int], taken: bool, form: str) -> None:
    """Taken below and at the limit, refused above it."""
    array = np.zeros(shape, np.float32)

    if taken:
        assert send(form, "FP32", array, tensors_of(free("x", "FP32", 2))).shape == shape
    else:
        with pytest.raises(InvalidRequestError, match=r"expected at most (100 rows|1000 elements in all inputs), got"):
            send(form, "FP32", array, tensors_of(free("x", "FP32", 2)))


def test_elements_of_all_inputs_count_together() -> None:
    """500 and 501 are too many for 1000."""
    signature = tensors_of(free("x", "INT8", 2), free("y", "INT8", 2))
    inputs = [as_binary(name, "INT8", np.zeros((1, size), np.int8)) for name, size in (("x", 500), ("y", 501))]

    with pytest.raises(InvalidRequestError, match="expected at most 1000 elements in all inputs, got more"):
        read(*body_of(*inputs), signature)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("rank", "taken"), [(7, True), (8, True), (9, False)])
def test_dimensions_have_a_limit(rank: int, taken: bool, form: str) -> None:
    """As data nested so deep has."""
    array = np.zeros((1,) * rank, np.float32)

    if taken:
        assert send(form, "FP32", array, tensors_of(free("x", "FP32", rank))).shape == array.shape
    else:
        with pytest.raises(InvalidRequestError, match="expected at most 8 dimensions, got 9"):
            send(form, "FP32", array, tensors_of(free("x", "FP32", rank)))


@pytest.mark.parametrize(("depth", "taken"), [(7, True), (8, True), (9, False), (900, False)])
@pytest.mark.parametrize("place", ["request", "input", "output"])
def test_parameters_have_a_depth(depth: int, taken: bool, place: str) -> None:
    """The object of parameters counts as one."""
    deep = b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}" if depth > 1 else b"{}"
    parameters = {name: b"{}" for name in ("request", "input", "output")} | {place: deep}
    body = (
        b'{"parameters": %s, "inputs": [{"name": "x", "shape": [0], "datatype": "FP32", "data": [], "parameters": %s}],'
        b' "outputs": [{"name": "y", "parameters": %s}]}'
        % (parameters["request"], parameters["input"], parameters["output"])
    )
    signature = tensors_of(free("x", "FP32", 1), outputs=(free("y", "FP32", 1),))

    if taken:
        assert read(body, None, signature).rows == 0
    else:
        with pytest.raises(InvalidRequestError, match="expected at most 8 levels of arrays and objects, got more"):
            read(body, None, signature)


def test_free_dimensions_of_one_name_have_one_size() -> None:
    """Those without a name have any; rows are the first input's."""
    signature = tensors_of(
        Tensor(name="x", datatype="INT8", shape=[-1, 2, -1], symbols=["n", ""]),
        Tensor(name="y", datatype="INT8", shape=[-1, -1], symbols=["", "n"]),
    )

    def ask(x: tuple[int, ...], y: tuple[int, ...]) -> int:
        shapes = (("x", x), ("y", y))
        return read(*body_of(*(as_binary(n, "INT8", np.zeros(s, np.int8)) for n, s in shapes)), signature).rows

    assert ask((3, 2, 7), (5, 3)) == 3
    with pytest.raises(InvalidRequestError, match="'y': expected dimension 'n' of size 3 as in input 'x', got 4"):
        ask((3, 2, 7), (5, 4))


@pytest.mark.parametrize("form", FORMS)
def test_columns_have_equally_many_rows(form: str) -> None:
    """Else there would be rows of which a column is not known."""
    signature = columns_of(column("x", "INT8"), column("y", "INT8"))
    inputs = [WRITERS[form](name, "INT8", np.zeros(rows, np.int8)) for name, rows in (("x", 2), ("y", 3))]

    with pytest.raises(InvalidRequestError, match="input 'y': expected 2 rows like the inputs before it, got 3"):
        read(*body_of(*inputs), signature)


def test_an_input_without_rows_is_one() -> None:
    """Where the first dimension is fixed, or there is none."""
    for shape in ([3, -1], []):
        signature = tensors_of(Tensor(name="x", datatype="INT8", shape=shape))
        array = np.zeros([abs(size) for size in shape], np.int8)

        assert read(*body_of(as_binary("x", "INT8", array)), signature).rows == 1


@pytest.mark.parametrize("size", [1001, 2**31, 2**63, 10**40])
def test_an_endless_shape_of_nothing_is_refused(size: int) -> None:
    """Zero elements, but a shape that numpy has no array of."""
    tensor = {"name": "x", "shape": [0, size], "datatype": "FP32", "data": []}
    with pytest.raises(InvalidRequestError, match="at most 1000 elements"):
        read(*body_of((tensor, b"")), tensors_of(free("x", "FP32", 2)))


# A body of nothing but elements


ROWS = Tensor(name="x", datatype="FP32", shape=[-1, 3])


@pytest.mark.parametrize("rows", [0, 1, 100])
def test_a_raw_body_is_rows(rows: int) -> None:
    """As many as its bytes are."""
    array = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)

    decoded = decode_raw(array.tobytes(), tensors_of(ROWS), LIMITS)

    np.testing.assert_array_equal(decoded.arrays["x"], array, strict=True)
    assert decoded.rows == rows
    assert msgspec.json.decode(decoded.logged) == [
        {"name": "x", "shape": [rows, 3], "datatype": "FP32", "base64": base64.b64encode(array.tobytes()).decode()}
    ]


def test_a_raw_body_of_strings_is_rows() -> None:
    """Each as long as it says."""
    data = bytes(as_binary("x", "BYTES", STRINGS)[1])
    signature = tensors_of(Tensor(name="x", datatype="BYTES", shape=[-1, 3]))

    assert decode_raw(data, signature, LIMITS).arrays["x"].tolist() == [["a", "", "Zü"]]
    with pytest.raises(InvalidRequestError, match=r"expected shape \[-1, 3\], got 2 elements"):
        decode_raw(data[:9], signature, LIMITS)


@pytest.mark.parametrize(
    ("signature", "body", "sentence"),
    [
        (tensors_of(ROWS), b"1234567890123", "expected elements of 4 bytes, got 13"),
        (tensors_of(ROWS), bytes(16), "expected shape [-1, 3], got 4 elements"),
        (tensors_of(ROWS), bytes(12 * 101), "expected at most 100 rows"),
        (tensors_of(free("x", "INT8", 1)), bytes(1001), "expected at most 1000 elements"),
        (tensors_of(ROWS), np.full(3, np.nan, np.float32).tobytes(), "expected a value at element 0, got NaN"),
        (tensors_of(ROWS), np.full(3, np.inf, np.float32).tobytes(), "expected finite numbers"),
        (tensors_of(ROWS, free("y", "FP32", 1)), b"", "expected JSON for 2 inputs"),
        (tensors_of(free("x", "FP32", 2)), b"", "expected JSON that gives the shape [-1, -1]"),
        (tensors_of(Tensor(name="x", datatype="FP32", shape=[-1, 0])), b"", "expected JSON that gives the shape"),
        (tensors_of(Tensor(name="x", datatype="INT8", shape=[3])), b"12", "expected shape [3], got 2 elements"),
        (tensors_of(Tensor(name="x", datatype="INT8", shape=[3])), b"123456", "expected shape [3], got 6 elements"),
        (tensors_of(Tensor(name="x", datatype="BOOL", shape=[-1])), b"\2", "expected 0 or 1 at element 0"),
    ],
)
def test_a_raw_body_that_is_no_rows_is_refused(signature: Any, body: bytes, sentence: str) -> None:
    """Half an element, half a row, more than a limit, or of a model whose shape it does not give."""
    with pytest.raises(InvalidRequestError, match=re.escape(sentence)):
        decode_raw(body, signature, LIMITS)


def test_a_raw_body_may_miss_what_the_column_may() -> None:
    """By its column, as everywhere."""
    signature = columns_of(column("x", "FP32", nullable=True))

    assert math.isnan(decode_raw(np.array([np.nan], np.float32).tobytes(), signature, LIMITS).arrays["x"][0, 0])


def test_a_raw_body_of_a_fixed_shape_is_one_row() -> None:
    """All of the shape, no row more."""
    signature = tensors_of(Tensor(name="x", datatype="INT8", shape=[3]))

    decoded = decode_raw(b"\1\2\3", signature, LIMITS)

    assert (decoded.rows, decoded.arrays["x"].tolist()) == (1, [1, 2, 3])


# What the client wants


GIVEN = tensors_of(outputs=(free("a", "FP32", 1), free("b", "INT64", 1), free("c", "BYTES", 1)))


def select(outputs: Any = None, parameters: Any = None, signature: Any = GIVEN) -> list[tuple[str, bool]]:
    body = msgspec.json.encode({"inputs": [], "outputs": outputs, "parameters": parameters})
    return [(each.name, each.binary) for each in select_outputs(decode_request(body, 8), signature)]


def test_outputs_are_selected_and_ordered() -> None:
    """All in the signature's order without a word; `binary_data` wins over `binary_data_output`."""
    assert select() == select([]) == [("a", False), ("b", False), ("c", False)]
    assert select(parameters={"binary_data_output": True}) == [("a", True), ("b", True), ("c", True)]
    assert select([{"name": "c"}, {"name": "a", "parameters": {"binary_data": True, "novel": {}}}]) == [
        ("c", False),
        ("a", True),
    ]
    assert select(
        [{"name": "b", "parameters": {"binary_data": False}}, {"name": "a", "parameters": {"binary_data": None}}],
        {"binary_data_output": True},
    ) == [("b", False), ("a", True)]
    assert select_outputs(None, GIVEN) == [SelectedOutput(name, False) for name in "abc"]


@pytest.mark.parametrize(
    ("outputs", "parameters", "sentence"),
    [
        ([{"name": "z"}], None, "output 'z' is unknown: expected ['a', 'b', 'c'], got ['z']"),
        ([{"name": "a"}, {"name": "a"}], None, "output 'a' is given twice"),
        ([{"name": "a", "parameters": {"binary_data": 1}}], None, "output 'a': expected binary_data as true or false"),
        (None, {"binary_data_output": "yes"}, "parameters: expected binary_data_output as true or false"),
        ([{"name": "a", "parameters": {"classification": 3}}], None, "'classification' is not supported"),
        ([{"name": "a", "parameters": {"shared_memory_region": "r"}}], None, "'shared_memory_region' is not supported"),
    ],
)
def test_selections_that_cannot_be_met_are_refused(outputs: Any, parameters: Any, sentence: str) -> None:
    """With the name and what there is."""
    with pytest.raises(InvalidRequestError, match=re.escape(sentence)):
        select(outputs, parameters)


def test_fp16_is_answered_in_binary_only() -> None:
    """Whether asked for by name or by saying nothing."""
    signature = tensors_of(outputs=(free("h", "FP16", 1), free("f", "FP32", 1)))

    assert select([{"name": "f"}], signature=signature) == [("f", False)]
    assert select(parameters={"binary_data_output": True}, signature=signature) == [("h", True), ("f", True)]
    for refused in (lambda: select(signature=signature), lambda: select_outputs(None, signature)):
        with pytest.raises(InvalidRequestError, match="output 'h': FP16 is for binary data only"):
            refused()


def test_a_name_of_any_length_is_cut_in_the_answer() -> None:
    """What a client sent is not echoed at length."""
    with pytest.raises(InvalidRequestError) as caught:
        select([{"name": "z" * 100_000}])
    assert len(str(caught.value)) < 1000


def test_an_answer_of_both_kinds() -> None:
    """JSON outputs are the event's bytes, binary ones follow the JSON in the client's order."""
    outputs = {
        "a": np.array([[1.5, np.nan], [np.inf, -np.inf]], np.float32),
        "b": np.array([7], np.int64),
        "c": np.array(["x", "yz"], object),
    }
    specs = [free("a", "FP32", 2), free("b", "INT64", 1), free("c", "BYTES", 1)]
    selected = [SelectedOutput("c", True), SelectedOutput("a", False), SelectedOutput("b", True)]

    tensors = encode_outputs(outputs, specs, frozenset("bc"))
    answer = encode_answer("m", "2", "id", outputs, tensors, specs, selected)

    a = {"name": "a", "shape": [2, 2], "datatype": "FP32", "data": [1.5, None, None, None]}
    packed = {"b": struct.pack("<q", 7), "c": b"\1\0\0\0x\2\0\0\0yz"}
    assert [msgspec.json.decode(tensor) for tensor in tensors] == [
        a,
        {"name": "b", "shape": [1], "datatype": "INT64", "base64": base64.b64encode(packed["b"]).decode()},
        {"name": "c", "shape": [2], "datatype": "BYTES", "base64": base64.b64encode(packed["c"]).decode()},
    ]
    assert msgspec.json.decode(answer.body[: answer.header_length]) == {
        "model_name": "m",
        "model_version": "2",
        "id": "id",
        "outputs": [
            {"name": "c", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 11}},
            a,
            {"name": "b", "shape": [1], "datatype": "INT64", "parameters": {"binary_data_size": 8}},
        ],
    }
    assert answer.body[answer.header_length :] == packed["c"] + packed["b"]


def test_an_answer_in_json_has_no_header() -> None:
    """Nothing follows it; an empty binary output has the header all the same."""
    empty = {"a": np.zeros((0,), np.float32)}
    tensors = encode_outputs(empty, [free("a", "FP32", 1)], frozenset())

    def answer(binary: bool) -> int | None:
        selected = [SelectedOutput("a", binary)]
        return encode_answer("m", "1", "i", empty, tensors, [free("a", "FP32", 1)], selected).header_length

    assert answer(binary=False) is None
    assert answer(binary=True) is not None


def test_a_transposed_output_is_written_row_by_row() -> None:
    """Whatever its order in memory."""
    array = np.arange(6, dtype=np.int8).reshape(2, 3).T
    spec = free("a", "INT8", 2)

    answer = encode_answer("m", "1", "i", {"a": array}, [b""], [spec], [SelectedOutput("a", True)])

    assert answer.body[answer.header_length :] == bytes([0, 3, 1, 4, 2, 5])


# Anything else is refused, and nothing fails


MIXED = tensors_of(
    free("f", "FP32", 2),
    free("s", "BYTES", 1),
    free("b", "BOOL", 1),
    free("i", "INT32", 1),
    outputs=(free("y", "FP32", 1),),
)
SMALL = TensorLimits(elements=200, rows=50, nesting=8)
VALID = [
    body_of(
        as_binary("f", "FP64", np.ones((2, 3))),
        as_binary("s", "BYTES", STRINGS),
        as_json("b", "BOOL", np.array([True, False])),
        as_binary("i", "INT64", np.array([1, 2])),
        parameters={"timeout": 5, "binary_data_output": True},
        outputs=[{"name": "y", "parameters": {"binary_data": False}}],
    ),
    body_of(
        as_json("f", "FP32", np.ones((2, 3))),
        as_json("s", "BYTES", STRINGS),
        as_binary("b", "BOOL", np.array([True])),
        as_json("i", "INT32", np.array([1])),
    ),
]


def refused_or_read(body: bytes, header_length: int | None, signature: Any = MIXED) -> None:
    """Fails when a body ends in anything but arrays within the limits or the client's fault."""
    try:
        decoded = read(body, header_length, signature, SMALL)
    except TiltyardError as error:
        assert status_of(error) < 500
        assert len(str(error)) < 2000
        return
    assert sum(array.size for array in decoded.arrays.values()) <= SMALL.elements
    assert isinstance(msgspec.json.decode(decoded.logged), list)
    assert b"\n" not in bytes(decoded.logged)


@given(st.binary(max_size=80), st.none() | st.integers(-5, 90), st.sampled_from([MIXED, tensors_of(ROWS)]))
@settings(max_examples=200, deadline=None)
def test_no_bytes_are_a_fault_of_ours(body: bytes, header_length: int | None, signature: Any) -> None:
    """Any bytes, with any length of JSON, are read or refused."""
    refused_or_read(body, header_length, signature)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "binary_data_size"]), inner),
    max_leaves=8,
)
tensor_like = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["f", "s", "b", "i"]) | json_values,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | json_values,
        "datatype": st.sampled_from([*DATATYPES, "FP8"]) | json_values,
    },
    optional={"data": st.lists(json_values, max_size=6) | json_values, "parameters": json_values},
)


@given(st.lists(tensor_like, max_size=5), json_values, json_values, st.binary(max_size=20))
@settings(max_examples=300, deadline=None)
def test_no_json_is_a_fault_of_ours(inputs: list[Any], outputs: Any, parameters: Any, tail: bytes) -> None:
    """Values of every kind in every member, in one input and in several."""
    one = tensors_of(free("f", "FP32", 1), outputs=(free("y", "FP32", 1),))
    head = msgspec.json.encode({"inputs": inputs, "outputs": outputs, "parameters": parameters})

    refused_or_read(head, None)
    refused_or_read(head + tail, len(head))
    head = msgspec.json.encode({"inputs": inputs[:1]})
    refused_or_read(head + tail, len(head), one)


@given(
    st.sampled_from(VALID),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 3), st.binary(min_size=1, max_size=4)), max_size=4),
    st.integers(-3, 3),
)
@settings(max_examples=300, deadline=None)
def test_no_mutation_of_a_valid_body_is_a_fault_of_ours(
    valid: tuple[bytes, int], mutations: list[tuple[int, int, bytes]], shift: int
) -> None:
    """Bytes replaced, left out and put in, and a header that is a little off."""
    body, header_length = valid
    for place, left_out, put_in in mutations:
        at = place % len(body)
        body = body[:at] + put_in + body[at + left_out :]

    refused_or_read(body, header_length + shift)


def test_the_bodies_that_are_mutated_are_valid() -> None:
    """Else the test above would prove little."""
    for body, header_length in VALID:
        assert read(body, header_length, MIXED, SMALL).arrays["f"].shape == (2, 3)
