"""HTTP/1.1 at the socket: uvicorn's protocol with time limits, a bounded head, and errors that are JSON.

A connection receives one message at a time and is in one phase of it; each phase has a limit of time:

    WAITING   no request is being received: `idle_s` unless one is being answered, then closed without a word
    HEAD      from a request's first byte to the end of its headers: `header_s`, then 408
    BODY      from there to the end of its body: `body_s`, then 408
    CLOSING   the last answer is written, what still comes is thrown away: a moment, then cut

One timer a connection watches over them. It is not moved with every request: it fires, sees that its
limit has moved on, and sleeps again.
"""

import asyncio
import contextlib
import functools
import http
import logging
import math
import socket
import time
import urllib.parse
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

import httptools
import msgspec
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from server.fast_lane import FastLane, Prepared
from server.protocol.messages import ErrorBody
from server.protocol.reply import JSON, Reply
from server.protocol.status import RETRY_AFTER_S
from server.settings import LimitSettings

logger = logging.getLogger(__name__)

WAITING, HEAD, BODY, CLOSING = range(4)

LINGER_S = {"http": 2.0, "https": 0.1}
"""How long a refused client may still send, so that its answer is not lost to a reset connection. Over TLS the client
sees no end before that."""

GOODBYE_S = 0.05
"""How long an idle client may take to agree to the end (TLS asks it to) before it is cut off."""

SLICE_BYTES = 16 * 1024
"""What is parsed at once: after a slice with more than one request the rest waits until they are answered."""

PEEK_AFTER_NS = 5_000_000
"""A younger request's client is not looked for in the socket: looking costs more than it can save, and the event loop
has looked itself a moment ago."""


_STOPPING = "the server is stopping; nothing was answered"
_RETRY = ((b"retry-after", b"%d" % RETRY_AFTER_S),)
_HEAD_END = b"\r\n\r\n"


class _StopParsing(Exception):
    """Ends the parser's work on a request that has been refused."""


class _Flow(FlowControl):
    """Reads no further while whole requests wait for their turn: they would pile up."""

    def __init__(self, transport: asyncio.Transport, waiting: "deque[Any]") -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if not self._waiting:
            super().resume_reading()


class _Cycle(RequestResponseCycle):
    """A request and its answer; when the application gives none, an answer in the protocol's form."""

    refused: Callable[[int], None]

    async def run_asgi(self, app: Any) -> None:
        """Runs the application to its end, which is the answer's end as well."""
        try:
            await app(self.scope, self.receive, self.send)
            if not self.response_complete and not self.disconnected:
                raise RuntimeError("the application ended without completing its answer")
        except asyncio.CancelledError:  # the drain is over
            await self._give_up(503, _STOPPING)
            raise
        except Exception:
            logger.exception("the application failed on a request")
            await self._give_up(500, "the server failed on this request; its log says more")
        finally:
            self.on_response = _nothing  # it leads back to the connection

    async def _give_up(self, status: int, sentence: str) -> None:
        if self.response_started or self.disconnected:
            self.transport.close()
            return
        self.refused(status)
        headers, body = _error(status, sentence)
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})


class _Nobody:
    """Takes the place of an event that nobody waits for."""

    def set(self) -> None:
        """Does nothing."""


class _DirectCycle:
    """A request in the fast lane, as the connection sees it."""

    __slots__ = ("_answered", "_protocol", "disconnected", "keep_alive", "response_complete", "response_started")

    message_event = _Nobody()

    def __init__(self, protocol: "HttpProtocol") -> None:
        self._protocol: HttpProtocol | None = protocol
        self._answered: asyncio.Future[None] | None = None  # once somebody waits for it
        self.disconnected = False
        self.keep_alive = True
        self.response_started = self.response_complete = False

    def answer(self, reply: Reply | None) -> None:
        """Writes the answer; without one, for a client that has gone, the connection ends."""
        protocol, self._protocol = self._protocol, None  # which leads back here
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)
        if self.disconnected or protocol is None or protocol._fast_lane is None:
            return
        self.response_started = self.response_complete = True
        transport = protocol.transport
        if reply is not None:
            default_headers = protocol.server_state.default_headers
            transport.write(protocol._fast_lane.response(reply, default_headers, keep_alive=self.keep_alive))
        if reply is None or not self.keep_alive:
            transport.close()
        protocol.on_response_complete()

    async def drain(self, refused: Callable[[int], None]) -> None:
        """Returns once the answer is written; cancelled before, answers that there will be none."""
        if self._protocol is None:  # answered before this began
            return
        self._answered = asyncio.get_running_loop().create_future()
        try:
            await self._answered
        except asyncio.CancelledError:
            if self._protocol is not None and not self.disconnected:
                refused(503)
                self.keep_alive = False
                self.answer(Reply(_error_body(_STOPPING), headers=_RETRY, status=503))
            raise


