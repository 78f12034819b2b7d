"""The event of a change that somebody made to the server."""

from datetime import datetime
from typing import Any

import msgspec

from server.contract.events import Audit, Audited, encode_event
from server.identifiers import uuid7
from server.routing.document import Route, encode_route
from server.routing.revision import Revision

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
    return _line(uuid7(), model, now, Audit(action=action, by=by, after=msgspec.Raw(_encoder.encode(after))))


def route_line(revision: Revision, before: Route | None) -> bytes:
    """Returns the event of a change of route, whose id is the revision's own.

    Args:
        revision: what holds now and how it came about.
        before: what held until then, None for a model's first route.
    """
    data = Audit(
        action=f"route.{revision.action}",
        by=revision.by,
        reason=revision.reason,
        before=msgspec.UNSET if before is None else msgspec.Raw(encode_route(before)),
        after=msgspec.Raw(encode_route(revision.route)),
    )
    return _line(revision.id, revision.model, revision.time, data)


def forget_line(by: str, reason: str | None, after: dict[str, Any], now: datetime) -> bytes:
    """Returns the event of an order to forget, which is about the log as a whole.

    Args:
        by: the name of the token, "" where nobody needs one, or of the account that runs the command.
        reason: why.
        after: how many events of how many requests, and how they were found; never what they held.
        now: when, with an offset.
    """
    data = Audit(action="log.forget", by=by, reason=reason, after=msgspec.Raw(_encoder.encode(after)))
    event = Audited(id=uuid7(), source="/log", time=now, subject="log", partitionkey="log", data=data)
    return encode_event(event)


def _line(event_id: str, model: str, now: datetime, data: Audit) -> bytes:
    return encode_event(
        Audited(id=event_id, source=f"/models/{model}", time=now, subject=model, partitionkey=model, data=data)
    )
