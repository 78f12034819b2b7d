"""The tensors of events: in JSON and packed, from the server's own codec."""

import math
import struct
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from monitor.tensors import NO_PREDICTIONS, input_columns, predictions
from server.contract.manifest import Tensor
from server.protocol.tensors import encode_outputs
from tests.monitor.conftest import make_profile


def tensors(arrays: dict[str, tuple[str, Any]], packed: bool) -> bytes:
    """Returns arrays as an event has them, by name, in JSON or packed."""
    specs = [Tensor(name=name, datatype=datatype, shape=[]) for name, (datatype, _) in arrays.items()]
    values = {name: array for name, (_, array) in arrays.items()}
    return b"[" + b",".join(encode_outputs(values, specs, frozenset(values) if packed else frozenset())) + b"]"


INPUTS = {
    "distance": ("FP32", np.array([[0.1], [-3e38], [16777217]], np.float32)),
    "wind": ("FP64", np.array([[np.nan], [0.1], [np.nan]], np.float64)),
    "carrier": ("BYTES", np.array([["AA"], [""], ["Zürich"]], object)),
}


@pytest.mark.parametrize("order", [("distance", "wind", "carrier"), ("carrier", "distance", "wind")])
def test_packed_inputs_are_the_columns_that_json_is(order: Sequence[str]) -> None:
    """Missing values and strings included, in the signature's order whatever the request's."""
    profile = make_profile()
    inputs = {name: INPUTS[name] for name in order}

    columns = input_columns(tensors(inputs, packed=True), profile, 3)

    assert columns == [
        [float(np.float32(0.1)), float(np.float32(-3e38)), 16777216.0],
        [None, 0.1, None],
        ["AA", "", "Zürich"],
    ]
    assert columns == input_columns(tensors(inputs, packed=False), profile, 3)


def test_a_packed_matrix_is_the_columns_that_json_is() -> None:
    """Row-major in both, a missing value in the middle."""
    profile = make_profile(layout="matrix", categorical=False)
    inputs = {"rows": ("FP32", np.array([[1, np.nan], [3, 4]], np.float32))}

    columns = input_columns(tensors(inputs, packed=True), profile, 2)

    assert columns == [[1.0, 3.0], [None, 4.0]]
    assert columns == input_columns(tensors(inputs, packed=False), profile, 2)


@pytest.mark.parametrize("datatype", ["INT64", "UINT8", "INT32", "BOOL"])
def test_packed_predictions_are_those_that_json_is(datatype: str) -> None:
    """Classes by value, probabilities with a missing one, whichever of the outputs is packed."""
    profile = make_profile()
    kind = {"INT64": np.int64, "UINT8": np.uint8, "INT32": np.int32, "BOOL": np.bool_}[datatype]
    outputs = {
        "label": (datatype, np.array([1, 0, 1], kind)),
        "probabilities": ("FP32", np.array([[0.25, 0.75], [np.inf, 0.5], [0.1, 0.9]], np.float32)),
    }

    by_packed = predictions(tensors(outputs, packed=True), profile, 3)
    by_json = predictions(tensors(outputs, packed=False), profile, 3)

    assert (by_packed.rows, by_packed.predicted, by_packed.scores) == (
        3,
        [1, 0, 1],
        [0.75, 0.5, float(np.float32(0.9))],
    )
    assert math.isnan(by_packed.numbers[2])
    assert repr(by_packed) == repr(by_json)


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_packed_values_of_a_regression_are_those_that_json_is(datatype: str) -> None:
    """Each float type has its own width."""
    profile = make_profile(task="regression", classes=())
    kind = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64}[datatype]
    outputs = {"value": (datatype, np.array([[0.1], [-2.5]], kind))}

    by_packed = predictions(tensors(outputs, packed=True), profile, 2)

    assert by_packed.numbers == [float(kind(0.1)), -2.5]
    assert by_packed == predictions(tensors(outputs, packed=False), profile, 2)


def packed_column(datatype: str, data: bytes) -> list[dict[str, Any]]:
    return [{"name": "distance", "datatype": datatype, "shape": [1, 1], "base64": b64encode(data).decode()}]


@pytest.mark.parametrize(
    "tensor",
    [
        *packed_column("FP32", b"123"),
        *packed_column("FP32", b""),
        *packed_column("FP99", b"1234"),
        *packed_column("BYTES", struct.pack("<I", 5) + b"1234"),
        *packed_column("BYTES", b"\0\0"),
        *packed_column("BYTES", struct.pack("<I", 1) + b"\xff"),
        {"name": "distance", "datatype": "FP32", "base64": "***"},
        {"name": "distance", "datatype": "FP32", "base64": 5},
        {"name": "distance", "datatype": "FP32"},
    ],
)
def test_packed_tensors_that_are_none_do_not_fit(tensor: dict[str, Any]) -> None:
    """A reader of a damaged log counts such an event as one that does not fit, and goes on."""
    profile = make_profile(categorical=False)
    wind = {"name": "wind", "datatype": "FP32", "data": [1.0]}
    value = {**tensor, "name": "value"}

    assert input_columns(msgspec.json.encode([tensor, wind]), profile, 1) is None
    assert predictions(msgspec.json.encode([value]), make_profile(task="regression", classes=()), 1) == NO_PREDICTIONS
