"""Which route held at a moment of the past, out of nothing but the audit events that the log keeps."""

from collections.abc import Iterable
from datetime import datetime

import msgspec

from server.contract.events import Audited, Event
from server.errors import RouteError
from server.routing.document import Route, decode_route

_ACTIONS = "route."


def route_at(events: Iterable[Event], model: str, moment: datetime) -> Route | None:
    """Returns the route that held, None where no event tells of one by then.

    A later change has a later time, or the same and a higher revision. So neither the events' order matters nor how
    often each is there; others than changes of the model's route are passed over.

    Args:
        events: of a log, in any order.
        model: whose route.
        moment: with an offset; a change holds from its own time on.

    Raises:
        RouteError: an event's route is none that this version of the code knows.
    """
    newest: tuple[datetime, int] | None = None
    held: Route | None = None
    for event in events:
        if not isinstance(event, Audited) or event.subject != model or event.time > moment:
            continue
        route = _route_of(event)
        if route is not None and (newest is None or (event.time, route.revision) > newest):
            newest, held = (event.time, route.revision), route
    return held


def _route_of(event: Audited) -> Route | None:
    """Returns what holds since a change of route, None for another change."""
    after = event.data.after
    if not event.data.action.startswith(_ACTIONS) or isinstance(after, msgspec.UnsetType):
        return None
    try:
        return decode_route(bytes(after))
    except RouteError as error:
        raise RouteError(f"audit event {event.id}: {error}", error.faults) from error
