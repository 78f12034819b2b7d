"""Heads that are remembered, and the bytes of answers."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

import httptools
import pytest
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from server.fast_lane import MOST_HEAD_BYTES, MOST_HEADS, FastLane, Headers
from server.protocol.reply import Reply


class Asked:
    """What a head asks for."""

    body_bytes = 2

    def begin(self, body: bytes, arrived_ns: int, gone: Callable[[], bool], answer: Callable[..., None]) -> None:
        raise AssertionError("nobody sends a body")


class Parsed:
    """What the parser finds in a head."""

    def __init__(self, head: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False
        httptools.HttpRequestParser(self).feed_data(head)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.complete = True


def head_of(first: bytes = b"POST /v2/models/m/infer HTTP/1.1", *lines: bytes) -> bytes:
    return b"\r\n".join([first, b"host: a", b"content-length: 2", *lines, b"", b""])


def lane() -> FastLane:
    return FastLane(lambda path, headers: None)


def learn(fast: FastLane, head: bytes, times: int = 1, headers: Headers | None = None) -> Asked:
    asked = Asked()
    for _ in range(times):
        fast.learn(head, Parsed(head).headers if headers is None else headers, asked)
    return asked


def test_a_head_is_remembered_when_it_comes_a_second_time() -> None:
    """Byte for byte: one that differs in a letter's case is another."""
    fast, head = lane(), head_of()

    learn(fast, head)
    assert fast.known(head) is None
    asked = learn(fast, head)

    assert fast.known(head) is asked
    assert fast.known(head.replace(b"host", b"Host")) is None


UNUSUAL = {
    "another method": head_of(b"PUT /v2/models/m/infer HTTP/1.1"),
    "a method in small letters": b"post / HTTP/1.1\r\nhost: a\r\n\r\n",
    "an empty line before": b"\r\n" + head_of(),
    "a folded header": head_of(b"POST / HTTP/1.1", b"x-a: 1", b" 2"),
    "a header folded into an empty line": head_of(b"POST / HTTP/1.1", b"x-a: 1", b" "),
    "a line end without its first half": head_of().replace(b"a\r\n", b"a\n"),
    "half a line end within a header": head_of(b"POST / HTTP/1.1", b"x-a: 1\nx-b: 2"),
    "no line end but that": head_of().replace(b"\r\n", b"\n"),
    "too long": head_of(b"POST / HTTP/1.1", b"x-a: " + b"a" * MOST_HEAD_BYTES),
}


@pytest.mark.parametrize("head", UNUSUAL.values(), ids=UNUSUAL.keys())
def test_an_unusual_head_is_never_remembered(head: bytes) -> None:
    """However often it comes: where the parser sees its end may not be where its bytes seem to end."""
    fast = lane()
    try:
        headers = Parsed(head).headers
    except httptools.HttpParserError:  # a more lenient one might find these
        headers = [(b"x-a", line) for line in head.split(b"\r\n") if b":" in line and not line.startswith(b" ")]

    learn(fast, head, times=3, headers=headers)

    assert fast.known(head) is None


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_head_of_more_or_fewer_lines_than_headers_is_never_remembered(difference: int) -> None:
    """The parser found in it what stands there in another way, or did not."""
    fast, head = lane(), head_of()
    headers = Parsed(head).headers
    found = headers[:-1] if difference < 0 else [*headers, headers[0]]

    learn(fast, head, times=3, headers=found)

    assert fast.known(head) is None


def test_a_head_of_the_greatest_length_is_remembered() -> None:
    """The bound itself is allowed."""
    fast = lane()
    padding = MOST_HEAD_BYTES - len(head_of(b"POST / HTTP/1.1", b"x-a: "))
    head = head_of(b"POST / HTTP/1.1", b"x-a: " + b"a" * padding)

    asked = learn(fast, head, times=2)

    assert (MOST_HEAD_BYTES, asked) == (len(head), fast.known(head))


def numbered(number: int) -> bytes:
    return head_of(b"POST /v2/models/m/infer HTTP/1.1", b"x-number: %d" % number)


