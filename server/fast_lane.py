"""The fast lane: requests that score are answered straight from the HTTP parser, without scope, task or messages.

A request takes it when its head says all that is needed (a POST to a path that scores, HTTP/1.1, a length, nothing to
be asked first) and its body has come. A head seen before, byte for byte, is not even parsed again: clients repeat
theirs, and the same bytes always mean the same.
"""

import http
from collections.abc import Callable, Sequence
from typing import Protocol

from server.protocol.reply import JSON, Reply

MOST_HEADS = 1024
"""How many heads are remembered; then all are forgotten and learned anew."""

MOST_HEAD_BYTES = 4096

Headers = Sequence[tuple[bytes, bytes]]


class Prepared(Protocol):
    """What a head asks for, ready for its bodies, of ``body_bytes`` each."""

    @property
    def body_bytes(self) -> int: ...

    def may_wait(self) -> bool:
        """Says whether to wait for a body that has not come with its head; else the application answers, now."""
        ...

    def begin(
        self, body: bytes, arrived_ns: int, gone: Callable[[], bool], answer: Callable[[Reply | None], None]
    ) -> None:
        """Works on one request.

        Args:
            body: as it came.
            arrived_ns: of time.perf_counter_ns.
            gone: says whether the client has left.
            answer: called once, now or later from the event loop; None is for a client that has gone.
        """
        ...


# Path, decoded, and headers, their names in small letters; None for what the application must look at.
Prepare = Callable[[str, Headers], Prepared | None]


class FastLane:
    """What all connections share: heads by their bytes, and the beginning of answers."""

    def __init__(self, prepare: Prepare) -> None:
        """prepare: finds out what a head asks for."""
        self.prepare = prepare
        self._known: dict[bytes, Prepared] = {}
        self._seen: set[bytes] = set()
        self._default_headers: list[tuple[bytes, bytes]] | None = None
        self._usual = b""
        # What is asked for each request.
        self.known = self._known.get

    def learn(self, head: bytes, headers: Headers, prepared: Prepared) -> None:
        """Remembers a head that comes a second time: those of clients that never repeat one would crowd out all others.

        Args:
            head: all of its bytes, the empty line included.
            headers: what the parser found in it.
            prepared: what it asks for.
        """
        # A line for the target, one for each header and the empty one: what ends or goes on in another way, as the
        # parser may allow, could end elsewhere than here.
        usual = head.startswith(b"POST ") and head.count(b"\n") == head.count(b"\r\n") == len(headers) + 2
        if not usual or len(head) > MOST_HEAD_BYTES:
            return
        if head not in self._seen:
            if len(self._seen) >= MOST_HEADS:
                self._seen.clear()
            self._seen.add(head)
            return
        self._seen.discard(head)
        if len(self._known) >= MOST_HEADS:
            self._known.clear()
        self._known[head] = prepared

    def response(self, reply: Reply, default_headers: list[tuple[bytes, bytes]], *, keep_alive: bool) -> bytes:
        """Returns an answer's bytes.

        Args:
            reply: what is answered.
            default_headers: those of every answer, another list whenever the date has changed.
            keep_alive: whether the connection goes on.
        """
        if default_headers is not self._default_headers:
            self._default_headers = default_headers
            self._usual = _start(200, [*default_headers, (b"content-type", JSON)]) + b"content-length: "
        body, content_type, headers, status = reply
        if keep_alive and status == 200 and not headers and content_type is JSON:
            return b"%b%d\r\n\r\n%b" % (self._usual, len(body), body)
        lines = [*default_headers, (b"content-type", content_type), (b"content-length", b"%d" % len(body)), *headers]
        if not keep_alive:
            lines.append((b"connection", b"close"))
        return b"%b\r\n%b" % (_start(status, lines), body)


def _start(status: int, headers: Headers) -> bytes:
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    return b"HTTP/1.1 %d %b\r\n%b" % (status, http.HTTPStatus(status).phrase.encode(), lines)
