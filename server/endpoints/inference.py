"""The endpoints that score: tensors over the Open Inference Protocol, and rows of named values.

All are plain ASGI applications: Starlette's request and response objects cost more than the
scoring itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

import numpy as np
from starlette.types import Receive, Scope, Send

from server.contract.manifest import Manifest, Signature
from server.endpoints.wire import (
    OCTETS,
    Head,
    compressed,
    encode,
    read_body,
    read_head,
    send_error,
    send_reply,
)
from server.errors import InvalidRequestError, TiltyardError
from server.identifiers import uuid7
from server.logs import current_request_id
from server.payload import Caller, Payload, Rows, event_time_of
from server.protocol.binary_codec import split_body
from server.protocol.json_codec import decode_request, encode_arrays, join_array
from server.protocol.messages import InferenceRequest, InstancesResponse, Parameters, RowsResponse, timeout_us_of
from server.protocol.reply import Reply
from server.protocol.rows import decode_instances, decode_rows_request, rows_to_arrays
from server.protocol.status import status_of
from server.protocol.tensor_form import TensorForm
from server.protocol.tensors import (
    DecodedInputs,
    TensorLimits,
    decode_inputs,
    decode_raw,
    encode_answer,
    select_outputs,
)
from server.scoring import Scored, ShadowWork, withheld
from server.service import Service
from server.tracing import note_request


class Exchange(Payload, Protocol):
    """A request as the pipeline takes it, which also knows how its client is answered."""

    def reply(self, scored: Scored) -> Reply:
        """Returns the answer in the form that the endpoint promises."""
        ...


class _Kept(ABC):
    """A request that keeps the rows it became: champion and challengers mostly take the same ones."""

    __slots__ = ("_body_bytes", "_known", "_limits", "caller", "event_time", "parameters", "request_id")

    def __init__(self, body: bytes, limits: TensorLimits) -> None:
        self._body_bytes = len(body)
        self._limits = limits
        self._known: tuple[TensorForm, Rows] | None = None

    @property
    def size_bytes(self) -> int:
        """How much memory the request holds, nearly: its body's and its arrays'."""
        arrays = () if self._known is None else self._known[1].arrays.values()
        return self._body_bytes + sum(array.nbytes for array in arrays)

    def rows(self, form: TensorForm) -> Rows:
        """Returns the rows as a version of this form takes them.

        Raises:
            InvalidRequestError: they do not fit it.
        """
        known = self._known
        if known is None or (known[0] is not form and known[0].signature != form.signature):
            known = self._known = form, self._rows_for(form)
        return known[1]

    @abstractmethod
    def _rows_for(self, form: TensorForm) -> Rows:
        """Returns the rows anew, or raises InvalidRequestError."""


class Tensors(_Kept):
    """A request of the Open Inference Protocol; its event takes the bytes of ``inputs`` as they came."""

    __slots__ = ("_body", "_request", "_tail")

    def __init__(self, body: bytes, head: Head, service: Service) -> None:
        """Reads the envelope.

        Raises:
            InvalidRequestError: the body is no inference request.
        """
        super().__init__(body, service.tensor_limits)
        self._tail: memoryview | None = None
        self._body = body
        request = self._request = self._envelope(head.json_length)
        self.parameters = None if request is None else request.parameters
        self.request_id = (request and request.id) or uuid7()
        self.event_time = _event_time(self.parameters, service)
        self.caller = _caller(self.parameters, head)

    def _envelope(self, json_length: int | None) -> InferenceRequest | None:
        """Returns the body's JSON, None for one without any: 0 bytes of it, and all the rest are elements."""
        if json_length is None:
            return decode_request(self._body, self._limits.nesting)
        if json_length == 0:
            return None
        envelope, self._tail = split_body(self._body, json_length)
        return decode_request(envelope, self._limits.nesting)

    def _rows_for(self, form: TensorForm) -> Rows:
        request, everything = self._request, form.selected
        if request is not None and everything is not None and self._tail is None:
            usual = None if request.parameters or request.outputs else form.read(request.inputs, self._limits)
            if usual is not None:
                return Rows(usual.arrays, usual.rows, usual.logged, everything)
        selected = select_outputs(request, form.signature)
        decoded = self._decode(form.signature)
        return Rows(decoded.arrays, decoded.rows, decoded.logged, selected)

    def _decode(self, signature: Signature) -> DecodedInputs:
        if self._request is None:
            return decode_raw(self._body, signature, self._limits)
        return decode_inputs(self._request.inputs, self._tail, signature, self._limits)

    def reply(self, scored: Scored) -> Reply:
        """Returns the protocol's answer: JSON, followed by the outputs that the client wants as they are."""
        form, manifest = scored.version.form, scored.version.manifest
        if scored.selected is form.selected:
            return Reply(form.answer(scored.request_id, scored.logged))
        answer = encode_answer(
            scored.model,
            manifest.version,
            scored.request_id,
            scored.outputs,
            scored.tensors,
            manifest.signature.outputs,
            scored.selected,
        )
        if answer.header_length is None:
            return Reply(answer.body)
        length = str(answer.header_length).encode()
        return Reply(answer.body, OCTETS, ((b"inference-header-content-length", length),))


