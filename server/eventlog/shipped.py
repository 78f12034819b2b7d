"""How much of an event log a Kafka topic has: one small file beside the log, replaced as a whole.

The shipper writes it; the log's writer, the metrics and commands read it. Every event below ``offset`` has been
acknowledged by the topic's brokers, or was set aside as one that no broker takes; those from it on may be there too.
"""

import os
from pathlib import Path

import msgspec

from server.errors import OutboxError


class Shipped(msgspec.Struct, frozen=True, kw_only=True):
    """A position in one log, and where what lies below it has gone.

    ``log_id`` is that of the log's meta table: a position of another log says nothing about this one. ``cluster`` is
    Kafka's own id of the cluster, ``partitions`` how many the topic had: with another number keys would move.
    """

    log_id: str
    offset: int
    topic: str
    partitions: int
    cluster: str


_decoder = msgspec.json.Decoder(Shipped)


def shipped_file(outbox: Path) -> Path:
    """Returns where the position of a log is kept."""
    return outbox.with_name(outbox.name + ".shipped")


def read_shipped(outbox: Path) -> Shipped | None:
    """Returns how much of a log has been shipped; None where nothing ever was.

    Raises:
        OutboxError: the file is there but cannot be read. It is never taken for none: all would be shipped again.
    """
    file = shipped_file(outbox)
    try:
        return _decoder.decode(file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutboxError(f"{file}: expected a position that can be read, got: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise OutboxError(f"{file}: expected the position of a shipped log, got a damaged file: {error}") from error


def write_shipped(outbox: Path, shipped: Shipped) -> None:
    """Keeps a position: whoever reads finds this one or the one before, whole, even after a power cut.

    Raises:
        OutboxError: the disk refuses it.
    """
    file = shipped_file(outbox)
    new = file.with_name(file.name + ".new")
    try:
        with new.open("wb") as written:
            written.write(msgspec.json.encode(shipped))
            written.flush()
            os.fsync(written.fileno())
        new.replace(file)
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise OutboxError(f"{file}: expected a disk that takes the position, got: {error.strerror}") from error
