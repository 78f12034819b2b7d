"""The event of a change that somebody made to the server."""

from datetime import datetime
from typing import Any

import msgspec

from server.contract.events import Audit, Audited, encode_event
from server.identifiers import uuid7

_encoder = msgspec.json.Encoder()


def audit_line(action: str, by: str, model: str, after: dict[str, Any], now: datetime) -> bytes:
    """Returns the event of a change.

    Args:
        action: what was done, such as "load".
        by: the name of the token, "" where nobody needs one, or the part of the server that did it.
        model: whose change it is.
        after: what holds now.
        now: when, with an offset.
    """
    return encode_event(
        Audited(
            id=uuid7(),
            source=f"/models/{model}",
            time=now,
            subject=model,
            partitionkey=model,
            data=Audit(action=action, by=by, after=msgspec.Raw(_encoder.encode(after))),
        )
    )
