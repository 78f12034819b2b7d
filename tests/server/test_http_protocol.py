"""What HTTP itself answers: raw sockets against a real server, on both event loops, plain and over TLS."""

import asyncio
import contextlib
import functools
import gc
import json
import logging
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from server import http_protocol
from server.http_protocol import SLICE_BYTES, HttpProtocol
from server.settings import LimitSettings
from tests.server.certificates import Authority
from tests.server.live_server import DEADLINE_S, wait_for
from tests.server.turns import turn

PATIENT = LimitSettings(header_bytes=1024, header_s=30, body_s=30, idle_s=30)
HURRY_S = 0.2


@dataclass
class Answer:
    """One answer of the server."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str:
        """The sentence of an error, having checked that it has the protocol's form and ends the connection."""
        assert self.headers["content-type"] == "application/json"
        assert self.headers["connection"] == "close"
        value = json.loads(self.body)
        assert list(value) == ["error"]
        return str(value["error"])


class Client:
    """A raw connection."""

    def __init__(self, edge: "Edge") -> None:
        self.socket = socket.create_connection(("127.0.0.1", edge.port), DEADLINE_S)
        if edge.trust is not None:
            context = ssl.create_default_context(cafile=str(edge.trust))
            context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
            self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1", suppress_ragged_eofs=True)
        self._gathered = b""

    def send(self, data: bytes) -> "Client":
        self.socket.sendall(data)
        return self

    def send_and_gather(self, data: bytes) -> None:
        """Sends while it takes in what comes; in one thread, since a TLS connection must not be used by two."""
        not_now = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
        self.socket.setblocking(False)
        while data:
            select.select([self.socket], [self.socket], [], DEADLINE_S)
            with contextlib.suppress(*not_now):
                data = data[self.socket.send(data[:16384]) :]
            with contextlib.suppress(*not_now):
                self._gathered += self.socket.recv(65536)
        self.socket.settimeout(DEADLINE_S)

    def answer(self, head_only: bool = False) -> Answer:
        """Returns the next answer."""
        while b"\r\n\r\n" not in self._gathered:
            self._gather()
        head, self._gathered = self._gathered.split(b"\r\n\r\n", 1)
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        size = 0 if head_only else int(headers.get("content-length", 0))
        while len(self._gathered) < size:
            self._gather()
        body, self._gathered = self._gathered[:size], self._gathered[size:]
        return Answer(int(first.split()[1]), headers, body)

    def answers(self) -> list[Answer]:
        """Returns all answers until the server ends the connection."""
        found = []
        while not self.ended():
            found.append(self.answer())
        return found

    def ended(self) -> bool:
        """Waits for more or the end, says whether it is the end."""
        if self._gathered:
            return False
        self._gathered = self.socket.recv(65536)
        return not self._gathered

    def _gather(self) -> None:
        part = self.socket.recv(65536)
        assert part, f"the connection ended within an answer: {self._gathered!r}"
        self._gathered += part

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()


@dataclass
class Edge:
    """A running server of a small application, and what both noted."""

    port: int
    trust: Path | None
    connections: set[Any] = field(default_factory=set)
    refused: list[int] = field(default_factory=list)
    arrivals: int = 0
    noted: list[Any] = field(default_factory=list)
    began: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)

    def client(self) -> Client:
        return Client(self)

    def note_arrival(self) -> None:
        self.arrivals += 1

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """`/echo` answers with the body; the other paths are told at their tests."""
        path = scope["path"]
        if path == "/fail":
            raise RuntimeError("secret")
        if path == "/early":
            await self._answer(send, 413, b"early")
            return
        if path == "/hold":
            await receive()
            self.began.set()
            await asyncio.to_thread(self.release.wait, DEADLINE_S)
            await self._answer(send, 200, b"")
            return
        if path == "/leave":  # the event loop sees nothing of what happens to the client meanwhile
            first = scope["tiltyard.gone"]()
            self.began.set()
            self.release.wait(DEADLINE_S)
            self.noted += [first, scope["tiltyard.gone"]()]
        if path == "/endless":
            await receive()
            leaving = asyncio.ensure_future(receive())
            await send({"type": "http.response.start", "status": 200})
            while not leaving.done():
                await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
                await turn()
            self.noted.append(leaving.result()["type"])
            return
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.noted.append((path, scope["tiltyard.gone"]()))
                return
            body += message["body"]
            if not message["more_body"]:
                break
        if path == "/scope":
            self.noted.append(scope)
        await self._answer(send, 200, bytes(body))

    async def _answer(self, send: Any, status: int, body: bytes) -> None:
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module", params=["uvloop", "asyncio", "uvloop-tls", "asyncio-tls"])
def start(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Callable[[LimitSettings], Edge]]:
    """Starts servers on one kind of loop and transport; the same limits get the same server."""
    loop, _, tls = request.param.partition("-")
    signed = authority.sign("server") if tls else None
    servers: list[tuple[uvicorn.Server, threading.Thread]] = []

    @functools.cache
    def start(limits: LimitSettings) -> Edge:
        listener = socket.create_server(("127.0.0.1", 0))
        edge = Edge(listener.getsockname()[1], authority.certificate if tls else None)
        config = uvicorn.Config(
            edge,
            http=functools.partial(HttpProtocol, limits, edge.refused.append, edge.note_arrival),  # type: ignore[arg-type]
            loop=loop,
            ws="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            ssl_certfile=signed and signed.certificate,
            ssl_keyfile=signed and signed.key,
        )
        server = uvicorn.Server(config)
        edge.connections = server.server_state.connections
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        servers.append((server, thread))
        wait_for(lambda: server.started, "the server")
        return edge

    yield start
    for server, thread in servers:
        server.should_exit = server.force_exit = True
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


