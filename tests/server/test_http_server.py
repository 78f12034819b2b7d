"""Starting and stopping: a process that runs a small application on the real server."""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization

from server.errors import SettingsError
from server.http_server import check_tls, listen
from server.settings import Settings, TlsSettings
from tests.server.certificates import Authority
from tests.server.live_server import wait_for

PROGRAM = """
import sys
from server.fast_lane import FastLane
from server.http_server import listen, run
from server.logs import configure_logging
from server.settings import load_settings

status = 200

def say(word):
    print(word, flush=True)

def stopping():
    global status
    status = 503
    say("stopping")

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup." + sys.argv[1]})
        await receive()
        say("closing")
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"done"})

configure_logging("info")
settings = load_settings(port=0)
refused = []

class Endless:
    body_bytes = 2

    def may_wait(self):
        return True

    def begin(self, body, arrived_ns, gone, answer):
        say("begun")

lane = FastLane(lambda path, headers: Endless() if path == "/endless" else None)
started = run(
    app, settings, listen("127.0.0.1", 0), fast_lane=lane, stopping=stopping, announce=say, refused=refused.append
)
say(f"ended {started} {refused}")
"""


@dataclass
class Process:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    url: httpx.URL

    def connect(self) -> socket.socket:
        return socket.create_connection((self.url.host, self.url.port or 0), 20)

    def hold(self) -> socket.socket:
        """Returns a connection whose request the application waits for."""
        held = self.connect()
        held.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
        assert held.recv(1000).startswith(b"HTTP/1.1 100 ")
        return held

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def next_word(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> tuple[int, list[str], str]:
        """Returns the exit status, the remaining words and the log of a process that ends."""
        words, log = self.process.communicate(timeout=8)
        return self.process.returncode, words.splitlines(), log

    def listens(self) -> bool:
        try:
            self.connect().close()
        except OSError:
            return False
        return True


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Starts the program with TILTYARD_* settings and kills it with the test."""
    with contextlib.ExitStack() as stack:

        def start(startup: str = "complete", **settings: object) -> Process:
            env = {f"TILTYARD_{name.upper()}": str(value) for name, value in settings.items()}
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", PROGRAM, startup],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env={**os.environ, **env},
                )
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            return Process(process, httpx.URL(process.stdout.readline().strip() if startup == "complete" else ""))

        yield start


def read_all(connection: socket.socket) -> bytes:
    """Returns all that comes until the server ends the connection, which is closed then."""
    answer = b""
    with connection:
        while part := connection.recv(65536):
            answer += part
    return answer


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_idle_server_ends_with_status_0(start: Callable[..., Process], number: int) -> None:
    """In order: it says so, then the application closes; a kept-alive connection does not hold it up."""
    server = start(drain_s=60)
    idle, new = server.connect(), server.connect()
    idle.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    answer = idle.recv(1000)
    while not answer.endswith(b"done"):
        answer += idle.recv(1000)

    server.signal(number)

    status, words, log = server.end()
    assert (0, ["stopping", "closing", "ended True []"], "") == (status, words, log)
    assert (b"", b"") == (read_all(idle), read_all(new))


def test_an_idle_client_of_tls_does_not_hold_the_end_up(start: Callable[..., Process], authority: Authority) -> None:
    """Though it says no goodbye of its own, as the pools of HTTP clients do."""
    own = authority.sign("idle")
    server = start(drain_s=60, tls__certificate=own.certificate, tls__key=own.key)
    context = ssl.create_default_context(cafile=str(authority.certificate))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    with httpx.Client(base_url=server.url, verify=context) as client:
        assert "done" == client.get("/").text

        server.signal(signal.SIGTERM)

        assert 0 == server.end()[0]


def test_a_request_that_has_begun_is_answered_and_its_connection_closed(start: Callable[..., Process]) -> None:
    """No new connection is taken meanwhile."""
    server = start()
    held = server.hold()

    server.signal(signal.SIGTERM)
    wait_for(lambda: not server.listens(), "the listener to close")
    held.sendall(b"x")

    answer = read_all(held)
    assert answer.startswith(b"HTTP/1.1 503 ")  # the application knows that it is stopping
    assert b"connection: close\r\n" in answer
    assert answer.endswith(b"done")
    assert 0 == server.end()[0]


def test_a_request_that_never_ends_is_answered_503_when_the_drain_is_over(start: Callable[..., Process]) -> None:
    """In the protocol's form, so that the client can try elsewhere; the application still closes."""
    server = start(drain_s=0.2)
    held = server.hold()

    server.signal(signal.SIGTERM)

    head, body = read_all(held).split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"content-type: application/json" in head.split(b"\r\n")
    assert b"retry-after: 1" in head.split(b"\r\n")
    assert b'{"error":"the server is stopping; nothing was answered"}' == body
    status, words, _ = server.end()
    assert (0, ["stopping", "closing", "ended True [503]"]) == (status, words)


def test_neither_does_the_fast_lane_keep_a_drain_waiting(start: Callable[..., Process]) -> None:
    """What has not been answered when it is over is answered 503, byte for byte as the application's requests are."""
    server = start(drain_s=0.2)
    held, direct = server.hold(), server.connect()
    direct.sendall(b"POST /endless HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}")
    assert "begun" == server.next_word()

    server.signal(signal.SIGTERM)

    expected, given = read_all(held), read_all(direct)
    assert given.startswith(b"HTTP/1.1 503 ")
    assert expected == given
    status, words, _ = server.end()
    assert (0, ["stopping", "closing", "ended True [503, 503]"]) == (status, words)


def test_a_stopping_server_serves_on_for_the_delay(start: Callable[..., Process]) -> None:
    """It says at once that it is not ready, so that a balancer can leave, and takes connections meanwhile."""
    server = start(stop_delay_s=0.5)
    with httpx.Client(base_url=server.url) as client:
        before = client.get("/").status_code

        server.signal(signal.SIGTERM)
        assert "stopping" == server.next_word()
        during = [client.get("/").status_code, httpx.get(server.url).status_code]

        assert (200, [503, 503]) == (before, during)
        assert 0 == server.end()[0]


@pytest.mark.parametrize(
    ("first", "second", "delay_s"),
    [
        (signal.SIGINT, signal.SIGINT, 0),
        (signal.SIGINT, signal.SIGTERM, 60),
        (signal.SIGTERM, signal.SIGINT, 0),
        (signal.SIGTERM, signal.SIGTERM, 60),
    ],
)
def test_a_second_signal_ends_at_once(start: Callable[..., Process], first: int, second: int, delay_s: float) -> None:
    """Of either kind, in the delay or in the drain; status 0."""
    server = start(drain_s=60, stop_delay_s=delay_s)
    held = server.hold()
    server.signal(first)
    assert "stopping" == server.next_word()

    server.signal(second)

    status, words, log = server.end()
    assert (0, "ended True [503]") == (status, words[-1])
    assert "Traceback" not in log
    held.close()


def test_an_application_that_does_not_start_is_never_announced(start: Callable[..., Process]) -> None:
    """The process ends, and not with status 0."""
    status, words, _ = start("failed").end()

    assert (3, []) == (status, words)


def test_a_thousand_clients_can_connect_at_once(start: Callable[..., Process]) -> None:
    """All are answered."""
    server = start()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(1000)]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        answers = [read_all(client) for client in clients]

    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)


