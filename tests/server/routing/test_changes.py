"""What people and scripts do to a route, and what that changes."""

from decimal import Decimal
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.contract.manifest import Signature, Tensor
from server.errors import RouteError
from server.routing.assignment import assign, lanes_of
from server.routing.changes import (
    Arm,
    Difference,
    Move,
    VersionChange,
    difference,
    promoted,
    replaced,
    restored,
    same,
    unit_fault,
    version_faults,
    with_shares,
)
from server.routing.document import Challenger, Guard, Override, Route, faults_in
from server.routing.ranges import STEPS, champion_share, lay_out
from tests.server.routing.routes import changed_shares, cuts_of, moves_between, owner_at, routes, size, texts

UNITS = [f"unit-{number}" for number in range(50)]
SIGNATURE = Signature(
    layout="columns",
    inputs=[
        Tensor(name="hour", datatype="INT64", shape=[-1, 1]),
        Tensor(name="distance", datatype="FP32", shape=[-1, 1]),
        Tensor(name="carrier", datatype="BYTES", shape=[-1, 1]),
    ],
    outputs=[],
)
PARTS = Route(
    champion="1",
    challengers=[
        Challenger(version="2", mode="split", share=0.1, guard=Guard(error_rate=0.1), ranges=[(0.0, 0.1)]),
        Challenger(version="3", mode="split", share=0.3, ranges=[(0.1, 0.3), (0.4, 0.5)]),
        Challenger(version="4", share=0.5),
    ],
    unit="header:x-customer",
    salt="s",
    overrides=[Override(header="x-tester", value="red", version="3")],
    revision=7,
)


@given(st.data(), routes())
def test_one_share_moves_units_only_between_its_challenger_and_the_champion(data: st.DataObject, route: Route) -> None:
    """Along any ramp: up moves nobody out of the challenger, down nobody in, and no other challenger is touched."""
    for _ in range(data.draw(st.integers(1, 6))) if route.splits else ():
        chosen = data.draw(st.sampled_from(route.splits))
        room = round((chosen.share + champion_share(route)) * STEPS)
        share = data.draw(st.integers(0, room)) / STEPS
        direction = ("1", chosen.version) if share > chosen.share else (chosen.version, "1")

        after = with_shares(route, {chosen.version: share})

        expected = {direction: abs(Decimal(str(share)) - Decimal(str(chosen.share)))} if share != chosen.share else {}
        assert moves_between(route, after) == expected
        for unit in UNITS:
            pair = assign(route, unit).version, assign(after, unit).version
            assert pair[0] == pair[1] or pair == direction
        route = after


@given(st.data(), routes())
def test_shares_changed_together_move_as_little_as_can_be(data: st.DataObject, route: Route) -> None:
    """Nobody leaves who grows or joins who shrinks; challengers exchange only what the champion has too little of."""
    shares = data.draw(changed_shares(route))
    before = {each.version: each.share for each in route.splits}
    growth = sum(max(0, round((share - before[version]) * STEPS)) for version, share in shares.items())

    after = with_shares(route, shares)

    assert faults_in(after) == []
    assert sum(size(each.ranges) for each in after.splits) <= 1
    exchanged = 0
    for (source, target), moved in moves_between(route, after).items():
        assert source == "1" or shares[source] < before[source]
        assert target == "1" or shares[target] > before[target]
        exchanged += 0 if "1" in (source, target) else int(moved * STEPS)
    assert exchanged == max(0, growth - round(champion_share(route) * STEPS))


@given(routes(), st.data())
def test_shares_change_nothing_but_shares_and_ranges(route: Route, data: st.DataObject) -> None:
    """And the revision, which counts on; a shadow's share is the part that is scored."""
    shares = {each.version: 0.25 for each in route.shadows} | data.draw(changed_shares(route))

    after = with_shares(route, shares)

    assert after.revision == route.revision + 1
    for earlier, later in zip(route.challengers, after.challengers, strict=True):
        assert later.share == shares.get(earlier.version, earlier.share)
        assert msgspec.structs.replace(later, share=earlier.share, ranges=earlier.ranges) == earlier
    assert msgspec.structs.replace(after, revision=route.revision, challengers=route.challengers) == route


def test_shares_that_are_none_are_all_named() -> None:
    """Versions that are no challengers, shares outside [0, 1] and not a number, in one error."""
    shares = {"1": 0.5, "9" * 300: 0.5, "2": 1.5, "3": float("nan")}

    with pytest.raises(RouteError) as caught:
        with_shares(PARTS, shares)

    assert caught.value.faults == [
        "shares: expected versions among the challengers ['2', '3', '4'], got '1'",
        f"shares: expected versions among the challengers ['2', '3', '4'], got '{'9' * 200}…'",
        "challenger '2': expected a share in [0, 1], got 1.5",
        "challenger '3': expected a share in [0, 1], got nan",
    ]


