"""Follows a route: what holds now, and then every change as it comes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from server.routes.client import AwayError, Entry, Held, RouteClient
from server.routing.document import Route

POLL_S = 1.0
_MOST_ENTRIES = 100


@dataclass(frozen=True, slots=True)
class Changed:
    """One change; ``entry`` says how it came about, where the history knows."""

    before: Route
    after: Route
    entry: Entry | None


@dataclass(frozen=True, slots=True)
class Away:
    """The server does not answer any more, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Back:
    """It answers again."""


def follow(client: RouteClient, model: str, wait: Callable[[float], None]) -> Iterator[Held | Changed | Away | Back]:
    """Yields the route that holds, then each change, and once each time that the server goes and comes back.

    Args:
        client: of the server.
        model: its name.
        wait: for this many seconds, between two questions.

    Raises:
        AdminError: the server does not answer the first question, or refuses a later one.
    """
    held = client.read(model)
    yield held
    away = False
    while True:
        wait(POLL_S)
        try:
            newer = client.read_unless(model, held.revision)
            entries = [] if newer is None else client.history(model, _distance(held, newer))
        except AwayError as error:
            if not away:
                yield Away(str(error))
            away = True
            continue
        if away:
            yield Back()
        away = False
        if newer is not None:
            yield from _steps(held, newer, entries)
            held = newer


def _distance(held: Held, newer: Held) -> int:
    return min(max(newer.revision - held.revision, 1), _MOST_ENTRIES)


def _steps(held: Held, newer: Held, entries: list[Entry]) -> Iterator[Changed]:
    """Yields what led from one route to a newer one, as far as the history, newest first, has it."""
    before = held.route
    for entry in reversed(entries):
        if held.revision < entry.revision <= newer.revision:
            yield Changed(before, entry.route, entry)
            before = entry.route
    if before != newer.route:
        yield Changed(before, newer.route, None)
