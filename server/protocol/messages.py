"""The JSON bodies of the Open Inference Protocol and of the endpoints beside it.

A member that is null counts as absent, members unknown here are skipped: clients send both.
"""

from typing import Any

import msgspec

from server.errors import InvalidRequestError
from server.protocol.json_body import decode_json

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


class BinaryTensor(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor on its way out whose elements follow the JSON; ``parameters`` say how many bytes they are."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    parameters: dict[str, int]


class PackedTensor(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor in an event that came or left in binary: its very bytes, which JSON shows as base64."""

    name: str
    shape: list[int] | tuple[int, ...]
    datatype: str
    base64: bytes | memoryview


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


class InstancesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of ``POST /v1/models/{model}:predict``: objects of named columns, or lists in the columns' order."""

    instances: list[dict[str, Any] | list[Any]]


class InstancesResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to instances: one prediction each."""

    predictions: list[Any]


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
    """Every error's body, whatever its status; ``faults`` are those of a document, one by one."""

    error: str
    faults: list[str] | msgspec.UnsetType = msgspec.UNSET


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


class ConfigTensor(msgspec.Struct, frozen=True, kw_only=True):
    """An input or output in a model's configuration; ``data_type`` is ``TYPE_FP32`` and its like."""

    name: str
    data_type: str
    dims: list[int]


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``GET /v2/models/{model}/config``; ``max_batch_size`` 0 is a model without batches."""

    name: str
    platform: str = "onnx_onnxv1"
    backend: str = "onnxruntime"
    max_batch_size: int
    input: list[ConfigTensor]
    output: list[ConfigTensor]
    version_policy: dict[str, Any] = msgspec.field(default_factory=lambda: {"all": {}})


class Duration(msgspec.Struct, frozen=True, kw_only=True):
    """How often something was done, and for how many nanoseconds altogether."""

    count: int = 0
    ns: int = 0


class InferenceStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of a version's requests went."""

    success: Duration = Duration()
    fail: Duration = Duration()
    queue: Duration = Duration()
    compute_input: Duration = Duration()
    compute_infer: Duration = Duration()
    compute_output: Duration = Duration()
    cache_hit: Duration = Duration()
    cache_miss: Duration = Duration()


class ModelStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What one version has done: ``last_inference`` in milliseconds since 1970, rows, and runs of the graph."""

    name: str
    version: str
    last_inference: int = 0
    inference_count: int = 0
    execution_count: int = 0
    inference_stats: InferenceStatistics = InferenceStatistics()
    batch_stats: list[Any] = []


class IndexRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of ``POST /v2/repository/index``."""

    ready: bool | None = None


class IndexEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A version in the repository's index."""

    name: str
    version: str
    state: str
    reason: str


class RepositoryRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a load or an unload."""

    parameters: Parameters | None = None


_index_decoder = msgspec.json.Decoder(IndexRequest)
_repository_decoder = msgspec.json.Decoder(RepositoryRequest)
# What clients send that have nothing to say.
_EMPTY = (b"", b'""', b"null")


def decode_index_request(body: bytes) -> bool:
    """Returns whether only versions that are ready are asked for, or raises InvalidRequestError."""
    return body.strip() not in _EMPTY and decode_json(_index_decoder, body).ready is True


def decode_repository_request(body: bytes) -> Parameters | None:
    """Returns the parameters of a load or an unload, or raises InvalidRequestError."""
    return None if body.strip() in _EMPTY else decode_json(_repository_decoder, body).parameters


def timeout_us_of(parameters: Parameters | None) -> int | None:
    """Returns how many microseconds a request's parameters give it, None for no end.

    Raises:
        InvalidRequestError: ``timeout`` is not an integer above 0.
    """
    timeout = (parameters or {}).get("timeout")
    if timeout is None:
        return None
    if type(timeout) is not int or timeout <= 0:
        raise InvalidRequestError("parameters.timeout: expected microseconds as an integer above 0, got another value")
    return timeout