def test_heads_that_come_once_crowd_out_none_that_is_known() -> None:
    """Clients that put an id into each head are never remembered, however many there are."""
    fast = lane()
    asked = learn(fast, head_of(), times=2)

    for number in range(2 * MOST_HEADS):
        learn(fast, numbered(number))

    assert fast.known(head_of()) is asked
    assert len(fast._seen) <= MOST_HEADS


def test_no_more_heads_are_remembered_than_may_be() -> None:
    """One more, and all are forgotten and learned anew."""
    fast = lane()
    for number in range(MOST_HEADS):
        learn(fast, numbered(number), times=2)
    assert all(fast.known(numbered(number)) for number in range(MOST_HEADS))

    learn(fast, head_of(), times=2)
    assert [numbered(number) for number in range(MOST_HEADS) if fast.known(numbered(number))] == []
    assert fast.known(head_of())
    assert learn(fast, numbered(0), times=2) is fast.known(numbered(0))


class Written(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""

    def write(self, data: Any) -> None:
        self.data += bytes(data)

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """Does nothing."""


DATE = [(b"date", b"Thu, 26 Nov 2026 12:00:00 GMT"), (b"server", b"tiltyard")]
REPLIES = {
    "usual": Reply(b'{"outputs": []}'),
    "empty": Reply(b""),
    "binary": Reply(b"{}\x00\xff", b"application/octet-stream", ((b"inference-header-content-length", b"2"),)),
    "compressed": Reply(b"\x1f\x8b", headers=((b"content-encoding", b"gzip"), (b"vary", b"accept-encoding"))),
    "error": Reply(b'{"error": "no"}', status=400),
    "retry": Reply(b'{"error": "later"}', headers=((b"retry-after", b"1"),), status=503),
    "text": Reply(b"a", b"text/plain"),
}


def as_asgi_server(reply: Reply, default_headers: list[tuple[bytes, bytes]], *, keep_alive: bool) -> bytes:
    """Returns the bytes that uvicorn writes when an application answers so."""
    written = Written()

    async def send() -> None:
        scope: Any = {"method": "POST", "http_version": "1.1"}
        cycle = RequestResponseCycle(
            scope=scope,
            transport=written,
            flow=FlowControl(written),
            logger=logging.getLogger("uvicorn.error"),
            access_logger=logging.getLogger("uvicorn.access"),
            access_log=False,
            default_headers=default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=keep_alive,
            on_response=lambda: None,
        )
        headers = [
            (b"content-type", reply.content_type),
            (b"content-length", b"%d" % len(reply.body)),
            *reply.headers,
        ]
        if not keep_alive:
            cycle.keep_alive = False
        await cycle.send(cast(Any, {"type": "http.response.start", "status": reply.status, "headers": headers}))
        await cycle.send(cast(Any, {"type": "http.response.body", "body": reply.body}))

    asyncio.run(send())
    return written.data


@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES.keys())
def test_an_answers_bytes_are_those_of_the_other_lane(reply: Reply, keep_alive: bool) -> None:
    """What uvicorn writes for the same status and headers: no client sees which lane its request took."""
    fast = lane()

    expected = as_asgi_server(reply, DATE, keep_alive=keep_alive)

    assert [expected, expected] == [fast.response(reply, DATE, keep_alive=keep_alive) for _ in range(2)]


def test_a_new_date_is_in_the_next_answer() -> None:
    """The beginning of answers is made anew whenever the list is another one, be it for a usual answer or not."""
    fast, reply = lane(), REPLIES["usual"]
    later = [(b"date", b"Thu, 26 Nov 2026 12:00:01 GMT"), DATE[1]]
    fast.response(reply, DATE, keep_alive=True)

    answers = [fast.response(reply, later, keep_alive=True), fast.response(REPLIES["error"], later, keep_alive=True)]

    assert [as_asgi_server(each, later, keep_alive=True) for each in (reply, REPLIES["error"])] == answers
