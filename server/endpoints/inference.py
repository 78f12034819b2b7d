"""``POST /v2/models/{model}[/versions/{version}]/infer`` and ``POST /v1/models/{model}/predict``.

Both are plain ASGI applications: Starlette's request and response objects cost more than the
scoring itself.
"""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
from starlette.types import Receive, Scope, Send

from server.contract.manifest import Manifest, Signature
from server.endpoints.wire import ClientGoneError, read_body, send_error, send_json
from server.errors import InvalidRequestError, TiltyardError
from server.protocol.json_codec import (
    decode_inputs,
    decode_request,
    decode_rows_request,
    encode_arrays,
    join_array,
    rows_to_arrays,
)
from server.protocol.messages import InferenceRequest, InferenceResponse, RowsRequest, RowsResponse
from server.protocol.status import status_of
from server.scoring import Payload, Rows, Scored, event_time_of
from server.service import Service


class TensorsPayload:
    """An inference request's tensors; its event takes the bytes of ``inputs`` as they came."""

    __slots__ = ("_inputs", "_max_elements", "_selected", "event_time", "request_id")

    def __init__(self, request: InferenceRequest, event_time: datetime | None, max_elements: int) -> None:
        self.request_id = request.id or None
        self.event_time = event_time
        self._inputs = request.inputs
        self._selected = [output.name for output in request.outputs or ()]
        self._max_elements = max_elements

    def rows(self, signature: Signature) -> Rows:
        """Returns the tensors as the version takes them.

        Raises:
            InvalidRequestError: an input does not fit, or an output is unknown or selected twice.
        """
        names = [output.name for output in signature.outputs]
        for place, name in enumerate(self._selected):
            if name not in names or name in self._selected[:place]:
                raise InvalidRequestError(
                    f"output {name!r}: expected each once and among {names}, got {self._selected}"
                )
        arrays, count = decode_inputs(self._inputs, signature, self._max_elements)
        return Rows(arrays, count, self._inputs)


class RowsPayload:
    """Rows of named values; their event holds the tensors they became."""

    __slots__ = ("_max_elements", "_rows", "event_time", "request_id")

    def __init__(self, request: RowsRequest, event_time: datetime | None, max_elements: int) -> None:
        self.request_id = request.id or None
        self.event_time = event_time
        self._rows = request.rows
        self._max_elements = max_elements

    def rows(self, signature: Signature) -> Rows:
        """Returns the rows as the version's tensors, or raises InvalidRequestError."""
        elements = len(self._rows) * len(signature.columns)
        if elements > self._max_elements:
            raise InvalidRequestError(f"expected at most {self._max_elements} values in all rows, got {elements}")
        arrays = rows_to_arrays(self._rows, signature)
        return Rows(arrays, len(self._rows), join_array(encode_arrays(arrays, signature.inputs)))


class Inference:
    """Scores a body: decode names the payload, respond makes the answer's body."""

    def __init__(
        self,
        service: Service,
        decode: Callable[[bytes, Service], tuple[Payload, Any]],
        respond: Callable[[Scored, Any], Any],
    ) -> None:
        """decode: bytes to payload and the request; respond: the answer and the request to a body."""
        self._service = service
        self._decode = decode
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request; what fails before a version is known is counted without one."""
        arrived_ns = time.perf_counter_ns()
        service = self._service
        model = scope["path_params"]["model"]
        version = scope["path_params"].get("version")
        known = False
        try:
            body = await read_body(scope, receive, service.settings.limits.body_bytes)
            route = service.route(model, version)
            payload, request = self._decode(body, service)
            known = version is not None or route.champion is not None
            scored = await service.scorer.score(route, version, payload, arrived_ns, service.shadows)
            answer = self._respond(scored, request)
        except ClientGoneError:
            return
        except TiltyardError as error:
            if not known:
                service.metrics.refused(model if model in service.routes else "", status_of(error))
            await send_error(send, error)
            return
        except Exception:
            service.metrics.refused(model if model in service.routes else "", 500)
            raise
        await send_json(send, 200, answer)


def decode_tensors(body: bytes, service: Service) -> tuple[Payload, InferenceRequest]:
    """Returns the payload of an Open Inference Protocol body, or raises InvalidRequestError."""
    request = decode_request(body)
    return TensorsPayload(request, _event_time(request.parameters, service), service.settings.limits.elements), request


def decode_rows(body: bytes, service: Service) -> tuple[Payload, RowsRequest]:
    """Returns the payload of a body of rows, or raises InvalidRequestError."""
    request = decode_rows_request(body)
    return RowsPayload(request, _event_time(request.parameters, service), service.settings.limits.elements), request


def respond_tensors(scored: Scored, request: InferenceRequest) -> InferenceResponse:
    """Returns the protocol's answer with the outputs that the request selects, in its order."""
    manifest = scored.version.manifest
    outputs = scored.tensors
    if request.outputs:
        by_name = {output.name: tensor for output, tensor in zip(manifest.signature.outputs, outputs, strict=True)}
        outputs = [by_name[output.name] for output in request.outputs]
    return InferenceResponse(
        model_name=scored.model,
        model_version=manifest.version,
        id=scored.request_id,
        outputs=[msgspec.Raw(tensor) for tensor in outputs],
    )


def respond_rows(scored: Scored, request: RowsRequest) -> RowsResponse:
    """Returns one prediction a row, and a classifier's probabilities in the manifest's class order."""
    manifest = scored.version.manifest
    by_role = {output.role: scored.outputs[output.name] for output in manifest.signature.outputs}
    predictions = by_role["value"] if manifest.task == "regression" else by_role["label"]
    probabilities = by_role.get("probabilities")
    return RowsResponse(
        id=scored.request_id,
        model=scored.model,
        version=manifest.version,
        predictions=_as_classes(predictions.ravel(), manifest),
        probabilities=None if probabilities is None else probabilities.tolist(),
    )


def _as_classes(predictions: "np.ndarray[Any, np.dtype[Any]]", manifest: Manifest) -> list[Any]:
    """Returns predictions as the training table had them: a graph knows no bool labels, only 0 and 1."""
    if manifest.classes and isinstance(manifest.classes[0], bool):
        return [bool(value) for value in predictions]
    values: list[Any] = predictions.tolist()
    return values


def _event_time(parameters: dict[str, Any] | None, service: Service) -> datetime | None:
    return event_time_of(parameters) if service.settings.events.client_time else None