class HttpProtocol(HttpToolsProtocol):
    """One connection.

    Puts into each request's scope ``tiltyard.arrived_ns``, the `time.perf_counter_ns` at which its
    headers were complete, and ``tiltyard.gone``, a callable that says whether its client has left.
    """

    def __init__(
        self,
        limits: LimitSettings,
        refused: Callable[[int], None],
        arrived: Callable[[], None],
        fast_lane: FastLane | None = None,
        /,
        **given: Any,
    ) -> None:
        """refused: told the status of every answer given here rather than by the application; arrived: told whenever
        bytes have come; fast_lane: answers what it can instead of the application; given: uvicorn's."""
        super().__init__(**given)
        self._fast_lane = fast_lane
        self._new_head = b""  # what the parser is fed begins with this whole head, which is not remembered
        self._held: Prepared | None = None  # what the running cycle asks of the fast lane once its body has come
        self._arrived = arrived
        self._limits = limits
        self._refused = refused
        self._refusal: bytes | None = None  # the last answer, once there is to be no other; empty when it is none
        self._running: RequestResponseCycle | _DirectCycle | None = None
        self._phase = WAITING
        self._unparsed = b""
        self._head_bytes = 0
        self._silent_bytes = 0  # fed since the parser last called back: what it may have gathered
        self._due: float | None = None  # when the phase ends; None until it is worked out
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._stalled: asyncio.TimerHandle | None = None

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.pipeline.clear()
        self._release()
        if self._running is not None:
            self._running.disconnected = True
            self._running.message_event.set()
        self._running = None
        self.cycle = None  # type: ignore[assignment]  # its scope leads back here
        for timer in (self._timer, self._stalled):
            if timer is not None:
                timer.cancel()
        self._timer = self._stalled = None

    def data_received(self, data: bytes) -> None:
        self._arrived()
        if self._refusal is not None:
            return
        if self._fast_lane is not None and self._running is None and self._phase == WAITING and not self._unparsed:
            head_bytes = data.find(_HEAD_END) + len(_HEAD_END)
            head = data[:head_bytes]
            prepared = self._fast_lane.known(head)
            if prepared is None:
                self._new_head = head if head_bytes >= len(_HEAD_END) else b""
            elif prepared.body_bytes == len(data) - head_bytes and not self.flow.write_paused:
                self._answer_directly(prepared, data[head_bytes:], time.perf_counter_ns())
                return
        self._unparsed += data
        self._read_on()
        if self._due is None:
            self._watch()

    def shutdown(self) -> None:
        """Ends an idle connection, and the others with their last answer."""
        if self.cycle is None or self.cycle.response_complete:
            self._close(GOODBYE_S)
        else:
            self.cycle.keep_alive = False
        if isinstance(self._running, _DirectCycle):  # the server waits for tasks, and cancels them at the end
            draining = self.loop.create_task(self._running.drain(self._refused))
            self.tasks.add(draining)
            draining.add_done_callback(self.tasks.discard)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stalled is None:  # a client that reads nothing holds its answer no longer than one that sends nothing
            self._stalled = self.loop.call_later(self._limits.body_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    # What the parser calls

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._phase, self._due = HEAD, None
        self._head_bytes = self._silent_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        if self._phase == BODY:  # a trailer: the application has its headers already
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        arrived_ns = time.perf_counter_ns()
        self._silent_bytes = 0
        method = self.parser.get_method()
        version = self.parser.get_http_version()
        if method == b"CONNECT":
            self._stop(400, "expected a method other than CONNECT: this server is no proxy")
        if version not in ("1.0", "1.1"):
            self._stop(400, f"expected HTTP/1.1 or HTTP/1.0, got HTTP/{version}")
        if self.parser.should_upgrade():  # `_parse` brings it back without that wish
            return
        self._complete_scope(method.decode(), version, arrived_ns)
        self._phase, self._due = BODY, None
        cycle = self.cycle = _Cycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        cycle.refused = self._refused
        if self._running is None:
            self._held = self._prepared(method, version, cycle)
            if self._held is None:
                self._start(cycle)
            else:
                self._running = cycle
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def on_chunk_header(self) -> None:
        self._silent_bytes = 0

    def on_body(self, body: bytes) -> None:
        self._silent_bytes = 0
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        self._silent_bytes = 0
        if self.parser.should_upgrade():
            return
        self._phase, self._due = WAITING, None
        self.cycle.more_body = False
        self.cycle.message_event.set()

    # What the cycle calls

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self._running = None
        if self.transport.is_closing():  # it was the last answer, and is on its way
            self._phase = CLOSING
        elif self._refusal is not None and not self.pipeline:
            self._end()
        else:
            if self.pipeline:
                self._start(self.pipeline.pop()[0])
            self._read_on()
            self.flow.resume_reading()
        self._watch()

    # The fast lane

    def _prepared(self, method: bytes, version: str, cycle: RequestResponseCycle) -> Prepared | None:
        """Returns what the request whose head is complete asks of the fast lane, None when it is not for it."""
        new_head, self._new_head = self._new_head, b""
        if self._fast_lane is None or method != b"POST" or version != "1.1" or not cycle.keep_alive:
            return None
        if cycle.waiting_for_100_continue or any(name == b"transfer-encoding" for name, _ in self.headers):
            return None
        prepared = self._fast_lane.prepare(self.scope["path"], self.headers)
        if prepared is not None and new_head:
            self._fast_lane.learn(new_head, self.headers, prepared)
        return prepared

    def _answer_directly(self, prepared: Prepared, body: bytes, arrived_ns: int) -> None:
        cycle, held = _DirectCycle(self), self._running
        if held is not None:
            cycle.keep_alive = held.keep_alive
        if held is None or self.cycle is held:
            self.cycle = cycle  # type: ignore[assignment]  # as much of one as is needed
        self._running = cycle
        self._due = math.inf
        prepared.begin(body, arrived_ns, functools.partial(_is_gone, self, arrived_ns), cycle.answer)

    def _release(self) -> None:
        """Gives the application a request that was held for the fast lane, and will not be whole."""
        if self._held is not None and isinstance(self._running, RequestResponseCycle):
            self._held = None
            self._start(self._running)

    # One thing each

    def _start(self, cycle: RequestResponseCycle) -> None:
        self._running = cycle
        self._start_asgi_task(cycle, self.app)

    def _read_on(self) -> None:
        """Parses what has come, as long as no whole request waits for its turn: they would pile up."""
        while self._unparsed and not self.pipeline and self._refusal is None:
            data, self._unparsed = self._unparsed[:SLICE_BYTES], self._unparsed[SLICE_BYTES:]
            self._silent_bytes += len(data)
            try:
                self._parse(data)
            except httptools.HttpParserCallbackError as error:
                if self._refusal is None:
                    logger.error("the HTTP protocol failed on a request", exc_info=error)
                    self._refuse(500, "the server failed on this request; its log says more")
            except httptools.HttpParserError as error:  # its words are the parser's own, none of the client's
                self._refuse(400, f"expected HTTP/1.1, got what is none: {error}")
            else:
                if self._silent_bytes > 2 * self._limits.header_bytes:
                    self._refuse_head()
        prepared, cycle = self._held, self._running
        if prepared is not None and isinstance(cycle, RequestResponseCycle):
            if not cycle.more_body and not self.flow.write_paused:
                self._held = None
                self._answer_directly(prepared, bytes(cycle.body), cycle.scope["tiltyard.arrived_ns"])  # type: ignore[typeddict-item]  # ours
            elif not cycle.more_body or prepared.body_bytes > HIGH_WATER_LIMIT or not prepared.may_wait():
                self._release()

    def _parse(self, data: bytes) -> None:
        """Feeds the parser; a client that would rather speak another protocol (h2c) is answered in this one."""
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                method, version = self.parser.get_method(), self.parser.get_http_version().encode()
                head = [method, b" ", self.url, b" HTTP/", version, b"\r\n"]
                for name, value in self.headers:
                    if name != b"upgrade":
                        head += [name, b": ", value, b"\r\n"]
                data = b"".join([*head, b"\r\n", data[offer.args[0] :]])
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def _complete_scope(self, method: str, version: str, arrived_ns: int) -> None:
        try:
            url = httptools.parse_url(self.url)
        except httptools.HttpParserInvalidURLError:
            self._stop(400, "expected a path or a URL as the request's target, got neither")
        path = url.path or b"/"
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]  # with members of our own
        scope["method"] = method
        scope["http_version"] = version
        scope["path"] = urllib.parse.unquote(path.decode("ascii"))
        scope["raw_path"] = path
        scope["query_string"] = url.query or b""
        scope["tiltyard.arrived_ns"] = arrived_ns
        scope["tiltyard.gone"] = functools.partial(_is_gone, self, arrived_ns)

    def _count(self, size: int) -> None:
        """Counts a target or a header, or refuses the request."""
        self._silent_bytes = 0
        self._head_bytes += size
        if self._head_bytes > self._limits.header_bytes:
            self._refuse_head()
            raise _StopParsing

    def _refuse_head(self) -> None:
        self._refuse(431, f"expected target and headers of at most {self._limits.header_bytes} bytes, got more")

    def _stop(self, status: int, sentence: str) -> NoReturn:
        self._refuse(status, sentence)
        raise _StopParsing

    def _refuse(self, status: int, sentence: str) -> None:
        """Answers the request being received with an error, after the answers before it; then the connection ends."""
        self._due = None
        self._unparsed = b""
        if self._phase == BODY and not self._forget_cycle():
            self._refusal = b""  # its answer is out, or half of it is
        else:
            self._refused(status)
            headers, body = _error(status, sentence)
            lines = b"".join(
                name + b": " + value + b"\r\n" for name, value in self.server_state.default_headers + headers
            )
            phrase = http.HTTPStatus(status).phrase
            self._refusal = f"HTTP/1.1 {status} {phrase}\r\n".encode() + lines + b"\r\n" + body
        if self._running is None:
            self._end()

    def _forget_cycle(self) -> bool:
        """Ends the request whose body was being received; returns whether it can still be answered."""
        self._release()
        cycle = self.cycle
        if self._running is not cycle:
            if cycle.response_complete:
                return False
            self.pipeline.popleft()
            return True
        self._running = None
        cycle.disconnected = True
        cycle.message_event.set()
        return not cycle.response_started

    def _end(self) -> None:
        """Writes the refusal and lets the client read it before the connection goes."""
        self._phase = CLOSING
        self.transport.write(self._refusal or b"")
        self.flow.resume_reading()
        if self.transport.can_write_eof():  # not over TLS
            with contextlib.suppress(OSError):  # the client has reset the connection, which is lost in a moment
                self.transport.write_eof()

    def _close(self, within_s: float) -> None:
        self.transport.close()
        self._phase = CLOSING
        self._due = self.loop.time() + within_s
        self._arm()

    # Time

    def _watch(self) -> None:
        """Works out when the present phase ends."""
        limits = self._limits
        if self._phase == CLOSING:
            limit_s = limits.idle_s if self.transport.is_closing() else LINGER_S[self.scheme or "http"]
        elif self._refusal is not None:
            limit_s = math.inf
        elif self._phase == HEAD:
            limit_s = limits.header_s
        elif self._phase == BODY:
            limit_s = limits.body_s
        else:
            limit_s = limits.idle_s if self._running is None else math.inf
        self._due = self.loop.time() + limit_s
        self._arm()

    def _arm(self) -> None:
        """Makes sure that the timer does not come later than the end of the phase."""
        assert self._due is not None
        if self._due < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = self._due
            self._timer = self.loop.call_at(self._due, self._expire)

    def _expire(self) -> None:
        self._timer, self._timer_at = None, math.inf
        assert self._due is not None
        if self._due > self.loop.time():
            self._arm()
        elif self.transport.is_closing():
            self.transport.abort()
        elif self._phase in (WAITING, CLOSING):
            self._close(GOODBYE_S)
        elif self.flow.read_paused:  # what is missing may have come: it is the server that does not read
            self._watch()
        else:
            part, limit_s = ("headers", self._limits.header_s) if self._phase == HEAD else ("body", self._limits.body_s)
            self._refuse(408, f"expected the request's {part} within {limit_s:g} s, got only some of them")
            self._watch()


def _nothing() -> None:
    """Does nothing."""


def _error(status: int, sentence: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Returns headers and body of an answer that says what went wrong and ends the connection."""
    body = _error_body(sentence)
    headers = [(b"content-type", JSON), (b"content-length", b"%d" % len(body)), *(_RETRY if status == 503 else ())]
    return [*headers, (b"connection", b"close")], body


def _error_body(sentence: str) -> bytes:
    return msgspec.json.encode(ErrorBody(error=sentence))


def _is_gone(protocol: HttpProtocol, arrived_ns: int) -> bool:
    """Says whether the client has closed its connection; the event loop may not have had the time to notice."""
    if protocol.transport.is_closing() or protocol._phase == CLOSING:
        return True
    if protocol.scheme == "https" or time.perf_counter_ns() - arrived_ns < PEEK_AFTER_NS:
        return False
    shared = protocol.transport.get_extra_info("socket")
    peeking = socket.socket(shared.family, shared.type, shared.proto, fileno=shared.fileno())
    try:
        return not peeking.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        return True
    finally:
        peeking.detach()
