"""Which part of the traffic every split has."""

from decimal import Decimal
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import RouteError
from server.routing.document import Challenger, Range, Route, faults_in, read_route
from server.routing.ranges import STEPS, champion_share, lay_out
from server.routing.steps import in_steps
from tests.server.routing.routes import changed_shares, moves_between, routes, size


def split(version: str, share: float, ranges: list[Range] | None = None) -> Challenger:
    """Returns a split."""
    return Challenger(version=version, mode="split", share=share, ranges=ranges)


def route_of(*challengers: Challenger) -> Route:
    """Returns a route with version 1 as its champion."""
    return Route(champion="1", challengers=list(challengers))


def ranges_of(route: Route) -> dict[str, list[Range] | None]:
    """Returns the ranges of every challenger."""
    return {each.version: each.ranges for each in route.challengers}


@given(st.integers(0, STEPS))
def test_every_billionth_is_exact(steps: int) -> None:
    """A share of whole billionths is that many steps, whichever binary fraction stands for it."""
    assert in_steps(steps / STEPS) == steps


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_steps_keep_the_order_of_shares(one: float, other: float) -> None:
    """A larger share has no fewer steps, and steps are no further from the share than one."""
    small, large = sorted([one, other])

    assert in_steps(small) <= in_steps(large)
    assert abs(in_steps(small) - small * STEPS) < 1


@pytest.mark.parametrize(
    ("share", "steps"),
    [
        (2 / 3, 666666666),
        (1e-9, 1),
        (9.9e-10, 0),
        (0.9999999999999, 10**9),
        (0.5000000009, 500000000),
        (0.500000000002, 500000000),
        (0.499999999998, 499999999),
        (-0.0, 0),
    ],
)
def test_what_lies_between_billionths_is_rounded_down(share: float, steps: int) -> None:
    """Down, except for the hair by which a product of fractions misses a whole number."""
    assert in_steps(share) == steps


@given(routes())
def test_ranges_realise_shares_exactly(route: Route) -> None:
    """Ranges add up to the share and all shares to 1, as the decimals in the document; neighbours are joined."""
    for each in route.splits:
        assert size(each.ranges) == Decimal(str(each.share))
        assert all(end < start for (_, end), (start, _) in pairwise(each.ranges or ()))
    assert Decimal(str(champion_share(route))) + sum(Decimal(str(each.share)) for each in route.splits) == 1


@given(routes())
def test_laying_out_again_changes_nothing(route: Route) -> None:
    """A document that was got and put back is the route in force."""
    assert lay_out(route, None) == route
    assert lay_out(route, route) == route


@given(st.data(), routes())
def test_laying_out_the_outcome_changes_nothing(data: st.DataObject, former: Route) -> None:
    """Also against the route before the change, whoever grew or shrank, and to nothing."""
    shares = data.draw(changed_shares(former))
    wanted = msgspec.structs.replace(
        former,
        challengers=[
            msgspec.structs.replace(each, share=shares.get(each.version, each.share), ranges=None)
            for each in former.challengers
        ],
    )

    once = lay_out(wanted, former)

    assert lay_out(once, former) == once
    assert faults_in(once) == []


@given(st.data(), routes())
def test_shares_edited_in_a_document_that_was_got(data: st.DataObject, former: Route) -> None:
    """Ranges that no longer add up grow and shrink as if they had not been written."""
    shares = data.draw(changed_shares(former))
    edited = msgspec.to_builtins(former)
    for each in edited["challengers"]:
        each["share"] = shares.get(each["version"], each["share"])
    without = msgspec.convert(edited, Route)
    without = msgspec.structs.replace(
        without, challengers=[msgspec.structs.replace(each, ranges=None) for each in without.challengers]
    )

    assert lay_out(read_route(edited), former) == lay_out(without, former)


def test_a_first_route_begins_at_0() -> None:
    """Splits stand side by side, in the document's order; a shadow has no ranges."""
    route = route_of(split("3", 0.25), Challenger(version="4", share=0.5), split("2", 0.5))

    assert ranges_of(lay_out(route, None)) == {"3": [(0.0, 0.25)], "4": None, "2": [(0.25, 0.75)]}


def test_explicit_ranges_that_fit_are_kept() -> None:
    """A person may say which part of the traffic a challenger has, wherever it had been."""
    former = lay_out(route_of(split("2", 0.1)), None)
    wanted = route_of(split("2", 0.3, [(0.9, 1.0), (0.2, 0.4)]))

    assert ranges_of(lay_out(wanted, former)) == {"2": [(0.2, 0.4), (0.9, 1.0)]}