def fresh(edge: Edge) -> Edge:
    """Returns the server with nothing noted."""
    edge.refused.clear()
    edge.noted.clear()
    edge.began.clear()
    edge.release.clear()
    return edge


@pytest.fixture
def edge(start: Callable[[LimitSettings], Edge]) -> Edge:
    """A server whose limits of time are far."""
    return fresh(start(PATIENT))


@pytest.fixture
def hurried(start: Callable[[LimitSettings], Edge]) -> Callable[[str], Edge]:
    """Returns a server with one limit of time that is near."""

    def hurried(limit: str) -> Edge:
        return fresh(start(PATIENT.model_copy(update={limit: HURRY_S})))

    return hurried


def get(path: str = "/echo", *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: h", *headers, "", ""]).encode()


def post(body: bytes, path: str = "/echo", *headers: str) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: h", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode() + body


def ask_all(edge: Edge, requests: Iterable[bytes]) -> list[list[Answer]]:
    """Sends each over a connection of its own, all at once; returns all answers of each until the server ends it."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(edge.client()).send(data) for data in requests]
        return [client.answers() for client in clients]


MALFORMED = {
    "request line": b"GARBAGE\r\n\r\n",
    "method": b"G@T / HTTP/1.1\r\n\r\n",
    "target": b"GET /\xff HTTP/1.1\r\n\r\n",
    "URL": b"GET http://[x/ HTTP/1.1\r\n\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: h\n\n",
    "version": b"GET / HTTP/2.0\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "proxy": b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "header name": b"GET / HTTP/1.1\r\nA b: c\r\n\r\n",
    "folded header": b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
    "control character": b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n",
    "two lengths": b"POST /echo HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "length and chunks": b"POST /echo HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "negative length": b"POST /echo HTTP/1.1\r\nContent-Length: -3\r\n\r\nabc",
    "enormous length": b"POST /echo HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    "unknown coding": b"POST /echo HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    "chunk size": b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
}


def test_malformed_http_is_answered_400_in_json_and_ends(edge: Edge) -> None:
    """Exactly one answer, whose sentence has nothing of what was sent, counted once."""
    answers = ask_all(edge, MALFORMED.values())

    assert [(name, [400]) for name in MALFORMED] == [
        (name, [answer.status for answer in given]) for name, given in zip(MALFORMED, answers, strict=True)
    ]
    assert [] == [
        error for (answer,) in answers if not (error := answer.error).startswith("expected ") or "b'" in error
    ]
    assert [400] * len(MALFORMED) == edge.refused


def test_a_failing_application_is_answered_500_in_json(edge: Edge) -> None:
    """Nothing of its inside is told."""
    with edge.client().send(get("/fail")) as client:
        answers = client.answers()

    assert [500] == [answer.status for answer in answers]
    assert "secret" not in answers[0].error
    assert [500] == edge.refused


@pytest.mark.parametrize(("excess", "status"), [(-1, 200), (0, 200), (1, 431)])
@pytest.mark.parametrize("at_once", [True, False])
def test_target_and_headers_have_a_limit(edge: Edge, excess: int, status: int, at_once: bool) -> None:
    """Below and at the limit the request is answered, above it 431, in one piece or byte by byte."""
    size = PATIENT.header_bytes - len("/echo" + "Host: h\r\n" + "X: \r\n") + excess
    request = get("/echo", "X: " + "x" * size)

    with edge.client() as client:
        for part in [request] if at_once else [bytes([byte]) for byte in request]:
            client.send(part)
        answer = client.answer()

    assert status == answer.status
    assert ([431] if status == 431 else []) == edge.refused


@pytest.mark.parametrize(
    "flood",
    [
        b"GET /echo HTTP/1.1\r\n" + b"X: y\r\n" * 100_000,
        b"GET /echo HTTP/1.1\r\nX: " + b"y" * 1_000_000,
        b"GET /echo HTTP/1.1\r\n" + b"x" * 1_000_000,
        b"GET /" + b"y" * 1_000_000,
        b"\r\n" * 500_000,
        b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 100_000,
        b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"y" * 1_000_000,
        b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=" + b"y" * 1_000_000,
    ],
    ids=["headers", "value", "name", "target", "empty lines", "trailers", "trailer", "chunk extension"],
)
def test_a_flood_of_headers_is_answered_431_before_it_is_gathered(edge: Edge, flood: bytes) -> None:
    """The client can send it all and still read its answer; an application that waits for the body is told."""
    with edge.client() as client:
        for start in range(0, len(flood), 50_000):
            client.send(flood[start : start + 50_000])
        answers = client.answers()

    assert [431] == [answer.status for answer in answers]
    assert answers[0].error == "expected target and headers of at most 1024 bytes, got more"
    assert [431] == edge.refused


def test_trailers_are_no_headers(edge: Edge) -> None:
    """What comes after the body cannot change what the application has read already."""
    chunked = b"POST /scope HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Late: y\r\n\r\n"
    with edge.client().send(chunked) as client:
        answer = client.answer()

    assert (200, b"abc") == (answer.status, answer.body)
    assert [(b"transfer-encoding", b"chunked")] == edge.noted[0]["headers"]


def test_pipelined_requests_are_answered_in_their_order(edge: Edge) -> None:
    """Bodies of every size, in one piece and in crumbs."""
    bodies = [b"a", b"b" * 200_000, b"", b"c" * 70_000, b"d"]
    data = b"".join(post(body) for body in bodies)

    with edge.client() as client:
        client.send_and_gather(data)
        at_once = [client.answer().body for _ in bodies]
    with edge.client() as client:
        for byte in (crumbs := b"".join(post(b"%d" % n) for n in range(20))):
            client.send(bytes([byte]))
        in_crumbs = [client.answer().body for _ in range(20)]

    assert bodies == at_once
    assert [b"%d" % n for n in range(20)] == in_crumbs
    assert len(crumbs) > 20


@pytest.mark.parametrize("bad", ["request line", "two lengths", "chunk size", "URL"])
def test_a_bad_request_is_answered_after_the_good_ones_before_it(edge: Edge, bad: str) -> None:
    """The first is still being answered when the bad one comes; nothing after that is answered."""
    with edge.client().send(get("/hold") + post(b"two") + MALFORMED[bad] + post(b"four")) as client:
        assert edge.began.wait(DEADLINE_S)
        edge.release.set()
        answers = client.answers()

    assert [200, 200, 400] == [answer.status for answer in answers]
    assert b"two" == answers[1].body
    assert [400] == edge.refused


def test_requests_wait_for_their_turn_without_piling_up(edge: Edge) -> None:
    """Of thousands that came at once only a slice is parsed while the first is answered; then all are answered."""
    with edge.client() as client:
        sender = threading.Thread(target=client.send, args=(get("/hold") + get() * 5000,))
        sender.start()
        assert edge.began.wait(DEADLINE_S)
        waiting = sum(len(thing.pipeline) for thing in gc.get_objects() if type(thing) is HttpProtocol)
        edge.release.set()
        answers = [client.answer().status for _ in range(5001)]
        sender.join()

    assert [200] * 5001 == answers
    assert waiting < SLICE_BYTES / len(get())


def test_a_connection_is_not_read_while_requests_wait_on_it(edge: Edge) -> None:
    """A client that sends without end is slowed down: what it sends stays out of the server's memory."""
    with edge.client().send(get("/hold") + get()) as client:
        assert edge.began.wait(DEADLINE_S)
        client.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            for _ in range(1000):
                client.send(post(b"x" * 60_000))
        edge.release.set()


def test_an_early_answer_leaves_the_connection_usable(edge: Edge) -> None:
    """The body that nobody wanted is read and thrown away."""
    with edge.client().send(post(b"x" * 300_000, "/early") + post(b"next")) as client:
        answers = [client.answer(), client.answer()]

    assert [(413, b"early"), (200, b"next")] == [(answer.status, answer.body) for answer in answers]


@pytest.mark.parametrize("header", [b"", b"Connection: keep-alive\r\n"])
def test_http_1_0_is_answered_and_closed(edge: Edge, header: bytes) -> None:
    """With a body, and without a Host."""
    with edge.client().send(b"POST /echo HTTP/1.0\r\nContent-Length: 3\r\n" + header + b"\r\nabc") as client:
        answers = client.answers()

    assert [(200, b"abc")] == [(answer.status, answer.body) for answer in answers]
    assert "close" == answers[0].headers["connection"]


def test_head_is_answered_without_a_body(edge: Edge) -> None:
    """The next answer follows at once."""
    with edge.client().send(b"HEAD /early HTTP/1.1\r\nHost: h\r\n\r\n" + post(b"next")) as client:
        head, following = client.answer(head_only=True), client.answer()

    assert (413, "5") == (head.status, head.headers["content-length"])
    assert b"next" == following.body


def test_a_client_that_expects_100_is_told_to_go_on(edge: Edge) -> None:
    """Only when the application wants the body."""
    with edge.client().send(post(b"abc", "/echo", "Expect: 100-continue")[:-3]) as client:
        first = client.answer().status
        second = client.send(b"abc").answer()
    with edge.client().send(post(b"abc", "/early", "Expect: 100-continue")[:-3]) as client:
        refused = client.answer().status

    assert (100, 200, b"abc") == (first, second.status, second.body)
    assert 413 == refused


@pytest.mark.parametrize("upgrade", ["h2c", "websocket"])
def test_a_client_that_offers_another_protocol_is_answered_in_this_one(edge: Edge, upgrade: str) -> None:
    """As Java's client offers HTTP/2 with every first request: body and following requests are kept."""
    offer = post(b"abc", "/echo", "Connection: Upgrade, HTTP2-Settings", f"Upgrade: {upgrade}", "HTTP2-Settings: AAE")

    with edge.client().send(offer + offer + post(b"next")) as client:
        answers = [client.answer() for _ in range(3)]

    assert [(200, b"abc"), (200, b"abc"), (200, b"next")] == [(answer.status, answer.body) for answer in answers]


def test_headers_that_do_not_come_are_answered_408(hurried: Callable[[str], Edge]) -> None:
    """On the first request of a connection and on a later one."""
    edge = hurried("header_s")
    answers = ask_all(edge, [b"G", b"GET /echo HT", b"GET /echo HTTP/1.1\r\nHost: h\r\nX: ", get() + b"GET "])

    assert [[408], [408], [408], [200, 408]] == [[answer.status for answer in given] for given in answers]
    assert {"expected the request's headers within 0.2 s, got only some of them"} == {g[-1].error for g in answers}
    assert [408] * 4 == edge.refused


def test_a_body_that_does_not_come_is_answered_408_and_its_application_told(hurried: Callable[[str], Edge]) -> None:
    """It sees a disconnect, and that its client is gone."""
    edge = hurried("body_s")
    begun = [post(b"abc")[:-1], post(b"x" * 500_000)[:-1], post(b"a") + post(b"abc")[:-3]]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(edge.client()).send(data) for data in begun]
        answers = [client.answers() for client in clients]
        wait_for(lambda: len(edge.noted) == 3, "the applications' end")
        assert edge.connections or edge.trust is not None  # they did not need the end of the connections for that

    assert [[408], [408], [200, 408]] == [[answer.status for answer in given] for given in answers]
    assert {"expected the request's body within 0.2 s, got only some of them"} == {g[-1].error for g in answers}
    assert [408] * 3 == edge.refused
    assert [("/echo", True)] * 3 == edge.noted


