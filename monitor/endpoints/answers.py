"""How the monitor's answers look: JSON, and one table from error to status."""

from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from monitor.errors import InvalidError, MonitorError, UnknownError

STATUS = {UnknownError: 404, InvalidError: 400}

_encode = msgspec.json.Encoder().encode


def json_answer(document: Any, status: int = 200) -> Response:
    """Returns a document as JSON; numbers that are not finite become null."""
    return Response(_encode(document), status, media_type="application/json", headers={"Cache-Control": "no-store"})


async def on_monitor_error(_: Request, error: Exception) -> Response:
    """Returns the sentence of one of the monitor's own errors, with its status."""
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
    return json_answer({"error": str(error)}, status)


async def on_http_error(request: Request, error: Exception) -> Response:
    """Returns a sentence for an unknown path or a wrong method."""
    assert isinstance(error, HTTPException)
    answer = json_answer({"error": f"{error.detail}: {request.method} {request.url.path}"}, error.status_code)
    answer.headers.update(error.headers or {})
    return answer


async def on_fault(_: Request, __: Exception) -> Response:
    """Returns that the fault is ours; the log has the traceback."""
    return json_answer({"error": "internal error, see the monitor's log"}, 500)


HANDLERS = {MonitorError: on_monitor_error, HTTPException: on_http_error, Exception: on_fault}
