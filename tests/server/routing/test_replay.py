"""The route of any past moment, out of audit events alone."""

import random
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.audit import audit_line, route_line
from server.contract.events import Audit, Audited, Event, decode_event
from server.errors import RouteError
from server.routing.document import Challenger, Route
from server.routing.replay import route_at
from server.routing.revision import Revision

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def revision(number: int, at_s: float, model: str = "flight") -> Revision:
    """Returns a change that differs from every other one."""
    challengers = [Challenger(version="2", mode="split", share=number / 1000, ranges=[(0.0, number / 1000)])]
    return Revision(
        id=f"{model}-{number}-{at_s}",
        model=model,
        base=number - 1,
        time=START + timedelta(seconds=at_s),
        by="ann",
        action="shares",
        route=Route(champion="1", challengers=challengers, revision=number),
    )


def told(*revisions: Revision) -> list[Event]:
    """Returns the audit events of changes, as the server writes them."""
    return [decode_event(route_line(each, None)) for each in revisions]


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_a_change_holds_from_its_time_on() -> None:
    """Before the first nobody knows; at a change's very moment it holds already."""
    one, two = revision(1, 10), revision(2, 20)

    found = [route_at(told(one, two), "flight", at(moment)) for moment in (9.999, 10, 19.999, 20, 1e6)]

    assert found == [None, one.route, one.route, two.route, two.route]


@given(
    st.lists(st.floats(0, 5), min_size=1, max_size=12), st.floats(-1, 70), st.randoms(use_true_random=False), st.data()
)
def test_neither_order_nor_duplicates_matter(
    waits: list[float], moment: float, chance: random.Random, data: st.DataObject
) -> None:
    """Any order, any of the events any number of times: the same route, that of the last change by then."""
    revisions, now_s = [], 0.0
    for number, wait_s in enumerate(waits, 1):
        now_s += wait_s  # several may have the same time
        revisions.append(revision(number, now_s))
    events = told(*revisions, *data.draw(st.lists(st.sampled_from(revisions), max_size=8)))
    chance.shuffle(events)

    held = [each.route for each in revisions if each.time <= at(moment)]
    assert route_at(events, "flight", at(moment)) == (held[-1] if held else None)


def test_other_events_are_passed_over() -> None:
    """Those of other models, loads and unloads, and whatever is no audit event."""
    load = decode_event(audit_line("load", "watcher", "flight", {"version": "2", "serving": ["1", "2"]}, at(30)))
    bare = Audited(
        id="x", source="/", time=at(30), subject="flight", partitionkey="", data=Audit(action="route.set", by="")
    )
    events = [*told(revision(1, 10), revision(9, 20, model="grid")), load, bare]

    assert route_at(events, "flight", at(60)) == revision(1, 10).route
    assert route_at(events, "delay", at(60)) is None


def test_numbers_that_begin_anew_are_no_older() -> None:
    """Somebody who empties the folder of routes begins with revision 1 again; the later time counts."""
    events = told(revision(1, 10), revision(7, 20), revision(1, 30))

    assert [route_at(events, "flight", at(moment)) for moment in (25, 35)] == [
        revision(7, 20).route,
        revision(1, 30).route,
    ]


def test_a_moment_may_have_any_offset() -> None:
    """The same instant written for another place is the same instant."""
    elsewhere = at(10).astimezone(timezone(timedelta(hours=9)))

    assert route_at(told(revision(1, 10)), "flight", elsewhere) == revision(1, 10).route


def test_a_route_that_nobody_knows_is_refused_by_its_event() -> None:
    """A log that a newer server wrote may say what this one would misread."""
    event = told(revision(1, 10))[0]
    assert isinstance(event, Audited)
    newer = msgspec.structs.replace(event, data=Audit(action="route.set", by="", after=msgspec.Raw(b'{"queen": "1"}')))

    with pytest.raises(RouteError, match=r"audit event flight-1-10: .*got 'queen'"):
        route_at([newer], "flight", at(20))
    assert route_at([newer], "flight", at(5)) is None
