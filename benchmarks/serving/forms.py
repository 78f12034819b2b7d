"""How a contestant is asked and how it answers: one question, the same numbers, in the form that it speaks."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = dict[str, NDArray[Any]]
LENGTH = "Inference-Header-Content-Length"
DTYPES = {"FP32": "<f4", "INT64": "<i8"}


@dataclass(frozen=True)
class Form:
    """A way to put rows into a body, and to take outputs out of an answer.

    Attributes:
        name: what tables call it.
        body: x, float32, (rows, features), to body and headers.
        outputs: an answer's body and headers, of lower-case names, to flat values by output.
    """

    name: str
    body: Callable[[NDArray[np.float32]], tuple[bytes, dict[str, str]]]
    outputs: Callable[[bytes, Mapping[str, str]], Values]


def _v2_json(x: NDArray[np.float32]) -> tuple[bytes, dict[str, str]]:
    tensor = {"name": "input", "shape": list(x.shape), "datatype": "FP32", "data": _numbers(x.ravel())}
    return json.dumps({"inputs": [tensor]}).encode(), {}


def _v2_binary(x: NDArray[np.float32]) -> tuple[bytes, dict[str, str]]:
    tensor = {"name": "input", "shape": list(x.shape), "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    # Frameworks that believe the type would try to read the tensors as JSON.
    return head + x.tobytes(), {LENGTH: str(len(head)), "Content-Type": "application/octet-stream"}


def _rows(x: NDArray[np.float32]) -> tuple[bytes, dict[str, str]]:
    return json.dumps({"rows": [_numbers(row) for row in x]}).encode(), {}


def _inputs(x: NDArray[np.float32]) -> tuple[bytes, dict[str, str]]:
    return json.dumps({"inputs": [_numbers(row) for row in x]}).encode(), {}


def _v2_outputs(body: bytes, headers: Mapping[str, str]) -> Values:
    head = int(headers.get(LENGTH.lower(), len(body)))
    found, start = {}, head
    for output in json.loads(body[:head])["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size") if output.get("parameters") else None
        if size is None:
            found[output["name"]] = np.array(output["data"]).ravel()
        else:
            found[output["name"]] = np.frombuffer(body[start : start + size], DTYPES[output["datatype"]])
            start += size
    return found


def _named_outputs(body: bytes, headers: Mapping[str, str]) -> Values:
    return {name: np.array(values).ravel() for name, values in json.loads(body).items()}


def _predictions(body: bytes, headers: Mapping[str, str]) -> Values:
    return {name: np.array(values).ravel() for name, values in json.loads(body)["predictions"].items()}


def _numbers(values: NDArray[np.float32]) -> list[float]:
    """Returns the shortest decimals that are these very numbers."""
    return [float(str(value)) for value in values]


JSON = Form("JSON", _v2_json, _v2_outputs)
BINARY = Form("binary", _v2_binary, _v2_outputs)
ROWS = Form("JSON", _rows, _named_outputs)
MLFLOW = Form("JSON", _inputs, _predictions)


def differs(found: Values, expected: Values) -> str | None:
    """Returns what is wrong with an answer beside the graph's own, None where it is the same."""
    if found.keys() != expected.keys():
        return f"expected outputs {sorted(expected)}, got {sorted(found)}"
    for name, values in expected.items():
        if found[name].shape != values.shape or not np.allclose(found[name], values, rtol=0, atol=1e-6):
            return f"{name}: expected {values[:4]}… of {values.size}, got {found[name][:4]}… of {found[name].size}"
    return None