def test_a_body_that_ends_early_ends_its_request(edge: Edge) -> None:
    """The client closes in its middle: the application is told, and nobody is counted."""
    with edge.client().send(post(b"abc")[:-1]):
        pass

    wait_for(lambda: edge.noted, "the application's end")
    assert [("/echo", True)] == edge.noted
    assert [] == edge.refused


def test_an_idle_connection_is_closed_without_a_word(hurried: Callable[[str], Edge]) -> None:
    """A new one, one that sent an empty line, and one that is kept alive."""
    edge = hurried("idle_s")
    started = time.monotonic()
    answers = ask_all(edge, [b"", b"\r\n", get()])

    assert [[], [], [200]] == [[answer.status for answer in given] for given in answers]
    assert [] == edge.refused
    assert time.monotonic() - started > HURRY_S / 2


def test_a_request_that_is_being_answered_has_no_limit_of_time(hurried: Callable[[str], Edge]) -> None:
    """Nor has the one that waits behind it, which the server does not read meanwhile."""
    edge = hurried("body_s")
    with edge.client() as client:
        sender = threading.Thread(target=client.send, args=(get("/hold") + post(b"x" * 400_000),))
        sender.start()
        assert edge.began.wait(DEADLINE_S)
        threading.Timer(3 * HURRY_S, edge.release.set).start()
        answers = [client.answer(), client.answer()]
        sender.join()

    assert [(200, 0), (200, 400_000)] == [(answer.status, len(answer.body)) for answer in answers]


