"""The short ways of usual requests and answers, held against the long ones that define what is right."""

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.contract.manifest import Column, Signature, Tensor
from server.errors import InvalidRequestError
from server.protocol.datatypes import DATATYPES
from server.protocol.json_codec import join_array
from server.protocol.tensor_form import TensorForm
from server.protocol.tensors import (
    DecodedInputs,
    SelectedOutput,
    TensorLimits,
    decode_inputs,
    encode_answer,
    encode_outputs,
)
from tests.server.protocol.requests import LIMITS, column, columns_of, tensors_of

COLUMNS = columns_of(
    column("carrier", "BYTES", nullable=True),
    column("temp", "FP32", nullable=True),
    column("hour", "INT64"),
    column("distance", "FP64"),
    column("stops", "UINT8"),
)


def matrix_of(width: int, datatype: str = "FP32") -> Signature:
    """Returns the signature of a table's matrix, in which only the first column may be missing."""
    columns = [
        Column(name=f"c{place}", datatype=datatype, kind="numeric", nullable=place == 0) for place in range(width)
    ]
    inputs = [Tensor(name="x", datatype=datatype, shape=[-1, width])]
    return Signature(layout="matrix", inputs=inputs, outputs=[], columns=columns)


def form_of(signature: Signature) -> TensorForm:
    return TensorForm("a model", "1", signature)


def long_way(inputs: msgspec.Raw, signature: Signature, limits: TensorLimits) -> DecodedInputs | None:
    """Returns what the long way makes of inputs, None when it refuses them."""
    try:
        return decode_inputs(inputs, None, signature, limits)
    except InvalidRequestError:
        return None


def both_ways(inputs: bytes, signature: Signature, limits: TensorLimits = LIMITS) -> DecodedInputs | None:
    """Returns what the short way makes of inputs, having checked that the long one makes the same, to the bit."""
    raw = msgspec.Raw(inputs)
    short = form_of(signature).read(raw, limits)
    if short is None:
        return None
    long = long_way(raw, signature, limits)
    assert long is not None, "the short way takes what the long one refuses"
    assert (long.rows, list(long.arrays), bytes(long.logged)) == (short.rows, list(short.arrays), bytes(short.logged))
    for name, expected in long.arrays.items():
        got = short.arrays[name]
        assert (expected.dtype, expected.shape) == (got.dtype, got.shape)
        if expected.dtype == np.object_:
            assert expected.tolist() == got.tolist()
            assert {str} >= set(map(type, got.ravel()))
        else:
            assert expected.tobytes() == got.tobytes()
    return short


def usual_values(datatype: str) -> st.SearchStrategy[Any]:
    """Returns what clients send of a datatype: floats whose integers are exact, and all of the other types' values."""
    kind = DATATYPES[datatype]
    if kind.element is int:
        return st.integers(int(kind.least), int(kind.greatest))
    if kind.element is float:
        bound = kind.exact / 64  # so that the norm of a test's values is far from the bound
        return st.floats(-bound, bound) | st.integers(int(-bound), int(bound))
    return st.text()


