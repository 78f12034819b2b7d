"""Scoring for the fast lane: the pipeline's coroutine is driven by hand, so that a request is no task."""

import contextvars
import logging
from asyncio import Future
from collections.abc import Callable
from typing import Any

from server.endpoints.inference import Inference
from server.endpoints.scoring_paths import ScoringPaths
from server.endpoints.wire import Head, error_reply, head_of, own_fault, plain_body
from server.errors import ClientGoneError, InvalidRequestError, TiltyardError
from server.execution.batcher import Turn
from server.fast_lane import Headers
from server.protocol.reply import Reply
from server.scoring import ShadowWork
from server.service import Service

logger = logging.getLogger(__name__)

Answer = Callable[[Reply | None], None]


class Direct:
    """Finds out what heads ask for."""

    def __init__(self, service: Service, paths: ScoringPaths) -> None:
        """paths: those that score."""
        self._service = service
        self._paths = paths

    def prepare(self, path: str, headers: Headers) -> "PreparedScoring | None":
        """Returns what a POST asks for; None for what does not score or would be refused for its head.

        Args:
            path: decoded.
            headers: with names in small letters.
        """
        target = self._paths.find(path)
        if target is None:
            return None
        try:
            head = head_of(headers, 0, lambda: False)
        except InvalidRequestError:
            return None
        length = head.content_length
        if length is None or length > self._service.settings.limits.body_bytes:
            return None
        return PreparedScoring(self._service, target.endpoint, target.model, target.version, head, length)


class PreparedScoring:
    """A head that asks an endpoint to score."""

    def __init__(
        self, service: Service, endpoint: Inference, model: str, version: str | None, head: Head, body_bytes: int
    ) -> None:
        """head: of no request in particular; body_bytes: as it declares."""
        self.body_bytes = body_bytes
        self.service = service
        self.endpoint = endpoint
        self.model = model
        self.version = version
        self._authorization = head.authorization
        self._head = (
            head.content_length,
            head.content_encoding,
            head.json_length,
            head.accept_encoding,
            head.authorization,
            head.timeout_ms,
            head.headers,
        )

    def may_wait(self) -> bool:
        """Says whether the caller is known: a stranger is refused before its body comes."""
        try:
            self.service.admission.check(self._authorization, None)
        except TiltyardError:
            return False
        return True

    def begin(self, body: bytes, arrived_ns: int, gone: Callable[[], bool], answer: Answer) -> None:
        """Works on one request; see server/fast_lane.py."""
        _Work(self, answer).begin(Head(arrived_ns, gone, *self._head), body)


class _Work:
    """One request on its way."""

    __slots__ = ("_answer", "_context", "_coroutine", "_prepared")

    def __init__(self, prepared: PreparedScoring, answer: Answer) -> None:
        self._prepared = prepared
        self._answer = answer

    def begin(self, head: Head, body: bytes) -> None:
        prepared = self._prepared
        service, endpoint = prepared.service, prepared.endpoint
        try:
            service.admission.enter(head.authorization, "infer")
        except Exception as error:  # noqa: BLE001  # told to the client
            endpoint.count_refused(prepared.model, error)
            self._answer(_reply_to(error))
            return
        try:
            if head.content_encoding:
                body = plain_body(body, head, service.settings.limits)
        except Exception as error:  # noqa: BLE001  # as above
            endpoint.count_refused(prepared.model, error)
            self._end(_reply_to(error), ())
            return
        self._context = contextvars.copy_context()  # what is logged on the way names this request, and no other
        self._coroutine = endpoint.answer(prepared.model, prepared.version, head, body)
        self._step()

    def _step(self) -> None:
        """Runs the pipeline until it waits for something, or has an answer."""
        try:
            awaited: Future[Any] = self._context.run(self._coroutine.send, None)
        except StopIteration as done:
            self._end(*done.value)
        except Exception as error:  # noqa: BLE001  # as above
            self._end(_reply_to(error), ())
        else:
            awaited._asyncio_future_blocking = False  # as a task does to show that it knows
            if isinstance(awaited, Turn):
                awaited.resume = self._step
            else:
                awaited.add_done_callback(self._go_on)

    def _go_on(self, awaited: "Future[Any]") -> None:
        self._step()

    def _end(self, reply: Reply | None, shadows: tuple[ShadowWork, ...]) -> None:
        service = self._prepared.service
        try:
            self._answer(reply)
        finally:
            if shadows:
                service.shadows.offer(shadows)
            service.admission.leave()


def _reply_to(error: Exception) -> Reply | None:
    if isinstance(error, ClientGoneError):
        return None
    if isinstance(error, TiltyardError):
        return error_reply(error)
    logger.error("the application failed on a request", exc_info=error)
    return own_fault()