def test_explicit_ranges_shrink_from_above_and_grow_from_below() -> None:
    """What is given back is the highest, what is taken the lowest that is free; neighbours become one."""
    ranges: list[Range] = [(0.2, 0.4), (0.9, 1.0)]

    assert ranges_of(lay_out(route_of(split("2", 0.15, ranges)), None)) == {"2": [(0.2, 0.35)]}
    assert ranges_of(lay_out(route_of(split("2", 0.15, ranges[::-1])), None)) == {"2": [(0.2, 0.35)]}
    assert ranges_of(lay_out(route_of(split("2", 0.25, ranges)), None)) == {"2": [(0.2, 0.4), (0.9, 0.95)]}
    assert ranges_of(lay_out(route_of(split("2", 0.4, ranges)), None)) == {"2": [(0.0, 0.1), (0.2, 0.4), (0.9, 1.0)]}
    assert ranges_of(lay_out(route_of(split("2", 0.6, ranges)), None)) == {"2": [(0.0, 0.5), (0.9, 1.0)]}


def test_no_ranges_are_explicit_too() -> None:
    """An empty list begins with nothing, where null begins with what the route before says."""
    former = lay_out(route_of(split("2", 0.1), split("3", 0.1)), None)

    assert ranges_of(lay_out(route_of(split("3", 0.1, [])), former)) == {"3": [(0.2, 0.3)]}
    assert ranges_of(lay_out(route_of(split("3", 0.1)), former)) == {"3": [(0.1, 0.2)]}


def test_a_newcomer_takes_from_the_champion() -> None:
    """A challenger that replaces another, or grows while another shrinks, gets none of that one's units."""
    former = lay_out(route_of(split("2", 0.1), split("3", 0.2)), None)

    replaced = lay_out(route_of(split("4", 0.1), split("3", 0.2)), former)
    exchanged = lay_out(route_of(split("2", 0.2), split("3", 0.1)), former)

    assert ranges_of(replaced) == {"4": [(0.3, 0.4)], "3": [(0.1, 0.3)]}
    assert ranges_of(exchanged) == {"2": [(0.0, 0.1), (0.3, 0.4)], "3": [(0.1, 0.2)]}


def test_a_newcomer_takes_nothing_from_one_that_grows_over_a_gap() -> None:
    """A range that has closed gaps is taken to its end."""
    former = route_of(split("2", 0.2, [(0.0, 0.1), (0.2, 0.3)]))

    assert ranges_of(lay_out(route_of(split("2", 0.5), split("3", 0.1)), former)) == {
        "2": [(0.0, 0.5)],
        "3": [(0.5, 0.6)],
    }


def test_challengers_exchange_units_only_where_the_champion_has_too_few() -> None:
    """A route that leaves the champion little can be changed all the same, with as few such moves as there can be."""
    former = lay_out(route_of(split("2", 0.3), split("3", 0.6)), None)

    after = lay_out(route_of(split("2", 0.6), split("3", 0.3)), former)

    assert moves_between(former, after) == {
        ("1", "2"): Decimal("0.1"),
        ("3", "2"): Decimal("0.2"),
        ("3", "1"): Decimal("0.1"),
    }


def test_a_split_that_was_a_shadow_begins_anew() -> None:
    """Only a split has ranges to begin with, and a split that becomes a shadow leaves its own to the champion."""
    former = lay_out(route_of(Challenger(version="2", share=0.5), split("3", 0.5)), None)
    wanted = route_of(split("2", 0.1), Challenger(version="3", share=0.5))

    assert ranges_of(lay_out(wanted, former)) == {"2": [(0.5, 0.6)], "3": None}


def test_colliding_ranges_are_a_fault() -> None:
    """Explicit ranges on another challenger's former ones name both."""
    former = lay_out(route_of(split("2", 0.1), split("3", 0.1)), None)
    wanted = route_of(split("2", 0.1), split("3", 0.1, [(0.05, 0.15)]))

    with pytest.raises(RouteError) as caught:
        lay_out(wanted, former)

    expected = "expected ranges that do not overlap, got one of '2' up to 0.1 and one of '3' from 0.05"
    assert caught.value.faults == [expected]


def test_touching_ranges_are_none() -> None:
    """A range ends before its second number, so the next may begin there."""
    former = lay_out(route_of(split("2", 0.1), split("3", 0.1)), None)
    wanted = route_of(split("2", 0.1), split("3", 0.2, [(0.1, 0.3)]))

    assert ranges_of(lay_out(wanted, former)) == {"2": [(0.0, 0.1)], "3": [(0.1, 0.3)]}


def test_shares_are_rounded_to_billionths() -> None:
    """The document says what is done: shares of splits and shadows, and ends of ranges, in billionths."""
    wanted = route_of(
        split("2", 1 / 3), Challenger(version="3", share=2 / 3), split("4", 0.25, [(0.5000000004, 0.7500000004)])
    )

    route = lay_out(wanted, None)

    assert [each.share for each in route.challengers] == [0.333333333, 0.666666666, 0.25]
    assert ranges_of(route) == {"2": [(0.0, 0.333333333)], "3": None, "4": [(0.5, 0.75)]}


def test_the_champion_has_the_rest() -> None:
    """Shadows take nothing from it."""
    route = route_of(split("2", 0.1), Challenger(version="3", share=1.0), split("4", 0.2))

    assert champion_share(route) == 0.7
    assert champion_share(route_of()) == 1.0
    assert champion_share(route_of(split("2", 1.0))) == 0.0