def test_a_slow_client_holds_nothing_but_its_connection(hurried: Callable[[str], Edge]) -> None:
    """Thirty of them send a byte at a time; the requests of others are answered, and each gets its 408."""
    edge = hurried("header_s")
    slow = [edge.client() for _ in range(30)]
    answered = 0
    for byte in get("/echo", "X: " + "x" * 900):
        if edge.refused:
            break
        for client in slow:
            client.send(bytes([byte]))
        with edge.client().send(post(b"fast")) as fast:
            assert b"fast" == fast.answer().body
        answered += 1
    statuses = [[answer.status for answer in client.answers()] for client in slow]
    for client in slow:
        client.socket.close()

    assert [[408]] * 30 == statuses
    assert [408] * 30 == edge.refused
    assert 0 < answered < 900


def test_a_client_that_does_not_read_its_answer_is_cut_off(hurried: Callable[[str], Edge]) -> None:
    """It holds the answer no longer than a client may take to send a request, and the application is told."""
    edge = hurried("body_s")
    with edge.client().send(get("/endless")), edge.client().send(get("/endless") + get()):
        wait_for(lambda: len(edge.noted) == 2, "the end of the connections")

    assert ["http.disconnect"] * 2 == edge.noted


def test_an_application_can_ask_whether_its_client_has_gone(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told even when the event loop had no time to look; over TLS only when it had."""
    monkeypatch.setattr(http_protocol, "PEEK_AFTER_NS", 0)
    with edge.client().send(get("/leave")):
        assert edge.began.wait(DEADLINE_S)
    edge.release.set()

    wait_for(lambda: len(edge.noted) >= 2, "the application's end")
    assert [False, edge.trust is None] == edge.noted[:2]


def test_an_application_is_told_that_its_client_is_still_there(edge: Edge) -> None:
    """Waiting or with its next request on the way; and when its request arrived."""
    before_ns = time.perf_counter_ns()
    with edge.client().send(get("/leave")) as client:
        assert edge.began.wait(DEADLINE_S)
        client.send(get("/scope"))
        edge.release.set()
        assert [200, 200] == [client.answer().status, client.answer().status]

    assert [False, False] == edge.noted[:2]
    assert before_ns < edge.noted[2]["tiltyard.arrived_ns"] < time.perf_counter_ns()


def test_connections_leave_nothing_behind(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    """After a thousand of them, ended in every way, no timer keeps one alive, and the log has no error."""
    ways = [b"", b"GET ", get(), post(b"abc")[:-1], MALFORMED["request line"], get() + MALFORMED["URL"]]
    for n in range(1000 if edge.trust is None else 100):
        with edge.client().send(ways[n % len(ways)]) as client:
            if n % 2:
                client.socket.settimeout(0)
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    def alive() -> int:
        gc.collect()
        return sum(type(thing) is HttpProtocol for thing in gc.get_objects())

    wait_for(lambda: not edge.connections, "the end of the connections")
    assert [] == [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    wait_for(lambda: alive() == 0, "what they leave behind")


def test_whatever_comes_is_told_at_once(edge: Edge) -> None:
    """Each time bytes have come, whole requests or parts of one: whoever can wait lets them be worked on first."""
    with edge.client() as client:
        for part in (b"POST /echo HTTP/1.1\r\nHost: x\r\n", b"Content-Length: 2\r\n\r\n", b"ab"):
            seen = edge.arrivals
            client.send(part)
            wait_for(lambda seen=seen: edge.arrivals > seen, "the bytes")  # type: ignore[misc]  # bound at once

        assert client.answer().status == 200
