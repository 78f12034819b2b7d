"""Bodies in and out of ASGI, with the exact headers that protocol clients compare."""

from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from server.errors import InvalidRequestError, TiltyardError, TooLargeError
from server.protocol.messages import ErrorBody
from server.protocol.status import RETRY_AFTER_S, status_of

_encoder = msgspec.json.Encoder()
_JSON = (b"content-type", b"application/json")


class ClientGoneError(Exception):
    """The client closed its connection before its request was whole."""


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Returns the request's body.

    Args:
        limit: bytes at most; a declared length beyond it is refused before anything is read.

    Raises:
        TooLargeError: the body is larger.
        ClientGoneError: the client left.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise TooLargeError(f"expected a body of at most {limit} bytes, got {int(value)}")
        if name == b"content-encoding" and value.lower() != b"identity":
            raise InvalidRequestError("expected a body without content encoding, got an encoded one")
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        parts, size = [body], len(body)
        while message.get("more_body"):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise TooLargeError(f"expected a body of at most {limit} bytes, got more")
        body = b"".join(parts)
    if len(body) > limit:
        raise TooLargeError(f"expected a body of at most {limit} bytes, got {len(body)}")
    return body


async def send_json(send: Send, status: int, value: Any, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    """Answers with a value as JSON."""
    body = _encoder.encode(value)
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [_JSON, length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, error: TiltyardError) -> None:
    """Answers with an error's sentence and its status."""
    status = status_of(error)
    retry = ((b"retry-after", str(RETRY_AFTER_S).encode()),) if status == 503 else ()
    await send_json(send, status, ErrorBody(error=str(error)), retry)
