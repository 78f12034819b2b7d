"""An answer as HTTP needs it, whoever writes it to the socket."""

from typing import NamedTuple

JSON = b"application/json"


class Reply(NamedTuple):
    """An answer: its body and type, the headers that go with it, and its status."""

    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()
    status: int = 200
