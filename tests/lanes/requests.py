"""Requests that fit the models of models.py, whose answers and events name nothing that is generated."""

from typing import Any

import msgspec
import numpy as np

from tests.clients.graphs import DATATYPES
from tests.lanes.raw import post
from tests.server.live_server import tensors
from tests.server.protocol.requests import WRITERS, body_of

FLIGHT = "/v2/models/flight/infer"
GRID = "/v2/models/grid/infer"
DELAY = "/v2/models/delay/infer"
ECHO = "/v2/models/echo/infer"


def grid(*rows: tuple[float, float], **members: Any) -> dict[str, Any]:
    """Returns a request of rows to `grid`, of one row without any."""
    given = rows or ((17, 900.0),)
    flat = [value for row in given for value in row]
    return {
        "id": "g",
        "inputs": [{"name": "input", "shape": [len(given), 2], "datatype": "FP32", "data": flat}],
        **members,
    }


def delay(hour: int, **members: Any) -> dict[str, Any]:
    """Returns a request of one row to `delay`: version 2 has no answer to hours beyond 23."""
    inputs = [
        {"name": "hour", "shape": [1], "datatype": "INT64", "data": [hour]},
        {"name": "distance", "shape": [1], "datatype": "FP32", "data": [500.5]},
    ]
    return {"id": f"hour {hour}", "inputs": inputs, **members}


def flight(**members: Any) -> dict[str, Any]:
    """Returns a request of one row to `flight`."""
    return tensors(**{"id": "f", **members})


def flight_with(column: str, **changes: Any) -> dict[str, Any]:
    """Returns a request to `flight` with members of one input changed."""
    request = flight()
    inputs = [{**tensor, **changes} if tensor["name"] == column else tensor for tensor in request["inputs"]]
    return {**request, "inputs": inputs}


def echo(form: str, **members: Any) -> tuple[bytes, int]:
    """Returns a body with a matrix of every datatype, at the edges of each, and the length of its JSON.

    form: ``binary``, or ``json``; FP16 has no form in JSON, so it goes in binary both ways.
    """
    outputs = [{"name": f"{name.lower()}_out", "parameters": {"binary_data": name == "FP16"}} for name in DATATYPES]
    inputs = [
        (WRITERS["binary"] if name == "FP16" else WRITERS[form])(name.lower(), name, array)
        for name, (_, array) in DATATYPES.items()
    ]
    return body_of(*inputs, **{"id": "e", "outputs": outputs, **members})


def binary(target: str, body: bytes, json_length: int | str, *headers: str) -> bytes:
    """Returns a request whose body is JSON and tensors."""
    return post(target, body, f"Inference-Header-Content-Length: {json_length}", *headers)


def raw_rows(*rows: tuple[float, float]) -> bytes:
    """Returns rows of `grid` as nothing but elements."""
    return np.array(rows, "<f4").tobytes()


def json(value: object) -> bytes:
    return msgspec.json.encode(value)
