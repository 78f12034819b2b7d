"""Requests and answers in ASGI, with the exact headers that protocol clients compare."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from server.errors import (
    ClientGoneError,
    InvalidRequestError,
    RateLimitedError,
    StaleRouteError,
    TiltyardError,
    TooLargeError,
)
from server.protocol.compression import choose_encoding, compress, decompress
from server.protocol.messages import ErrorBody
from server.protocol.reply import Reply
from server.protocol.status import RETRY_AFTER_S, status_of
from server.settings import LimitSettings

OCTETS = b"application/octet-stream"
# Below this a packet carries the answer as it is, and compressing costs more than it saves.
COMPRESS_FROM_BYTES = 1400

_encoder = msgspec.json.Encoder()


class Head(msgspec.Struct, frozen=True):
    """What the server needs of a request's headers; absent ones are None.

    ``json_length`` is the protocol's ``Inference-Header-Content-Length``, ``timeout_ms`` the client's
    ``X-Request-Timeout-Ms``. ``arrived_ns`` is of time.perf_counter_ns; ``gone`` says whether the client
    has left.
    """

    arrived_ns: int
    gone: Callable[[], bool]
    content_length: int | None
    content_encoding: str | None
    json_length: int | None
    accept_encoding: str | None
    authorization: bytes | None
    timeout_ms: int | None
    headers: Sequence[tuple[bytes, bytes]]

    def header(self, name: bytes) -> bytes | None:
        """Returns the first value of a header, by its name in small letters."""
        for found, value in self.headers:
            if found == name:
                return value
        return None


def read_head(scope: Scope) -> Head:
    """Returns a request's headers, or raises InvalidRequestError for one that is not what it must be."""
    return head_of(
        scope["headers"], scope.get("tiltyard.arrived_ns") or time.perf_counter_ns(), scope.get("tiltyard.gone", _stays)
    )


def head_of(headers: Sequence[tuple[bytes, bytes]], arrived_ns: int, gone: Callable[[], bool]) -> Head:
    """Returns what the server needs of headers, their names in small letters.

    Raises:
        InvalidRequestError: one is not what it must be.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _READ:
            if name in found and found[name] != value and name in _ONCE:
                raise InvalidRequestError(f"header {name.decode()}: expected it once, got two that differ")
            found[name] = value
    encoding, accepted = found.get(b"content-encoding"), found.get(b"accept-encoding")
    return Head(
        arrived_ns=arrived_ns,
        gone=gone,
        content_length=_number(found, b"content-length"),
        content_encoding=None if encoding is None else encoding.decode("latin-1").strip().lower(),
        json_length=_number(found, b"inference-header-content-length"),
        accept_encoding=None if accepted is None else accepted.decode("latin-1"),
        authorization=found.get(b"authorization"),
        timeout_ms=_number(found, b"x-request-timeout-ms"),
        headers=headers,
    )


async def read_body(head: Head, receive: Receive, limits: LimitSettings) -> bytes:
    """Returns the request's body, decompressed.

    Raises:
        TooLargeError: the body is larger than a limit; a declared length beyond it is refused unread.
        EncodingError: it is compressed in an unknown way.
        InvalidRequestError: it is not compressed as it says.
        ClientGoneError: the client left.
    """
    limit = limits.body_bytes
    if head.content_length is not None and head.content_length > limit:
        raise TooLargeError(f"expected a body of at most {limit} bytes, got {head.content_length}")
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError("the client left before its request was whole")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise TooLargeError(f"expected a body of at most {limit} bytes, got more")
        more = message.get("more_body", False)
    return plain_body(parts[0] if len(parts) == 1 else b"".join(parts), head, limits)


def plain_body(body: bytes, head: Head, limits: LimitSettings) -> bytes:
    """Returns a body that has come, decompressed.

    Raises:
        TooLargeError: it is larger than a limit once decompressed.
        EncodingError: it is compressed in an unknown way.
        InvalidRequestError: it is not compressed as it says.
    """
    if head.content_encoding in (None, "", "identity"):
        return body
    return decompress(body, head.content_encoding, limits.decompressed_bytes)


def compressed(reply: Reply, accept_encoding: str) -> Reply:
    """Returns a reply as the client takes it, compressed when that is worth it."""
    if len(reply.body) < COMPRESS_FROM_BYTES:
        return reply
    encoding = choose_encoding(accept_encoding)
    if encoding is None:
        return reply
    headers = (*reply.headers, (b"content-encoding", encoding.encode()), (b"vary", b"accept-encoding"))
    return reply._replace(body=compress(reply.body, encoding), headers=headers)


async def send_reply(send: Send, reply: Reply) -> None:
    """Answers."""
    length = b"%d" % len(reply.body)
    start = [(b"content-type", reply.content_type), (b"content-length", length), *reply.headers]
    await send({"type": "http.response.start", "status": reply.status, "headers": start})
    await send({"type": "http.response.body", "body": reply.body})


async def send_json(send: Send, status: int, value: Any, accept_encoding: str | None = None) -> None:
    """Answers with a value as JSON."""
    reply = Reply(encode(value), status=status)
    await send_reply(send, reply if accept_encoding is None else compressed(reply, accept_encoding))


async def send_error(send: Send, error: TiltyardError) -> None:
    """Answers with an error's sentence and its status; a client that has gone is told nothing."""
    if not isinstance(error, ClientGoneError):
        await send_reply(send, error_reply(error))


def error_reply(error: TiltyardError) -> Reply:
    """Returns an error's sentence with its status and headers."""
    headers = tuple((name.encode(), value.encode()) for name, value in error_headers(error).items())
    return Reply(encode(ErrorBody(error=str(error))), headers=headers, status=status_of(error))


def own_fault() -> Reply:
    """Returns the answer to a request that failed by a fault of ours, without a word of its inside."""
    return Reply(encode(ErrorBody(error="the server failed on this request; its log says more")), status=500)


def error_headers(error: TiltyardError) -> dict[str, str]:
    """Returns the headers that go with an error."""
    status = status_of(error)
    if status == 401:
        return {"www-authenticate": "Bearer"}
    if isinstance(error, StaleRouteError) and error.revision is not None:
        return {"etag": f'"{error.revision}"'}
    if isinstance(error, RateLimitedError):
        return {"retry-after": str(error.retry_after_s)}
    return {"retry-after": str(RETRY_AFTER_S)} if status == 503 else {}


def encode(value: Any) -> bytes:
    """Returns a value as JSON."""
    return _encoder.encode(value)


_ONCE = frozenset((b"content-length", b"inference-header-content-length", b"x-request-timeout-ms", b"authorization"))
_READ = _ONCE | {b"content-encoding", b"accept-encoding"}


def _number(found: dict[bytes, bytes], name: bytes) -> int | None:
    value = found.get(name)
    if value is None:
        return None
    # Nine quintillion is beyond every limit: longer digits need not be read.
    if not value.isdigit() or len(value) > 18:
        raise InvalidRequestError(f"header {name.decode()}: expected a number of 0 or more, got another value")
    return int(value)


def _stays() -> bool:
    return False
