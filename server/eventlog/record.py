"""An event as a Kafka record: its very bytes, keyed by the request it is about, at the time it tells of."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

HEADERS = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
"""CloudEvents' Kafka binding knows a structured event by it."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class _Envelope(msgspec.Struct, frozen=True, gc=False):
    """What of an event its record needs; the rest is passed over unread."""

    partitionkey: str
    time: datetime


_decode = msgspec.json.Decoder(_Envelope).decode


def addressed(lines: Sequence[bytes]) -> list[tuple[bytes, int] | None]:
    """Returns each event's key and its time in ms since 1970, None for a line that is no event."""
    found: list[tuple[bytes, int] | None] = []
    for line in lines:
        try:
            envelope = _decode(line)
            # Whole milliseconds: a float of microseconds would round some down and some up.
            timestamp_ms = (envelope.time - _EPOCH) // _MILLISECOND
            found.append((envelope.partitionkey.encode(), max(0, timestamp_ms)))  # Kafka knows no time before 1970
        except (msgspec.DecodeError, TypeError, ValueError):  # a time without an offset, a half of a character
            found.append(None)
    return found
