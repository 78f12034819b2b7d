"""Which events are wanted: of what type, model and version, and from when to when."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import msgspec

from server.contract.events import Audited, Event, Labelled, Prediction, Shadow
from server.logbook.errors import LogbookError

EventType = Literal["prediction", "shadow", "label", "audit"]

_TYPES: Final[dict[type, EventType]] = {
    Prediction: "prediction",
    Shadow: "shadow",
    Labelled: "label",
    Audited: "audit",
}
_AGO = re.compile(r"(\d{1,9})([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def type_of(event: Event) -> EventType:
    """Returns an event's type in one word."""
    return _TYPES[type(event)]


def model_of(event: Event) -> str | None:
    """Returns the model that an event is about, None for a label that names none."""
    if isinstance(event, Prediction | Shadow):
        return event.data.model
    return event.data.model if isinstance(event, Labelled) else event.subject


def version_of(event: Event) -> str | None:
    """Returns the version that answered, None for an event that is no answer."""
    return event.data.version if isinstance(event, Prediction | Shadow) else None


@dataclass(frozen=True, slots=True)
class Selection:
    """What is wanted; None wants all. ``start`` is the first moment, ``end`` the first that is too late."""

    type: EventType | None = None
    model: str | None = None
    version: str | None = None
    start: datetime | None = None
    end: datetime | None = None

    def takes(self, event: Event) -> bool:
        """Says whether an event is wanted."""
        return (
            (self.type is None or type_of(event) == self.type)
            and (self.model is None or model_of(event) == self.model)
            and (self.version is None or version_of(event) == self.version)
            and (self.start is None or event.time >= self.start)
            and (self.end is None or event.time < self.end)
        )


def moment_of(text: str, now: datetime) -> datetime:
    """Returns the moment that somebody wrote: RFC 3339 (UTC where it names no offset), or so long ago.

    Args:
        text: such as ``2026-03-01T12:00:00Z``, ``2026-03-01``, ``2h`` or ``now``.
        now: the present moment, with an offset.

    Raises:
        LogbookError: it is none of these.

    Example:
        >>> now = datetime(2026, 3, 1, 12, tzinfo=UTC)
        >>> moment_of("90m", now).isoformat(), moment_of("2026-03-01", now).isoformat()
        ('2026-03-01T10:30:00+00:00', '2026-03-01T00:00:00+00:00')
    """
    written = text.strip()
    if written == "now":
        return now
    ago = _AGO.fullmatch(written)
    try:
        if ago is not None:
            return now - timedelta(seconds=int(ago[1]) * _SECONDS[ago[2]])
        moment = msgspec.convert(written if "T" in written.upper() else f"{written}T00:00:00", datetime)
    except (msgspec.ValidationError, OverflowError) as error:
        raise LogbookError(
            f"expected a time such as 2026-03-01T12:00:00Z or 2026-03-01, or so long ago as 90s, 15m, 2h or 3d, "
            f"got {text!r}"
        ) from error
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
