"""What an event keeps of inputs whose columns are hidden: nothing of those, and the very bytes of the others."""

import hashlib
import hmac
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.contract.manifest import Column, Signature, Tensor
from server.protocol.json_codec import encode_arrays, join_array
from server.protocol.redaction import How, Redactor, hash_of, redactor_of, texts_of
from server.protocol.rows import rows_to_arrays
from tests.server.protocol.requests import LIMITS, WRITERS, body_of, column, columns_of, read, tensors_of

KEY = b"0123456789abcdef"
TABLE = columns_of(
    Column(name="tail", datatype="BYTES", kind="categorical", nullable=True),
    Column(name="hour", datatype="INT64", kind="numeric"),
    column("temp", "FP32", nullable=True),
)
MATRIX = Signature(
    layout="matrix",
    inputs=[Tensor(name="input", datatype="FP32", shape=[-1, 3])],
    outputs=[],
    columns=[column("a", "FP32"), column("b", "FP32", nullable=True), column("c", "FP32")],
)


def made(signature: Signature, **columns: How) -> Redactor:
    found = redactor_of("m", signature, columns, KEY)
    assert found is not None
    return found


def kept(redactor: Redactor, body: bytes, header_length: int | None, signature: Signature) -> list[dict[str, Any]]:
    """Returns the tensors that an event keeps of a body."""
    decoded = read(body, header_length, signature)
    tensors: list[dict[str, Any]] = msgspec.json.decode(redactor.redact(decoded.logged, decoded.arrays))
    return tensors


def flights(tail: list[str | None], hour: list[int], temp: list[float | None], shape: list[int] | None = None) -> bytes:
    """Returns a body of three columns, spaced as no encoder of ours would."""
    shape = shape or [len(tail)]
    return msgspec.json.encode(
        {
            "inputs": [
                {"name": "hour", "shape": shape, "datatype": "INT64", "data": hour},
                {"name": "temp", "shape": shape, "datatype": "FP32", "data": temp, "parameters": {"unit": "C"}},
                {"name": "tail", "shape": shape, "datatype": "BYTES", "data": tail},
            ]
        }
    ).replace(b'"data":', b'"data":  ')


def test_each_way_of_hiding_a_column() -> None:
    """Nulls, hashes, or no tensor; shapes are the graph's, and what is not hidden is byte for byte what came."""
    body = flights(["N1", None, "N1"], [3, 4, 3], [0.5, None, 1.5])
    decoded = read(body, None, TABLE)

    redacted = made(TABLE, tail="hash", hour="mask", temp="drop").redact(decoded.logged, decoded.arrays)
    untouched = made(TABLE, tail="drop").redact(decoded.logged, decoded.arrays)

    digest = hmac.new(KEY, b"N1", hashlib.sha256).hexdigest()[:16]
    assert msgspec.json.decode(redacted) == [
        {"name": "hour", "shape": [3, 1], "datatype": "INT64", "data": [None] * 3},
        {"name": "tail", "shape": [3, 1], "datatype": "BYTES", "data": [digest, None, digest]},
    ]
    assert bytes(untouched) == body[body.index(b"[") : body.index(b',{"name":"tail"')] + b"]"


@pytest.mark.parametrize("form", WRITERS)
def test_a_matrix_is_told_column_by_column(form: str) -> None:
    """The bundle knows the names of a matrix's columns: with some hidden, each is a tensor of its own."""
    matrix = np.array([[1, 2, 3], [4, np.nan, 6]], dtype=np.float32)
    body, length = body_of(WRITERS["binary"]("input", "FP32", matrix))
    if form == "json":
        data = [1, 2, 3, 4, None, 6]
        body = msgspec.json.encode({"inputs": [{"name": "input", "shape": [2, 3], "datatype": "FP32", "data": data}]})

    tensors = kept(made(MATRIX, a="drop", b="hash"), body, length if form == "binary" else None, MATRIX)
    masked = kept(made(MATRIX, a="mask"), body, length if form == "binary" else None, MATRIX)

    assert tensors == [
        {"name": "b", "shape": [2, 1], "datatype": "BYTES", "data": [hash_of("2", KEY), None]},
        {"name": "c", "shape": [2, 1], "datatype": "FP32", "data": [3, 6]},
    ]
    assert [(tensor["name"], tensor["data"]) for tensor in masked] == [
        ("a", [None] * 2),
        ("b", [2, None]),
        ("c", [3, 6]),
    ]