class NamedRows(_Kept):
    """Rows of named values; their event holds the tensors they became."""

    __slots__ = ("_named",)

    def __init__(self, body: bytes, head: Head, service: Service) -> None:
        """Reads the rows.

        Raises:
            InvalidRequestError: the body is no request of rows.
        """
        super().__init__(body, service.tensor_limits)
        request = decode_rows_request(body, self._limits.nesting)
        self._named = request.rows
        self.parameters = request.parameters
        self.request_id = request.id or uuid7()
        self.event_time = _event_time(request.parameters, service)
        self.caller = _caller(request.parameters, head)

    def _rows_for(self, form: TensorForm) -> Rows:
        signature = form.signature
        arrays = rows_to_arrays(self._named, signature, self._limits)
        logged = join_array(encode_arrays(arrays, signature.inputs))
        return Rows(arrays, len(self._named), logged, [])

    def reply(self, scored: Scored) -> Reply:
        """Returns one prediction a row, and a classifier's probabilities in the manifest's class order."""
        manifest = scored.version.manifest
        probabilities = _by_role(scored).get("probabilities")
        return Reply(
            encode(
                RowsResponse(
                    id=scored.request_id,
                    model=scored.model,
                    version=manifest.version,
                    predictions=_predictions(scored),
                    probabilities=None if probabilities is None else probabilities.tolist(),
                )
            )
        )


class Instances(_Kept):
    """A request of KServe's V1 protocol, which is TensorFlow Serving's."""

    __slots__ = ("_instances",)

    def __init__(self, body: bytes, head: Head, service: Service) -> None:
        """Reads the instances.

        Raises:
            InvalidRequestError: the body is no request of instances.
        """
        super().__init__(body, service.tensor_limits)
        self._instances = decode_instances(body)
        self.parameters: Parameters | None = None
        self.request_id = uuid7()
        self.event_time: datetime | None = None
        self.caller = _caller(None, head)

    def _rows_for(self, form: TensorForm) -> Rows:
        signature = form.signature
        arrays = rows_to_arrays(self._instances, signature, self._limits)
        logged = join_array(encode_arrays(arrays, signature.inputs))
        return Rows(arrays, len(self._instances), logged, [])

    def reply(self, scored: Scored) -> Reply:
        """Returns the predictions alone, one an instance."""
        return Reply(encode(InstancesResponse(predictions=_predictions(scored))))


