"""Events that no broker takes, kept beside the log: a JSON object a line, synced before the log goes on without it."""

import os
from pathlib import Path

import msgspec

from server.errors import OutboxError


class SetAside(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was not shipped, and why. A crash may write one twice: ``log_id`` and ``offset`` tell.

    ``event`` is the line where it is text, else ``raw`` is in base64; ``count`` is how many a damaged chunk held.
    """

    log_id: str
    offset: int
    count: int = 1
    time: str
    reason: str
    event: str | None = None
    raw: bytes | None = None


_encoder = msgspec.json.Encoder()


def set_aside_file(outbox: Path) -> Path:
    """Returns where events of a log are kept that no broker takes."""
    return outbox.with_name(outbox.name + ".set-aside.ndjson")


def set_aside(outbox: Path, log_id: str, offset: int, content: bytes, reason: str, time: str, count: int = 1) -> None:
    """Keeps an event, or a damaged chunk of ``count``, on disk.

    Raises:
        OutboxError: the disk refuses it; the log must not go on.
    """
    event: str | None
    try:
        event, raw = content.decode(), None
    except UnicodeDecodeError:
        event, raw = None, content
    kept = SetAside(log_id=log_id, offset=offset, count=count, time=time, reason=reason, event=event, raw=raw)
    file = set_aside_file(outbox)
    try:
        with file.open("ab") as written:
            written.write(_encoder.encode(kept) + b"\n")
            written.flush()
            os.fsync(written.fileno())
    except OSError as error:
        raise OutboxError(f"{file}: expected a disk that takes an event, got: {error.strerror}") from error