def written(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


@st.composite
def usual_columns(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Returns inputs as most clients of ``COLUMNS`` send them, of 1 row or more."""
    rows = draw(st.integers(1, 8))
    return [
        written(
            spec.name,
            spec.datatype,
            draw(st.sampled_from([[rows], [rows, 1]])),
            draw(st.lists(usual_values(spec.datatype), min_size=rows, max_size=rows)),
        )
        for spec in COLUMNS.inputs
    ]


@given(usual_columns())
def test_usual_columns_take_the_short_way(inputs: list[dict[str, Any]]) -> None:
    """Each (rows,) or (rows, 1), of strings and numbers of every size: as the long way reads them."""
    assert both_ways(msgspec.json.encode(inputs), COLUMNS) is not None


@pytest.mark.parametrize("datatype", sorted(DATATYPES.keys() - {"FP16", "BOOL"}))
@given(data=st.data())
def test_usual_matrices_take_the_short_way(datatype: str, data: st.DataObject) -> None:
    """Of one column or more, and of every datatype that JSON has but booleans."""
    rows, width = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 4))
    values = data.draw(st.lists(usual_values(datatype), min_size=rows * width, max_size=rows * width))
    inputs = msgspec.json.encode([written("x", datatype, [rows, width], values)])

    assert both_ways(inputs, matrix_of(width, datatype)) is not None


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "INT64", "UINT8", "BYTES"])
def test_large_requests_take_the_short_way_too(datatype: str) -> None:
    """More elements than structures are kept for."""
    rows = 3000
    values = [str(row) for row in range(rows)] if datatype == "BYTES" else [row % 200 for row in range(rows)]
    inputs = msgspec.json.encode([written("x", datatype, [rows, 1], values)])

    decoded = both_ways(inputs, matrix_of(1, datatype), TensorLimits(elements=rows, rows=rows, nesting=8))

    assert decoded is not None
    assert values == decoded.arrays["x"].ravel().tolist()


@pytest.mark.parametrize("rows", [1, 1025])
@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("UINT8", "256"),
        ("UINT8", "-1"),
        ("INT64", str(2**63)),
        ("INT64", str(-(2**63) - 1)),
        ("UINT64", str(2**64)),
        ("UINT64", "-1"),
        ("INT64", str(10**40)),
        ("INT64", "1.0"),
        ("INT64", "1e2"),
        ("INT64", "true"),
        ("INT64", "null"),
        ("FP32", str(2**24 + 1)),
        ("FP32", "-16777217"),
        ("FP32", "3.5e38"),
        ("FP32", "-1e39"),
        ("FP32", "1e999"),
        ("FP32", "1" + "0" * 39),
        ("FP32", "1" + "0" * 400),
        ("FP32", "NaN"),
        ("FP32", "Infinity"),
        ("FP32", "null"),
        ("FP32", '"1"'),
        ("FP32", "[1]"),
        ("FP64", str(2**53 + 1)),
        ("FP64", "1e309"),
        ("BYTES", "1"),
        ("BYTES", "null"),
        ("BYTES", '"\\ud800"'),
        ("BYTES", '"\x01"'),
    ],
)
def test_a_value_that_needs_a_second_look_takes_the_long_way(datatype: str, value: str, rows: int) -> None:
    """The last of one or of many: out of range, of another type, missing, or an integer that no float may be."""
    usual = '"a"' if datatype == "BYTES" else "7"
    data = ", ".join([usual] * (rows - 1) + [value])
    inputs = f'[{{"name": "x", "shape": [{rows}, 1], "datatype": "{datatype}", "data": [{data}]}}]'
    limits = TensorLimits(elements=10_000, rows=10_000, nesting=8)

    assert form_of(matrix_of(1, datatype)).read(msgspec.Raw(inputs.encode()), limits) is None


@pytest.mark.parametrize("value", ["-0", "-0.0", "0", "1e-400", "5e-324", "1.4e-45", "7e-46", "0.1", "16777215.5"])
@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_the_least_numbers_are_rounded_as_the_long_way_does(datatype: str, value: str) -> None:
    """Zeros of both signs, and what is next to none."""
    inputs = f'[{{"name": "x", "shape": [2, 1], "datatype": "{datatype}", "data": [1, {value}]}}]'

    both_ways(inputs.encode(), matrix_of(1, datatype))


# Every way to write an input that is not the usual one, right or wrong.
CHANGES: list[dict[str, Any]] = [
    {"name": "y"},
    {"name": None},
    {"datatype": "FP64"},
    {"datatype": "INT64"},
    {"datatype": "FP16"},
    {"datatype": "fp32"},
    {"shape": []},
    {"shape": [2]},
    {"shape": [4]},
    {"shape": [1, 4]},
    {"shape": [4, 1]},
    {"shape": [2, 2, 1]},
    {"shape": [-2, -2]},
    {"shape": [2, 3]},
    {"shape": [3, 2]},
    {"shape": [2.0, 2]},
    {"shape": [10**30, 2]},
    {"shape": None},
    {"data": [[1, 2], [3, 4]]},
    {"data": [1, 2, 3]},
    {"data": [1, 2, 3, 4, 5]},
    {"data": None},
    {"data": "abcd"},
    {"data": {}},
    {"data": [], "shape": [0, 2]},
    {"data": [], "shape": [2, 2]},
    {"data": [], "shape": [2, 0]},
    {"parameters": {}},
    {"parameters": {"binary_data_size": 16}},
    {"parameters": {"shared_memory_region": "a"}},
    {"parameters": {"classification": 1}},
    {"parameters": 1},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: json.dumps(change)[:40])
def test_an_unusual_input_takes_the_long_way(change: dict[str, Any]) -> None:
    """Whether it is right or wrong, the long way says."""
    usual = written("x", "FP32", [2, 2], [1, 2, 3, 4])

    assert both_ways(msgspec.json.encode([usual]), matrix_of(2)) is not None
    assert form_of(matrix_of(2)).read(msgspec.Raw(msgspec.json.encode([usual | change])), LIMITS) is None


@pytest.mark.parametrize("inputs", ["[]", "null", "{}", "1", '"x"', "[null]", "[[]]", "[1]", "[{}]"])
def test_inputs_that_are_none_take_the_long_way(inputs: str) -> None:
    """Whatever stands there."""
    for signature in (matrix_of(2), COLUMNS):
        assert form_of(signature).read(msgspec.Raw(inputs.encode()), LIMITS) is None


@given(usual_columns(), st.data())
def test_inputs_in_another_order_or_number_take_the_long_way(inputs: list[dict[str, Any]], data: st.DataObject) -> None:
    """Missing, twice, of another length, or in an order that is not the signature's."""
    names = [tensor["name"] for tensor in inputs]
    chosen = data.draw(st.lists(st.sampled_from(inputs), max_size=6))
    shorter = [tensor | {"shape": [tensor["shape"][0] + 1], "data": [*tensor["data"], 0]} for tensor in inputs[2:3]]

    read = both_ways(msgspec.json.encode(chosen), COLUMNS)

    assert (read is not None) == ([tensor["name"] for tensor in chosen] == names)
    assert both_ways(msgspec.json.encode([*inputs[:2], *shorter, *inputs[3:]]), COLUMNS) is None


@pytest.mark.parametrize(
    "members",
    [
        '"novel": {"a": [null, "\\u00e9"]}, "data": [1, 2]',
        '"data": [7, 8], "data": [1, 2]',
        '"shape": [9, 9], "data": [1, 2], "shape": [1, 2]',
        '"name": "y", "name": "x", "data": [1, 2]',
        '"parameters": null, "data": [1, 2]',
        '"data": [7], "data" : [ 1 ,\t2\r]',
        '"data": "none", "data": [1, 2]',
        '"data": [1, 2], "data": [[1, 2]]',
        '"parameters": {"a": 1}, "parameters": null, "data": [1, 2]',
    ],
)
def test_members_that_come_twice_or_are_unknown_mean_the_same_both_ways(members: str) -> None:
    """The last of two counts, where the short way takes such a request at all."""
    inputs = f'[{{"name": "x", "datatype": "FP32", "shape": [1, 2], {members}}}]'

    both_ways(inputs.encode(), matrix_of(2))


@st.composite
def any_columns(draw: st.DrawFn) -> bytes:
    """Returns usual inputs with some of their members replaced by what clients should not send, or may."""
    inputs = draw(usual_columns())
    numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    values = numbers | st.none() | st.booleans() | st.text(max_size=3)
    for tensor in draw(st.lists(st.sampled_from(inputs), max_size=2)):
        member = draw(st.sampled_from(["data", "value", "shape", "datatype", "name", "parameters"]))
        if member == "value":
            place = draw(st.integers(0, max(len(tensor["data"]) - 1, 0)))
            tensor["data"][place : place + 1] = [draw(values)]
        elif member == "data":
            tensor["data"] = draw(st.lists(values, max_size=8))
        elif member == "shape":
            tensor["shape"] = draw(st.lists(st.integers(-2, 9), max_size=3))
        elif member == "datatype":
            tensor["datatype"] = draw(st.sampled_from(sorted(DATATYPES)))
        elif member == "name":
            tensor["name"] = draw(st.sampled_from([spec.name for spec in COLUMNS.inputs]))
        else:
            tensor["parameters"] = draw(st.none() | st.dictionaries(st.text(max_size=2), values, max_size=1))
    return json.dumps(inputs).encode()


@given(inputs=any_columns(), elements=st.integers(1, 50), rows=st.integers(1, 9), nesting=st.integers(1, 3))
def test_the_short_way_takes_nothing_that_the_long_one_refuses(
    inputs: bytes, elements: int, rows: int, nesting: int
) -> None:
    """Whatever a client sends and whatever the limits are, what it takes is the same to the bit."""
    both_ways(inputs, COLUMNS, TensorLimits(elements, rows, nesting))


@given(
    datatype=st.sampled_from(["FP32", "FP64"]),
    values=st.lists(
        st.integers(-(2**60), 2**60)
        | st.sampled_from([2**22, 2**23, 2**24 - 1, 2**24, 2**24 + 1, 2**52, 2**53 - 1, 2**53, 2**53 + 1])
        | st.floats(allow_nan=False, allow_infinity=False),
        min_size=1,
        max_size=4,
    ),
)
@example(datatype="FP32", values=[2**24 + 1])
def test_no_integer_becomes_another_number(datatype: str, values: list[Any]) -> None:
    """Around the bounds beyond which a float type has not every integer."""
    inputs = msgspec.json.encode([written("x", datatype, [len(values), 1], values)])

    both_ways(inputs, matrix_of(1, datatype))


@pytest.mark.parametrize("signature", [matrix_of(1), columns_of(column("x", "FP32"), column("y", "FP32"))])
@pytest.mark.parametrize(
    ("limits", "taken"),
    [
        (TensorLimits(elements=6, rows=3, nesting=2), True),
        (TensorLimits(elements=2, rows=3, nesting=2), False),
        (TensorLimits(elements=6, rows=2, nesting=2), False),
        (TensorLimits(elements=6, rows=3, nesting=1), False),
    ],
)
def test_requests_at_the_limits_are_taken_and_none_beyond(
    signature: Signature, limits: TensorLimits, taken: bool
) -> None:
    """Elements of all inputs together, rows, and dimensions."""
    inputs = msgspec.json.encode([written(spec.name, "FP32", [3, 1], [1, 2, 3]) for spec in signature.inputs])

    assert taken == (both_ways(inputs, signature, limits) is not None)
    assert taken == (long_way(msgspec.Raw(inputs), signature, limits) is not None)


@pytest.mark.parametrize(
    "member", [b'"name": "x\xff"', b'"name": "x", "novel\xff": 1', b'"name": "x", "datatype": "\xc3"']
)
def test_what_is_not_utf8_takes_the_long_way(member: bytes) -> None:
    """In a value as well as in a member's name."""
    both_ways(b'[{"shape": [1, 1], "datatype": "FP32", "data": [1], %b}]' % member, matrix_of(1))


def test_no_dimension_is_below_zero() -> None:
    """Not even where the signature's second one is free, and the product right."""
    inputs = msgspec.json.encode([written("x", "FP32", [-2, -1], [1, 2])])

    assert form_of(matrix_of(-1)).read(msgspec.Raw(inputs), LIMITS) is None


def test_what_is_nested_too_deeply_takes_the_long_way() -> None:
    """Which has a sentence for it."""
    inputs = b'[{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1], "novel": %b%b}]'

    assert form_of(matrix_of(1)).read(msgspec.Raw(inputs % (b"[" * 100_000, b"]" * 100_000)), LIMITS) is None


@pytest.mark.parametrize(
    "signature",
    [
        tensors_of(Tensor(name="x", datatype="FP32", shape=[-1, 1])),
        matrix_of(1, "FP16"),
        columns_of(column("x", "BOOL")),
        columns_of(column("y", "FP32"), column("x", "BOOL")),
    ],
    ids=["tensors", "halves", "booleans", "a boolean among others"],
)
def test_signatures_without_a_short_way_send_all_requests_the_long_one(signature: Signature) -> None:
    """A graph of tensors, halves, and booleans."""
    inputs = [
        written(spec.name, spec.datatype, [1, 1], [True] if spec.datatype == "BOOL" else [1.0])
        for spec in signature.inputs
    ]

    assert form_of(signature).read(msgspec.Raw(msgspec.json.encode(inputs)), LIMITS) is None


# Answers


def outputs_of(*specs: Tensor) -> Signature:
    return Signature(layout="tensors", inputs=[], outputs=list(specs))


def any_values(datatype: str) -> st.SearchStrategy[Any]:
    """Returns what a graph may give, infinities and NaN included."""
    kind = DATATYPES[datatype]
    if kind.element is int:
        return st.integers(int(kind.least), int(kind.greatest))
    if kind.element is float:
        return st.floats(width=kind.dtype.itemsize * 8)  # type: ignore[call-overload]  # 16, 32 or 64
    return st.booleans() if kind.element is bool else st.text()


@given(data=st.data())
def test_answers_are_those_of_the_long_way_byte_for_byte(data: st.DataObject) -> None:
    """Every datatype and rank, none of the elements included, names and ids of any characters."""
    specs, outputs = [], {}
    for place in range(data.draw(st.integers(1, 3))):
        datatype = data.draw(st.sampled_from(sorted(DATATYPES)))
        shape = data.draw(st.lists(st.integers(0, 3), max_size=3))
        size = math.prod(shape)
        values = data.draw(st.lists(any_values(datatype), min_size=size, max_size=size))
        name = data.draw(st.text(max_size=5)) + str(place)
        specs.append(Tensor(name=name, datatype=datatype, shape=[-1] * len(shape)))
        outputs[name] = np.array(values, dtype=DATATYPES[datatype].dtype).reshape(shape)
    model, version, request_id = (data.draw(st.text(max_size=9)) for _ in range(3))
    form = TensorForm(model, version, outputs_of(*specs))

    tensors = [form.tensors(outputs), form.tensors(outputs)]
    answer = form.answer(request_id, join_array(tensors[0]))

    expected = encode_outputs(outputs, specs, frozenset())
    selected = [SelectedOutput(spec.name, binary=False) for spec in specs]
    assert [expected, expected] == tensors
    assert encode_answer(model, version, request_id, outputs, expected, specs, selected).body == answer


def test_an_output_may_have_another_shape_each_time() -> None:
    """More shapes than have their beginnings kept, and each again."""
    spec = Tensor(name="y", datatype="FP32", shape=[-1])
    form = form_of(outputs_of(spec))

    for rows in [*range(600), *range(600)]:
        outputs = {"y": np.zeros(rows, np.float32)}
        assert encode_outputs(outputs, [spec], frozenset()) == form.tensors(outputs)
    assert len(form._outputs[0].beginnings) <= 256


def test_an_outputs_rows_come_in_their_order_however_they_lie_in_memory() -> None:
    """Row by row, also of an array whose memory is the columns'."""
    spec = Tensor(name="y", datatype="INT64", shape=[-1, -1])
    outputs = {"y": np.asfortranarray(np.arange(6).reshape(2, 3))}

    assert [b'{"name":"y","shape":[2,3],"datatype":"INT64","data":[0,1,2,3,4,5]}'] == form_of(outputs_of(spec)).tensors(
        outputs
    )


@pytest.mark.parametrize(
    ("datatypes", "expected"),
    [
        (["FP32", "BYTES"], [SelectedOutput("0", binary=False), SelectedOutput("1", binary=False)]),
        (["FP32", "FP16"], None),
    ],
)
def test_whoever_selects_nothing_gets_all_outputs_in_json(
    datatypes: list[str], expected: list[SelectedOutput] | None
) -> None:
    """Unless one of them has no JSON."""
    specs = [Tensor(name=str(place), datatype=datatype, shape=[-1]) for place, datatype in enumerate(datatypes)]

    assert expected == form_of(outputs_of(*specs)).selected
