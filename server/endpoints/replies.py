"""Starlette responses for the endpoints that are not on the hot path."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from server.endpoints.wire import encode, error_headers
from server.errors import RouteError, TiltyardError
from server.protection.tokens import Scope
from server.protocol.messages import ErrorBody
from server.protocol.status import status_of
from server.service import Service

Handler = Callable[[Request], Awaitable[Response]]


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Returns a response whose content type is exactly ``application/json``."""
    return Response(encode(value), status, headers, media_type="application/json")


def error_response(error: TiltyardError) -> Response:
    """Returns an error's sentence with its status, and of a route document every fault on its own."""
    body = ErrorBody(error=str(error), faults=error.faults if isinstance(error, RouteError) else msgspec.UNSET)
    return json_response(body, status_of(error), error_headers(error))


def guarded(service: Service, scope: Scope | None, handler: Handler) -> Handler:
    """Returns a handler for callers with a token for the scope, whose errors become responses.

    The caller's name is in ``request.state.caller``.
    """

    async def handle(request: Request) -> Response:
        try:
            authorization = request.headers.get("authorization")
            request.state.caller = service.admission.check(
                None if authorization is None else authorization.encode("latin-1"), scope
            )
            return await handler(request)
        except TiltyardError as error:
            return error_response(error)

    return handle
