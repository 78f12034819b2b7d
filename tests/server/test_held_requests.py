"""What a connection gives to the fast lane: whole requests, and heads to learn; the application gets the rest."""

import asyncio
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from server.fast_lane import FastLane, Headers
from server.http_protocol import HttpProtocol
from server.protocol.reply import Reply
from server.settings import LimitSettings
from tests.server.turns import until

HEAD = b"POST /score HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n"


class Client(asyncio.Transport):
    """The other end: keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.data += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        """Does nothing."""

    resume_reading = pause_reading


class Scorer:
    """Answers in the fast lane with the body that came; counts the heads it was shown."""

    body_bytes = 2

    def __init__(self) -> None:
        self.heads = 0
        self.bodies: list[bytes] = []

    def prepare(self, path: str, headers: Headers) -> "Scorer | None":
        self.heads += 1
        return self if path == "/score" else None

    def may_wait(self) -> bool:
        return True

    def begin(
        self, body: bytes, arrived_ns: int, gone: Callable[[], bool], answer: Callable[[Reply | None], None]
    ) -> None:
        self.bodies.append(body)
        answer(Reply(body))


class Connection:
    """A connection, its client, its scorer, and the paths that the application was asked for."""

    def __init__(self) -> None:
        self.client, self.scorer, self.asked = Client(), Scorer(), list[str]()
        config = uvicorn.Config(self._app, lifespan="off", log_config=None, interface="asgi3")
        config.load()
        self.protocol = HttpProtocol(
            LimitSettings(),
            lambda status: None,
            lambda: None,
            FastLane(self.scorer.prepare),
            config=config,
            server_state=ServerState(),
            app_state={},
            _loop=asyncio.get_running_loop(),
        )
        self.protocol.connection_made(self.client)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope["path"])
        while (message := await receive())["type"] != "http.disconnect" and message["more_body"]:
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    def receive(self, *parts: bytes) -> None:
        for part in parts:
            self.protocol.data_received(part)


def on_a_connection(test: Callable[[Connection], None], asked: list[str] | None = None) -> None:
    """Runs a test on a connection of its own, until the application has been asked for these paths."""

    async def run() -> None:
        connection = Connection()
        test(connection)
        await until(lambda: connection.asked == (asked or []))
        connection.protocol.connection_lost(None)

    asyncio.run(run())


def test_a_head_is_shown_twice_and_then_known() -> None:
    """A third request with the same head is not parsed; its body is the right one."""

    def test(connection: Connection) -> None:
        for body in (b"ab", b"cd", b"ef"):
            connection.receive(HEAD + body)

        assert [b"ab", b"cd", b"ef"] == connection.scorer.bodies
        assert (2, 3) == (connection.scorer.heads, connection.client.data.count(b"HTTP/1.1 200 OK\r\n"))

    on_a_connection(test)


def test_a_request_in_parts_is_held_until_it_is_whole() -> None:
    """Wherever it is cut; the application is not asked, and nothing is answered before the end."""

    def test(connection: Connection) -> None:
        data = HEAD + b"ab"
        for cut in range(1, len(data)):
            connection.receive(data[:cut])
            assert len(connection.scorer.bodies) == cut - 1
            connection.receive(data[cut:])

        assert [b"ab"] * (len(data) - 1) == connection.scorer.bodies

    on_a_connection(test)


def test_what_follows_a_whole_request_is_no_part_of_its_body() -> None:
    """The first of two that come at once takes the fast lane, since its head is known; the application the second."""

    def test(connection: Connection) -> None:
        connection.receive(HEAD + b"xy", HEAD + b"xy", HEAD + b"ab" + HEAD + b"cd")

        assert [b"xy", b"xy", b"ab"] == connection.scorer.bodies

    on_a_connection(test, asked=["/score"])


def test_a_request_whose_client_leaves_is_the_applications() -> None:
    """It was held and will not be whole: the application counts it as it does all others."""

    def test(connection: Connection) -> None:
        connection.receive(HEAD + b"a")
        assert not connection.asked
        connection.protocol.connection_lost(None)

    on_a_connection(test, asked=["/score"])


def test_what_asks_first_or_has_no_length_is_the_applications() -> None:
    """Chunks, Expect, HTTP/1.0 and the last request of a connection are not even shown to the fast lane."""
    for head in (
        b"POST /score HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        HEAD.replace(b"host: a", b"expect: 100-continue") + b"ab",
        HEAD.replace(b"host: a", b"connection: close") + b"ab",
        HEAD.replace(b"1.1", b"1.0") + b"ab",
        HEAD.replace(b"POST", b"PUT") + b"ab",
    ):

        def test(connection: Connection, head: bytes = head) -> None:
            connection.receive(head)
            assert (0, []) == (connection.scorer.heads, connection.scorer.bodies)

        on_a_connection(test, asked=["/score"])
