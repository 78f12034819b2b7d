"""A giver of tokens, by OAuth 2's client credentials, that the guarded broker's unsecured validator accepts."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

from tests.kafka.guarded import PASSWORD


class TokenGiver:
    """Gives a token to whoever knows the client's secret, which is the password of everything else."""

    def __init__(self) -> None:
        self.url = ""
        self.life_s = 60.0
        self.asked: list[dict[str, list[str]]] = []
        """The forms that were sent, in order."""

    def answer(self, form: dict[str, list[str]]) -> bytes | None:
        """Returns the document for a form, None where the client is not let in."""
        self.asked.append(form)
        if form["client_secret"] != [PASSWORD] or form["grant_type"] != ["client_credentials"]:
            return None
        return json.dumps({"access_token": _unsecured_token(), "expires_in": self.life_s}).encode()


@contextmanager
def running_token_giver() -> Iterator[TokenGiver]:
    """Gives a giver that answers at its ``url``."""
    giver = TokenGiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            document = giver.answer(parse_qs(self.rfile.read(int(self.headers["content-length"])).decode()))
            self.send_response(401 if document is None else 200)
            self.end_headers()
            self.wfile.write(document or b"")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's word
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    giver.url = f"http://127.0.0.1:{server.server_port}/token"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield giver
    server.shutdown()
    thread.join()
    server.server_close()


def _unsecured_token() -> str:
    parts = ({"alg": "none"}, {"sub": "tiltyard", "iat": int(time.time()) - 1, "exp": int(time.time()) + 60})
    return ".".join(base64.urlsafe_b64encode(json.dumps(each).encode()).decode().rstrip("=") for each in parts) + "."