def test_a_graph_of_tensors_has_its_inputs_for_columns() -> None:
    """A text model's text can be hidden as a table's column can."""
    signature = tensors_of(
        Tensor(name="text", datatype="BYTES", shape=[-1]), Tensor(name="ids", datatype="INT64", shape=[-1, 2])
    )
    body, _ = body_of(
        WRITERS["json"]("text", "BYTES", np.array(["a", ""], dtype=object)),
        WRITERS["json"]("ids", "INT64", np.array([[1, 2], [3, 4]])),
    )

    masked = kept(made(signature, text="mask", ids="hash"), body, None, signature)
    hashed = kept(made(signature, text="hash"), body, None, signature)

    assert masked[0]["data"] == [None, None]
    assert masked[1] == {
        "name": "ids", "shape": [2, 2], "datatype": "BYTES", "data": [hash_of(str(each), KEY) for each in (1, 2, 3, 4)]
    }  # fmt: skip
    assert hashed[0]["data"] == [hash_of("a", KEY), hash_of("", KEY)]  # no table says that "" is missing


def data_of(tensors: list[dict[str, Any]]) -> dict[str, Any]:
    return {tensor["name"]: tensor["data"] for tensor in tensors}


def test_a_value_has_one_hash_however_it_came() -> None:
    """JSON, binary and rows; integers and floats of any width; two columns and two models: joins stay possible."""
    signature = columns_of(column("x", "FP32"), column("y", "FP64"), column("z", "INT64"))
    redactor, other = made(signature, x="hash", y="hash", z="hash"), redactor_of("other", signature, {"y": "hash"}, KEY)
    given = [
        ("x", "FP32", np.array([[0.1], [7.0]], dtype=np.float32)),
        ("y", "FP64", np.array([[0.1], [7.0]])),
        ("z", "INT64", np.array([[5], [7]])),
    ]
    tenth, seven = hash_of("0.1", KEY), hash_of("7", KEY)
    expected = {"x": [tenth, seven], "y": [tenth, seven], "z": [hash_of("5", KEY), seven]}

    for form, write in WRITERS.items():
        body, length = body_of(*[write(*each) for each in given])
        assert data_of(kept(redactor, body, length if form == "binary" else None, signature)) == expected
    as_rows = rows_to_arrays([{"x": 0.1, "y": 0.1, "z": 5}, {"x": 7, "y": 7, "z": 7}], signature, LIMITS)
    logged = join_array(encode_arrays(as_rows, signature.inputs))
    assert data_of(msgspec.json.decode(redactor.redact(logged, as_rows))) == expected
    assert other is not None
    assert data_of(msgspec.json.decode(other.redact(logged, as_rows)))["y"] == expected["y"]
    assert hash_of("7", b"another key of ours") != seven


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False)), st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_texts_give_numbers_back(floats: list[float], integers: list[int]) -> None:
    """Two values share a text only if they are one value, 0 and -0 aside."""
    assert [float(text) for text in texts_of(np.array(floats)) if text is not None] == floats
    assert [int(text) for text in texts_of(np.array(integers, dtype=np.int64)) if text is not None] == integers


def test_who_is_named_for_a_model_wins() -> None:
    """`model/column` before `column`; a name for another model hides nothing, and nothing hidden is no redactor."""
    columns: dict[str, How] = {"tail": "drop", "m/tail": "hash", "other/hour": "mask"}

    assert made(TABLE, **columns).columns == {"tail": "hash"}
    assert redactor_of("other", TABLE, columns, KEY).columns == {"tail": "drop", "hour": "mask"}  # type: ignore[union-attr]
    assert redactor_of("m", MATRIX, columns, KEY) is None


def test_a_name_that_is_escaped_is_the_same_name() -> None:
    """What decides is the decoded name, not how the client wrote it."""
    body = flights(["N1"], [3], [0.5]).replace(b'"tail"', b'"\\u0074ail"')

    assert [tensor["name"] for tensor in kept(made(TABLE, tail="drop"), body, None, TABLE)] == ["hour", "temp"]