def test_shares_above_1_together_are_refused() -> None:
    """A share may be what the champion has left, and not a billionth more."""
    assert champion_share(with_shares(PARTS, {"2": 0.7})) == 0.0

    with pytest.raises(RouteError, match=r"add up to at most 1, got 1\.000000001"):
        with_shares(PARTS, {"2": 0.700000001})


@given(routes(), routes())
def test_a_replaced_route_is_whole(former: Route, wanted: Route) -> None:
    """Laid out from where the former one's splits are, with the next revision whatever it says itself."""
    bare = msgspec.structs.replace(
        wanted, challengers=[msgspec.structs.replace(each, ranges=None) for each in wanted.challengers]
    )

    after = replaced(former, bare)

    assert after == msgspec.structs.replace(lay_out(bare, former), revision=former.revision + 1)
    for each in after.splits:
        own = [earlier for earlier in former.splits if earlier.version == each.version]
        for start in cuts_of(former, after)[:-1] if own and own[0].share <= each.share else ():
            assert owner_at(former, start) != each.version or owner_at(after, start) == each.version


def test_a_replacement_that_collides_is_refused() -> None:
    """Explicit ranges on those of another challenger."""
    wanted = Route(
        champion="1",
        challengers=[
            Challenger(version="2", mode="split", share=0.1, ranges=[(0.2, 0.3)]),
            Challenger(version="3", mode="split", share=0.3),
        ],
    )

    with pytest.raises(RouteError, match=r"one of '3' up to 0.3 and one of '2' from 0.2"):
        replaced(PARTS, wanted)


@given(routes(), st.sampled_from(["2", "3", "4", "9"]))
def test_promotion_moves_only_units_of_the_former_champion(route: Route, version: str) -> None:
    """All of them, to the new one; what that one had already it keeps, and other challengers keep theirs."""
    after = promoted(route, version)

    rest = Decimal(str(champion_share(route)))
    assert moves_between(route, after) == ({("1", version): rest} if rest else {})
    assert after.champion == version
    assert "1" not in [each.version for each in after.challengers]
    assert after.challengers == [each for each in route.challengers if each.version != version]
    assert (after.unit, after.salt, after.overrides) == (route.unit, route.salt, route.overrides)
    assert after.revision == route.revision + 1
    assert faults_in(after) == []


def test_a_champion_is_not_promoted() -> None:
    """It would be a revision that changes nothing; a long name is cut."""
    long = Route(champion="1" * 300)

    with pytest.raises(RouteError, match="expected another version than the champion, got '1', which is champion"):
        promoted(PARTS, "1")
    with pytest.raises(RouteError, match=f"got '{'1' * 200}…', which"):
        promoted(long, "1" * 300)


@given(st.data(), routes(), texts)
def test_a_restored_route_assigns_as_the_earlier_did(data: st.DataObject, earlier: Route, unit: str) -> None:
    """Every part of the traffic, whatever was changed since, and as a new revision."""
    later = promoted(with_shares(earlier, data.draw(changed_shares(earlier))), "5")

    back = restored(later, earlier)

    assert back == msgspec.structs.replace(earlier, revision=later.revision + 1)
    assert lanes_of(back) == lanes_of(earlier)
    assert assign(back, unit) == assign(earlier, unit)


@given(routes(), routes())
def test_routes_are_the_same_but_for_the_revision(one: Route, other: Route) -> None:
    """Whatever else differs makes them two."""
    assert same(one, msgspec.structs.replace(one, revision=one.revision + 1))
    assert same(one, other) == (msgspec.structs.replace(one, revision=0) == msgspec.structs.replace(other, revision=0))


def test_versions_that_cannot_answer() -> None:
    """Unknown ones, wherever they are named, and a champion that was refused."""
    faults = version_faults(PARTS, known=["1", "2", "4"], serving=["2", "4"])

    assert faults == [
        "expected versions among ['1', '2', '4'], got '3'",
        "expected a champion that serves, got version '1', which was refused",
    ]
    assert version_faults(PARTS, known=["1", "2", "3", "4"], serving=["1"]) == []
    assert version_faults(Route(champion="x" * 300), known=["1"], serving=["1"]) == [
        f"expected versions among ['1'], got '{'x' * 200}…'"
    ]


@pytest.mark.parametrize("unit", [None, "parameter:distance", "header:distance", "input:carrier", "input:hour"])
def test_units_that_requests_have(unit: str | None) -> None:
    """A parameter and a header need not be in the signature; an input must be, and be exact in every language."""
    assert unit_fault(Route(champion="1", unit=unit), SIGNATURE) == []


@pytest.mark.parametrize(("name", "named"), [("distance", "'distance'"), ("", "''"), ("x" * 300, f"'{'x' * 200}…'")])
def test_units_that_requests_have_not(name: str, named: str) -> None:
    """A fraction is written in more than one way, and another name is no input."""
    expected = "expected an input of strings, integers or booleans, of the champion's ['carrier', 'hour'], got "
    assert unit_fault(Route(champion="1", unit=f"input:{name}"), SIGNATURE) == [f"unit: {expected}{named}"]


