"""The JSON bodies of the Open Inference Protocol and of the endpoints beside it.

A member that is null counts as absent, members unknown here are skipped: clients send both.
"""

from typing import Any

import msgspec

Parameters = dict[str, Any]


class InputTensor(msgspec.Struct, frozen=True, kw_only=True):
    """One input of an inference request, its data not yet decoded: its type is the signature's."""

    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class RequestedOutput(msgspec.Struct, frozen=True, kw_only=True):
    """An output that the client selects."""

    name: str
    parameters: Parameters | None = None


class InferenceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of ``POST …/infer``. ``inputs`` stays as bytes: the event takes them as they came."""

    id: str | None = None
    parameters: Parameters | None = None
    inputs: msgspec.Raw
    outputs: list[RequestedOutput] | None = None


class InferenceResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``POST …/infer``; ``outputs`` are tensors encoded already."""

    model_name: str
    model_version: str
    id: str
    outputs: list[msgspec.Raw]


class EncodedTensor(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor on its way out, its data flat in row-major order."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: list[Any]


class RowsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of ``POST /v1/models/{model}/predict``."""

    id: str | None = None
    parameters: Parameters | None = None
    rows: list[dict[str, Any]]


class RowsResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to rows: one prediction a row, and a classifier's probabilities in class order."""

    id: str
    model: str
    version: str
    predictions: list[Any]
    probabilities: list[list[float]] | None = None


class FeedbackItem(msgspec.Struct, frozen=True, kw_only=True):
    """The truth about one request. ``event_id`` makes a resend harmless."""

    id: str
    label: bool | int | float | str | list[bool | int | float | str | None] | None = None
    row: int | None = None
    model: str | None = None
    time: str | None = None
    reward: float | None = None
    event_id: str | None = None


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """Every error's body, whatever its status."""

    error: str


class TensorMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """An input or output in a model's metadata; -1 is a dimension that varies."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``GET /v2/models/{model}``."""

    name: str
    versions: list[str]
    platform: str = "onnx_onnxv1"
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``GET /v2``."""

    name: str
    version: str
    extensions: list[str]
