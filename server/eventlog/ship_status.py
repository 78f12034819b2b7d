"""How the shipper is doing, in a small file beside the log that every process of the server can read."""

import time
from pathlib import Path
from typing import Literal

import msgspec

from server.errors import OutboxError

State = Literal["connected", "disconnected", "refused", "stopped"]
STATES: tuple[State, ...] = ("connected", "disconnected", "refused", "stopped")

TOLD_EVERY_S = 1.0
STALE_S = 10.0
"""A status that is older is nobody's: a shipper tells its own every second."""


class ShipStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One moment of a shipper.

    ``refused`` is a topic that must not be shipped to as it is; ``fault`` says why it is not connected. ``set_aside``
    counts events that no broker took and ``missed`` those that were trimmed unshipped, both since this log began.
    """

    state: State
    fault: str | None = None
    set_aside: int = 0
    missed: int = 0
    pid: int = 0
    told_at_s: float = 0.0


STOPPED = ShipStatus(state="stopped", fault="the shipper does not run")

_decoder = msgspec.json.Decoder(ShipStatus)


def status_file(outbox: Path) -> Path:
    """Returns where the status of a log's shipper is kept."""
    return outbox.with_name(outbox.name + ".shipper")


def read_status(outbox: Path) -> ShipStatus:
    """Returns how a log's shipper is doing; one that has not said so for a while is stopped, and keeps its counts."""
    try:
        status = _decoder.decode(status_file(outbox).read_bytes())
    except (OSError, msgspec.DecodeError):
        return STOPPED
    if time.time() - status.told_at_s > STALE_S:
        return msgspec.structs.replace(STOPPED, set_aside=status.set_aside, missed=status.missed)
    return status


def write_status(outbox: Path, status: ShipStatus) -> None:
    """Tells a status; not synced, since after a power cut nobody needs it.

    Raises:
        OutboxError: the disk refuses it.
    """
    file = status_file(outbox)
    new = file.with_name(file.name + ".new")
    try:
        new.write_bytes(msgspec.json.encode(status))
        new.replace(file)
    except OSError as error:
        raise OutboxError(f"{file}: expected a disk that takes the status, got: {error.strerror}") from error