@given(st.data(), routes(), st.booleans())
def test_moves_are_what_comparing_every_part_says(data: st.DataObject, before: Route, promote: bool) -> None:
    """Who answers before and after, at every place where it may change, weighted by the parts' sizes."""
    after = with_shares(before, data.draw(changed_shares(before)))
    after = promoted(after, data.draw(st.sampled_from(["2", "9"]))) if promote else after
    expected: dict[tuple[str, str], int] = {}
    for start, end in pairwise(cuts_of(before, after)):
        pair = lanes_of(before).owner(start), lanes_of(after).owner(start)
        if pair[0] != pair[1]:
            expected[pair] = expected.get(pair, 0) + round(end * STEPS) - round(start * STEPS)

    moves = difference(before, after).moves

    assert {(each.source, each.target): each.share for each in moves} == {
        pair: size / STEPS for pair, size in expected.items()
    }
    assert moves == sorted(moves, key=lambda each: (-each.share, each.source, each.target))


def test_moves_are_what_units_say() -> None:
    """Of 20,000 units as many move as the difference says, within four standard errors."""
    after = promoted(with_shares(PARTS, {"2": 0.25, "3": 0.05}), "2")
    units = [str(number) for number in range(20_000)]

    moves = difference(PARTS, after).moves

    pairs = [(assign(PARTS, unit).version, assign(after, unit).version) for unit in units]
    assert {pair for pair in pairs if pair[0] != pair[1]} == {(each.source, each.target) for each in moves}
    for move in moves:
        share = pairs.count((move.source, move.target)) / len(units)
        assert abs(share - move.share) < 4 * (move.share * (1 - move.share) / len(units)) ** 0.5


@given(routes())
def test_nothing_differs_from_itself(route: Route) -> None:
    """Another revision is no difference."""
    later = msgspec.structs.replace(route, revision=route.revision + 1)

    assert difference(route, later) == Difference(versions=[], moves=[], members=[], reassigned=False)


def test_a_difference_is_told_version_by_version() -> None:
    """Role and share before and after, of those that come, go or change; then moves, the largest first."""
    after = Route(
        champion="2",
        challengers=[
            Challenger(version="3", mode="split", share=0.2, ranges=[(0.1, 0.3)]),
            Challenger(version="4", share=0.5, guard=Guard(error_rate=0.2)),
            Challenger(version="5", mode="split", share=0.1, ranges=[(0.4, 0.5)]),
        ],
        unit=PARTS.unit,
        salt=PARTS.salt,
    )

    assert difference(PARTS, after) == Difference(
        versions=[
            VersionChange(version="1", before=Arm(role="champion", share=0.6), after=Arm(role="none", share=0.0)),
            VersionChange(version="2", before=Arm(role="split", share=0.1), after=Arm(role="champion", share=0.7)),
            VersionChange(version="3", before=Arm(role="split", share=0.3), after=Arm(role="split", share=0.2)),
            VersionChange(version="5", before=Arm(role="none", share=0.0), after=Arm(role="split", share=0.1)),
        ],
        moves=[Move(source="1", target="2", share=0.6), Move(source="3", target="5", share=0.1)],
        members=["overrides", "guard of 2", "guard of 4"],
        reassigned=False,
    )


def test_moves_of_one_size_are_told_by_name() -> None:
    """Wherever in the traffic they are."""
    after = with_shares(PARTS, {"2": 0.0, "3": 0.4})

    assert difference(PARTS, after).moves == [
        Move(source="1", target="3", share=0.1),
        Move(source="2", target="1", share=0.1),
    ]


def test_a_difference_names_shadows() -> None:
    """A shadow has its own share, and takes no units."""
    after = msgspec.structs.replace(PARTS, challengers=PARTS.challengers[:2])

    assert difference(PARTS, after) == Difference(
        versions=[VersionChange(version="4", before=Arm(role="shadow", share=0.5), after=Arm(role="none", share=0.0))],
        moves=[],
        members=[],
        reassigned=False,
    )


@pytest.mark.parametrize("change", [{"salt": "t"}, {"unit": None}])
def test_another_salt_or_unit_gives_every_unit_a_new_place(change: dict[str, str | None]) -> None:
    """No moves are told then: nobody is where they were."""
    told = difference(PARTS, msgspec.structs.replace(promoted(PARTS, "2"), **change))

    assert told.reassigned
    assert told.moves == []
    assert told.members == [*change, "guard of 2"]


def test_moves_go_over_the_wire_as_from_and_to() -> None:
    """What a script reads of a dry run."""
    assert msgspec.json.encode(Move(source="1", target="2", share=0.1)) == b'{"from":"1","to":"2","share":0.1}'
