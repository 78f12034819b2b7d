"""What is read of a request, and with which headers it is answered."""

import asyncio
import gzip

import pytest
from starlette.types import Message

from server.endpoints.wire import (
    COMPRESS_FROM_BYTES,
    Head,
    compressed,
    error_headers,
    read_body,
    read_head,
    send_error,
    send_reply,
)
from server.errors import (
    ClientGoneError,
    InvalidRequestError,
    NotReadyError,
    RateLimitedError,
    TiltyardError,
    TooLargeError,
    UnauthorizedError,
    UnknownModelError,
)
from server.protocol.reply import Reply
from server.settings import LimitSettings

LIMITS = LimitSettings(body_bytes=1024)


def head(*headers: tuple[bytes, bytes]) -> Head:
    return read_head({"type": "http", "headers": headers})


def body(given: Head, *messages: Message) -> bytes:
    """Returns the body of a request whose parts these messages are; asked for more, the client fails the test."""
    left = iter(messages)

    async def receive() -> Message:
        return next(left)

    return asyncio.run(read_body(given, receive, LIMITS))


def sent(content: bytes, accept_encoding: str | None = None) -> tuple[dict[bytes, bytes], bytes]:
    """Returns headers and body of an answer."""
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    reply = Reply(content)
    asyncio.run(send_reply(send, reply if accept_encoding is None else compressed(reply, accept_encoding)))
    start, body = messages
    return dict(start["headers"]), body["body"]


def test_a_declared_length_beyond_the_limit_is_refused_unread() -> None:
    """At the limit the body is read; one byte more, and it is not asked for."""
    whole = {"type": "http.request", "body": b"x" * 1024}

    assert body(head((b"content-length", b"1024")), whole) == b"x" * 1024
    with pytest.raises(TooLargeError, match="expected a body of at most 1024 bytes, got 1025"):
        body(head((b"content-length", b"1025")))


def test_a_body_comes_in_parts_until_the_client_goes() -> None:
    """They are put together; a client that leaves between them is no longer there to be answered."""
    first = {"type": "http.request", "body": b"a", "more_body": True}

    assert body(head(), first, first, {"type": "http.request", "body": b"b"}) == b"aab"
    with pytest.raises(ClientGoneError):
        body(head(), first, {"type": "http.disconnect"})


@pytest.mark.parametrize("encoding", [b"", b"identity", b" Identity ", b" GZIP"])
def test_an_encodings_name_is_read_in_any_case(encoding: bytes) -> None:
    """And with blanks around it; nothing and `identity` mean that there is none."""
    content = gzip.compress(b"x") if b"GZIP" in encoding else b"x"

    assert body(head((b"content-encoding", encoding)), {"type": "http.request", "body": content}) == b"x"


def test_a_header_that_decides_comes_once() -> None:
    """Twice the same is once; two that differ are refused, but for those of which any will do."""
    length = b"inference-header-content-length"
    assert head((length, b"7"), (length, b"7")).json_length == 7
    assert head((b"accept-encoding", b"gzip"), (b"accept-encoding", b"deflate")).accept_encoding == "deflate"
    with pytest.raises(InvalidRequestError, match=f"header {length.decode()}: expected it once, got two that differ"):
        head((length, b"7"), (length, b"8"))


def test_a_number_in_a_header_has_as_many_digits_as_any_limit() -> None:
    """More need not be read; a sign, a blank or nothing at all is no number."""
    assert head((b"x-request-timeout-ms", b"9" * 18)).timeout_ms == 10**18 - 1
    for value in (b"9" * 19, b"-1", b"1 ", b"", b"1.5"):
        with pytest.raises(InvalidRequestError, match="header x-request-timeout-ms: expected a number of 0 or more"):
            head((b"x-request-timeout-ms", value))


def test_an_answer_is_compressed_from_the_size_that_is_worth_it() -> None:
    """Then caches are told what it depends on; a byte less goes as it is, and so does all that nobody wants small."""
    content = b"x" * COMPRESS_FROM_BYTES

    headers, packed = sent(content, accept_encoding="gzip")
    plain = [
        sent(content[1:], accept_encoding="gzip"),
        sent(content),
        sent(content, accept_encoding="br"),
    ]

    assert (headers[b"content-encoding"], headers[b"vary"]) == (b"gzip", b"accept-encoding")
    assert (gzip.decompress(packed), headers[b"content-length"]) == (content, str(len(packed)).encode())
    assert [sorted(each) for each, _ in plain] == [[b"content-length", b"content-type"]] * 3
    assert COMPRESS_FROM_BYTES < 1500  # what one packet of Ethernet holds


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UnauthorizedError("x"), {"www-authenticate": "Bearer"}),
        (RateLimitedError("x", 7), {"retry-after": "7"}),
        (NotReadyError("x"), {"retry-after": "1"}),
        (UnknownModelError("x"), {}),
    ],
)
def test_a_refusal_says_how_to_go_on(error: TiltyardError, expected: dict[str, str]) -> None:
    """Whether with a token, or later and when."""
    assert error_headers(error) == expected


def test_a_client_that_has_gone_is_told_nothing() -> None:
    """There is nobody to write to."""

    async def send(message: Message) -> None:
        raise AssertionError(message)

    asyncio.run(send_error(send, ClientGoneError("x")))