def test_mutual_tls_lets_in_whom_the_authority_signed(
    start: Callable[..., Process], authority: Authority, tmp_path: Path
) -> None:
    """Not a client without a certificate, nor one of another authority; and nobody in plain text."""
    own, friend = authority.sign("own"), authority.sign("friend")
    stranger = Authority(tmp_path, "other").sign("stranger")
    server = start(
        tls__certificate=own.certificate,
        tls__key=own.key,
        tls__client_ca=authority.certificate,
        limits__header_s=0.3,
    )

    def ask(shown: tuple[Path, Path] | None) -> int:
        context = ssl.create_default_context(cafile=str(authority.certificate))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if shown is not None:
            context.load_cert_chain(*shown)
        return httpx.get(server.url, verify=context).status_code

    assert "https" == server.url.scheme
    assert 200 == ask((friend.certificate, friend.key))
    for shown in (None, (stranger.certificate, stranger.key)):
        with pytest.raises(httpx.TransportError):
            ask(shown)
    plain = server.connect()
    plain.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    with contextlib.suppress(ConnectionResetError):
        assert not read_all(plain).startswith(b"HTTP")
    silent = server.connect()
    assert b"" == read_all(silent)  # its handshake has the time that headers have
    server.signal(signal.SIGTERM)
    status, _, log = server.end()
    assert (0, False) == (status, "Traceback" in log)


def test_tls_files_that_cannot_be_used_are_refused(authority: Authority, tmp_path: Path) -> None:
    """Each in one sentence that names the file."""
    one, other = authority.sign("one"), authority.sign("other")
    text, encrypted = tmp_path / "text.pem", tmp_path / "encrypted.key"
    text.write_text("no certificate")
    key = serialization.load_pem_private_key(one.key.read_bytes(), None)
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"word"),
        )
    )

    def refusal(certificate: Path, key: Path, client_ca: Path | None = None) -> str:
        with pytest.raises(SettingsError) as error:
            check_tls(Settings(tls=TlsSettings(certificate=certificate, key=key, client_ca=client_ca)))
        return str(error.value)

    none = tmp_path / "none.pem"
    assert f"tls.certificate {none}: expected a file that can be read, got: No such file or directory" == refusal(
        none, one.key
    )
    assert f"tls.key {tmp_path}: expected a file that can be read, got: Is a directory" == refusal(
        one.certificate, tmp_path
    )
    assert f"tls.key {other.key}: expected the key of {one.certificate}, got another's" == refusal(
        one.certificate, other.key
    )
    for certificate, key_file in ((text, one.key), (one.certificate, text), (one.certificate, encrypted)):
        sentence = f"tls: expected a PEM certificate in {certificate} and its plain key in {key_file}, got: "
        assert refusal(certificate, key_file).startswith(sentence)
    assert refusal(one.certificate, one.key, text).startswith(f"tls.client_ca {text}: expected PEM certificates, got: ")
    check_tls(Settings(tls=TlsSettings(certificate=one.certificate, key=one.key, client_ca=authority.certificate)))
    check_tls(Settings())


def test_an_address_that_cannot_be_had_is_refused() -> None:
    """In one sentence that names it."""
    with listen("127.0.0.1", 0) as taken, pytest.raises(SettingsError, match="Address already in use"):
        taken.listen()
        listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(SettingsError, match=r"host 'a\.\.b': expected an address of this machine"):
        listen("a..b", 0)
