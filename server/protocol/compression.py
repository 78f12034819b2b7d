"""Compressed bodies: gzip and deflate, in and out, with a limit on what comes out."""

import zlib
from collections.abc import Iterator
from typing import Literal

from server.errors import EncodingError, InvalidRequestError, TooLargeError

Encoding = Literal["gzip", "deflate"]

_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_FASTEST = 1
# What one step reads and makes at most: so much beyond the limit a bomb can become before it is refused.
_READ_BYTES = 64 * 1024
_MADE_BYTES = 1024 * 1024
# A gzip file may be many in a row; each costs a step, however small it is.
_MEMBERS = 10_000


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Returns a body decompressed.

    Args:
        body: as it came.
        encoding: of its ``Content-Encoding``, in lower case. Deflate may lack zlib's header, as some clients send it.
        limit: how many bytes it may become.

    Raises:
        EncodingError: the encoding is another one.
        TooLargeError: it becomes more than the limit, found out before much more than that was made.
        InvalidRequestError: it is not so compressed, ends early, or goes on after its end.
    """
    if encoding not in _WINDOWS:
        raise EncodingError(f"content-encoding: expected gzip, deflate or identity, got {encoding[:40]!r}")
    window = _WINDOWS[encoding]
    if encoding == "deflate" and not _has_zlib_header(body):
        window = -zlib.MAX_WBITS
    parts: list[bytes] = []
    size = 0
    try:
        for part in _decompressed(body, window, _MEMBERS if encoding == "gzip" else 1):
            size += len(part)
            if size > limit:
                raise TooLargeError(f"expected a body of at most {limit} bytes once decompressed, got more")
            parts.append(part)
    except zlib.error as error:
        raise InvalidRequestError(f"expected a body compressed with {encoding}, got another: {error}") from error
    return b"".join(parts)


def choose_encoding(accept: str) -> Encoding | None:
    """Returns the encoding that an ``Accept-Encoding`` prefers, None for a body as it is; gzip wins a draw."""
    weights: dict[str, float] = {}
    for item in accept.lower().split(","):
        name, _, parameters = item.partition(";")
        weights[name.strip()] = _weight(parameters)
    others = weights.get("*", 0.0)
    best: Encoding | None = None
    most = weights.get("identity", 0.0)
    for encoding in ("gzip", "deflate"):
        weight = weights.get(encoding, others)
        if weight > 0 and (weight > most or (best is None and weight == most)):
            best, most = encoding, weight
    return best


def compress(body: bytes, encoding: Encoding) -> bytes:
    """Returns a body compressed, fast rather than small."""
    stream = zlib.compressobj(_FASTEST, wbits=_WINDOWS[encoding])
    return stream.compress(body) + stream.flush()


def _decompressed(body: bytes, window: int, members: int) -> Iterator[bytes]:
    """Yields what a body becomes, in pieces of bounded size."""
    stream = zlib.decompressobj(window)
    for start in range(0, len(body), _READ_BYTES):
        data = body[start : start + _READ_BYTES]
        while data:
            if stream.eof:
                members -= 1
                if members == 0:
                    raise InvalidRequestError("expected a compressed body to end at its end, got bytes after it")
                stream = zlib.decompressobj(window)
            yield stream.decompress(data, _MADE_BYTES)
            data = stream.unused_data if stream.eof else stream.unconsumed_tail
    while not stream.eof:
        part = stream.decompress(b"", _MADE_BYTES)
        if not part:
            raise InvalidRequestError("expected a whole compressed body, got one that ends early")
        yield part


def _has_zlib_header(body: bytes) -> bool:
    return len(body) >= 2 and body[0] & 0x0F == zlib.DEFLATED and int.from_bytes(body[:2], "big") % 31 == 0


def _weight(parameters: str) -> float:
    """Returns the q of an item of ``Accept-Encoding``, 1 without one, 0 for one that is none."""
    name, _, value = parameters.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
