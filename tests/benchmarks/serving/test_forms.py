"""The same question in every form."""

import json

import numpy as np
import pytest

from benchmarks.serving.forms import BINARY, JSON, LENGTH, MLFLOW, ROWS, Form, differs

X = np.array([[0.1234567, -2.5], [1e-7, 3.0]], dtype=np.float32)
EXPECTED = {"label": np.array([1, 0]), "probabilities": np.array([0.25, 0.75, 0.5, 0.5], dtype=np.float32)}
OUTPUTS = [
    {"name": "label", "shape": [2, 1], "datatype": "INT64", "data": [1, 0]},
    {"name": "probabilities", "shape": [2, 2], "datatype": "FP32", "data": [0.25, 0.75, 0.5, 0.5], "parameters": None},
]
PLAIN = {"label": [1, 0], "probabilities": [[0.25, 0.75], [0.5, 0.5]]}
ANSWERS = [(JSON, {"outputs": OUTPUTS}), (ROWS, PLAIN), (MLFLOW, {"predictions": PLAIN})]


@pytest.mark.parametrize(("form", "member"), [(ROWS, "rows"), (MLFLOW, "inputs")])
def test_rows_are_the_very_numbers(form: Form, member: str) -> None:
    """What is written as decimals is read as the same 32-bit floats."""
    body, _ = form.body(X)

    np.testing.assert_array_equal(np.array(json.loads(body)[member], dtype=np.float32), X)


def test_a_tensor_is_the_same_as_json_and_as_binary() -> None:
    """Both of V2's forms carry the same numbers, row by row."""
    text, _ = JSON.body(X)
    binary, headers = BINARY.body(X)

    written = np.array(json.loads(text)["inputs"][0]["data"], dtype=np.float32)
    np.testing.assert_array_equal(written, X.ravel())
    np.testing.assert_array_equal(np.frombuffer(binary[int(headers[LENGTH]) :], "<f4"), X.ravel())


@pytest.mark.parametrize(("form", "answer"), ANSWERS)
def test_an_answer_is_read_in_every_form(form: Form, answer: object) -> None:
    """Outputs come flat by name, whatever the answer looks like."""
    assert differs(form.outputs(json.dumps(answer).encode(), {}), EXPECTED) is None


def test_binary_outputs_are_read_in_their_order() -> None:
    """Each tensor takes as many bytes as the header says it has."""
    sizes = [{"name": "label", "datatype": "INT64", "parameters": {"binary_data_size": 16}}]
    sizes.append({"name": "probabilities", "datatype": "FP32", "parameters": {"binary_data_size": 16}})
    head = json.dumps({"outputs": sizes}).encode()
    body = head + EXPECTED["label"].astype("<i8").tobytes() + EXPECTED["probabilities"].tobytes()

    assert differs(BINARY.outputs(body, {LENGTH.lower(): str(len(head))}), EXPECTED) is None


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"label": EXPECTED["label"]}, "expected outputs"),
        ({**EXPECTED, "label": np.array([1, 1])}, "label: expected"),
        ({**EXPECTED, "label": np.array([1])}, "label: expected"),
        ({**EXPECTED, "probabilities": EXPECTED["probabilities"] + 1e-4}, "probabilities: expected"),
    ],
)
def test_another_answer_is_told_from_the_expected_one(found: dict[str, np.ndarray], said: str) -> None:
    """A missing output, another label, another length and another probability are all noticed."""
    assert (differs(found, EXPECTED) or "").startswith(said)