class Inference:
    """Scores the requests of one form."""

    def __init__(self, service: Service, form: Callable[[bytes, Head, Service], Exchange]) -> None:
        """form: makes a body into an exchange, or raises InvalidRequestError."""
        self._service = service
        self._form = form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request whose path Starlette has matched."""
        parameters = scope["path_params"]
        await self.respond(parameters["model"], parameters.get("version"), scope, receive, send)

    async def respond(self, model: str, version: str | None, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request; what fails before a version is known is counted without one."""
        service = self._service
        entered = False
        try:
            try:
                head = read_head(scope)
                service.admission.enter(head.authorization, "infer")
                entered = True
                body = await read_body(head, receive, service.settings.limits)
            except Exception as error:
                self.count_refused(model, error)
                raise
            reply, shadows = await self.answer(model, version, head, body)
        except TiltyardError as error:
            await send_error(send, error)
        else:
            try:
                await send_reply(send, reply)
            finally:  # the answer is written, or its client has gone
                service.shadows.offer(shadows)
        finally:
            if entered:
                service.admission.leave()

    async def answer(
        self, model: str, version: str | None, head: Head, body: bytes
    ) -> tuple[Reply, tuple[ShadowWork, ...]]:
        """Returns the answer to a request that was let in, and what is still to be scored once it is written.

        Args:
            model: as the target names it.
            version: the client's choice, None to let the route decide.
            head: the request's headers.
            body: decompressed.

        Raises:
            TiltyardError: why there is no answer; it is counted.
        """
        service = self._service
        known = hides = False
        try:
            route = service.traffic.route(model, version)
            hides = route.hides
            exchange = self._form(body, head, service)
            current_request_id.set(exchange.request_id)
            known = version is not None or route.champion is not None
            scored = await service.scorer.score(route, version, exchange)
            note_request(scored.request_id, model, scored.version.manifest.version)
            reply = exchange.reply(scored)
            if head.accept_encoding is not None:
                reply = compressed(reply, head.accept_encoding)
            return reply, scored.shadows
        except TiltyardError as error:
            if not known:
                self.count_refused(model, error)
            raise
        except Exception as error:
            self.count_refused(model, error)
            if hides:
                raise withheld(error) from None
            raise

    def count_refused(self, model: str, error: Exception) -> None:
        """Counts a request that ended before a version was known, or in what nobody foresaw."""
        code = status_of(error) if isinstance(error, TiltyardError) else 500
        # A name that no model has must not become a label's value: anyone could make series without end.
        self._service.metrics.refused(model if model in self._service.traffic.routes else "", code)


def _predictions(scored: Scored) -> list[Any]:
    manifest = scored.version.manifest
    by_role = _by_role(scored)
    predictions = by_role["value"] if manifest.task == "regression" else by_role["label"]
    return _as_classes(predictions.ravel(), manifest)


def _by_role(scored: Scored) -> dict[str | None, Any]:
    return {output.role: scored.outputs[output.name] for output in scored.version.manifest.signature.outputs}


def _as_classes(predictions: "np.ndarray[Any, np.dtype[Any]]", manifest: Manifest) -> list[Any]:
    """Returns predictions as the training table had them: a graph knows no bool labels, only 0 and 1."""
    if manifest.classes and isinstance(manifest.classes[0], bool):
        return [bool(value) for value in predictions]
    values: list[Any] = predictions.tolist()
    return values


def _event_time(parameters: Parameters | None, service: Service) -> datetime | None:
    return event_time_of(parameters) if service.settings.events.client_time else None


def _caller(parameters: Parameters | None, head: Head) -> Caller:
    """Returns who waits, with the earlier of the deadlines that body and header set."""
    if parameters is None and head.timeout_ms is None:
        return Caller(head.arrived_ns, None, head.gone, head.header)
    allowed_us = [] if parameters is None else [timeout_us_of(parameters)]
    if head.timeout_ms is not None:
        if head.timeout_ms == 0:
            raise InvalidRequestError("header x-request-timeout-ms: expected 1 or more, got 0")
        allowed_us.append(head.timeout_ms * 1000)
    limits = [allowed for allowed in allowed_us if allowed is not None]
    deadline_ns = head.arrived_ns + min(limits) * 1000 if limits else None
    return Caller(head.arrived_ns, deadline_ns, head.gone, head.header)
