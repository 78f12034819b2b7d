"""Requests as bytes, and a connection that sends them as it is told and takes everything that comes back."""

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

DEADLINE_S = 20.0
BETWEEN_WRITES_S = 0.001

LAST = b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
"""Ends a conversation: whoever keeps the connection open answers it, and closes then."""

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@dataclass(frozen=True)
class Awaited:
    """A step of a conversation: nothing is sent until this has come."""

    text: bytes


@dataclass(frozen=True)
class Answered:
    """A step of a conversation: nothing is sent until so many answers have begun."""

    count: int


Step = bytes | Awaited | Answered


def again(request: bytes, times: int = 3) -> list[Step]:
    """Returns a request sent several times, each when the one before is answered: servers may remember its head."""
    steps: list[Step] = []
    for count in range(times):
        steps += [Answered(count), request]
    return steps


def post(target: str | bytes, body: bytes | dict[str, object], *headers: str, version: str = "1.1") -> bytes:
    """Returns a request whose length is declared; a dictionary becomes JSON."""
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return head("POST", target, *headers, f"Content-Length: {len(content)}", version=version) + content


def chunked(target: str | bytes, body: bytes | dict[str, object], size: int, *headers: str, end: bytes = b"") -> bytes:
    """Returns a request whose body comes in chunks of a size; end: trailers."""
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    parts = [b"%x\r\n%s\r\n" % (len(part), part) for part in pieces(content, size)]
    return head("POST", target, *headers, "Transfer-Encoding: chunked") + b"".join(parts) + b"0\r\n" + end + b"\r\n"


def head(method: str, target: str | bytes, *headers: str, version: str = "1.1") -> bytes:
    """Returns a request's head, the empty line included."""
    name = target if isinstance(target, bytes) else target.encode()
    lines = "".join(f"{header}\r\n" for header in headers).encode("latin-1")
    return b"%s %s HTTP/%s\r\nHost: h\r\n%s\r\n" % (method.encode(), name, version.encode(), lines)


def pieces(data: bytes, size: int) -> list[bytes]:
    """Returns data cut into pieces of a size."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def statuses(transcript: bytes) -> list[int]:
    """Returns the status of every answer in what a server sent, those between included (100)."""
    return [int(status) for status in _STATUS.findall(transcript)]


class Connection:
    """A raw connection, and everything that came over it."""

    def __init__(self, port: int, trust: Path | None = None) -> None:
        """trust: the authority's certificate of a server that speaks TLS."""
        self.came = b""
        self.socket = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if trust is not None:
            context = ssl.create_default_context(cafile=str(trust))
            context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
            self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1", suppress_ragged_eofs=True)

    def take(self, *steps: Step) -> None:
        """Sends writes one by one, the server having a moment to read each, and waits where it is told to."""
        for place, step in enumerate(steps):
            if isinstance(step, Awaited):
                self.wait_for(step.text)
                continue
            if isinstance(step, Answered):
                self.wait_for_answers(step.count)
                continue
            with contextlib.suppress(ConnectionError):  # refused already: what was answered is still there
                self.socket.sendall(step)
            if place < len(steps) - 1:
                self._gather(BETWEEN_WRITES_S)

    def wait_for(self, text: bytes) -> None:
        """Returns once a text has come; fails the test when it does not, or the connection ends before."""
        self._gather_while(lambda: text not in self.came, f"{text!r}")

    def wait_for_answers(self, count: int) -> None:
        """Returns once so many answers have begun; fails the test when they do not."""
        self._gather_while(lambda: len(statuses(self.came)) < count, f"{count} answers")

    def rest(self) -> bytes:
        """Returns everything that came, once the server has ended the connection."""
        deadline = time.monotonic() + DEADLINE_S
        while self._gather(DEADLINE_S):
            assert time.monotonic() < deadline, f"the connection does not end: {self.came!r}"
        return self.came

    def leave(self) -> None:
        """Ends the connection at once, as a client does that was killed."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def _gather_while(self, missing: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while missing():
            assert time.monotonic() < deadline, f"timed out waiting for {what}: {self.came!r}"
            assert self._gather(DEADLINE_S), f"the connection ended before {what}: {self.came!r}"

    def _gather(self, within_s: float) -> bool:
        """Takes what comes within a time; returns whether more may come."""
        self.socket.settimeout(within_s)
        try:
            part = self.socket.recv(65536)
        except TimeoutError:
            assert within_s < DEADLINE_S, f"nothing more came: {self.came!r}"
            return True
        except ConnectionError:
            return False
        finally:
            self.socket.settimeout(DEADLINE_S)
        self.came += part
        return bool(part)
