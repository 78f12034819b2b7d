"""The route document: what can be read, and what is said of one that cannot."""

import json
import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from server.errors import RouteError
from server.routing.document import (
    Challenger,
    Guard,
    Override,
    Route,
    decode_route,
    encode_route,
    faults_in,
    format_route,
    read_route,
    route_schema,
)
from tests.server.routing.routes import routes, toml_of

WHOLE = Route(
    champion="1",
    challengers=[
        Challenger(version="2"),
        Challenger(
            version="3",
            mode="split",
            share=0.05,
            guard=Guard(error_rate=0.02, latency_ms=50.0, slow_rate=0.1, window_s=30.0, min_requests=20),
            ranges=[(0.0, 0.02), (0.1, 0.13)],
        ),
    ],
    unit="header:x-customer",
    salt="flight-delay",
    overrides=[Override(header="x-tester", value="red", version="3")],
    revision=7,
)
JSON = b"""{
  "champion": "1",
  "challengers": [
    {"version": "2", "mode": "shadow", "share": 1.0, "guard": null, "ranges": null},
    {"version": "3", "mode": "split", "share": 0.05,
     "guard": {"error_rate": 0.02, "latency_ms": 50.0, "slow_rate": 0.1, "window_s": 30.0, "min_requests": 20},
     "ranges": [[0.0, 0.02], [0.1, 0.13]]}
  ],
  "unit": "header:x-customer",
  "salt": "flight-delay",
  "overrides": [{"header": "x-tester", "value": "red", "version": "3"}],
  "revision": 7
}"""
TOML = b"""
champion = "1"
unit = "header:x-customer"
salt = "flight-delay"
revision = 7

[[challengers]]
version = "2"

[[challengers]]
version = "3"
mode = "split"
share = 5e-2
ranges = [[0, 0.02], [0.1, 0.13]]
guard = {error_rate = 0.02, latency_ms = 50, slow_rate = 0.1, window_s = 30, min_requests = 20}

[[overrides]]
header = "x-tester"
value = "red"
version = "3"
"""


def faults_of(value: Any) -> list[str]:
    """Returns what is said of a document, nothing of a good one."""
    try:
        read_route(value)
    except RouteError as error:
        return error.faults
    return []


def with_split(**members: Any) -> dict[str, Any]:
    """Returns a document whose only challenger is a split with some members."""
    return {"champion": "1", "challengers": [{"version": "2", "mode": "split", "share": 0.1} | members]}


def with_guard(**members: Any) -> dict[str, Any]:
    """Returns a document with a guard."""
    return with_split(guard=members)


def with_override(**members: Any) -> dict[str, Any]:
    """Returns a document with an override."""
    return {"champion": "1", "overrides": [{"header": "x-tester", "value": "red", "version": "1"} | members]}


@pytest.mark.parametrize(("data", "form"), [(JSON, "json"), (TOML, "toml")])
def test_a_document_with_every_member(data: bytes, form: Any) -> None:
    """As the protocol writes it, in both forms."""
    assert decode_route(data, form) == WHOLE


def test_what_a_document_leaves_out() -> None:
    """A challenger is a shadow of everything; a guard looks at a minute and fifty requests."""
    value = {"champion": "1", "challengers": [{"version": "2", "guard": {"latency_ms": 5}}]}

    guard = Guard(error_rate=None, latency_ms=5.0, slow_rate=0.05, window_s=60.0, min_requests=50)
    challenger = Challenger(version="2", mode="shadow", share=1.0, guard=guard, ranges=None)
    assert read_route(value) == Route(
        champion="1", challengers=[challenger], unit=None, salt="", overrides=[], revision=0
    )


@given(routes())
def test_a_route_comes_back_from_every_form(route: Route) -> None:
    """One line of JSON, JSON for people, TOML, and plain values."""
    assert decode_route(encode_route(route)) == route
    assert decode_route(format_route(route)) == route
    assert decode_route(toml_of(route), "toml") == route
    assert read_route(json.loads(encode_route(route))) == route
    assert b"\n" not in encode_route(route)


def test_json_for_people() -> None:
    """Indented by two, and a line that ends."""
    assert format_route(Route(champion="1", salt="é")).decode() == (
        '{\n  "champion": "1",\n  "challengers": [],\n  "unit": null,\n  "salt": "é",\n'
        '  "overrides": [],\n  "revision": 0\n}\n'
    )


@given(routes())
def test_the_schema_admits_every_route(route: Route) -> None:
    """It is a JSON Schema of 2020-12, and refuses a member that is none."""
    schema = route_schema()
    value = json.loads(encode_route(route))

    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert validator.is_valid(value)
    assert not validator.is_valid(value | {"champions": []})


def test_versions_are_named_once() -> None:
    """The champion first, then challengers, then whom overrides name beside them."""
    overrides = [Override(header="a", value=version, version=version) for version in ("9", "2", "1")]
    route = msgspec.structs.replace(WHOLE, overrides=overrides)

    assert route.versions() == ["1", "2", "3", "9"]
    assert [each.version for each in route.splits] == ["3"]
    assert [each.version for each in route.shadows] == ["2"]


@pytest.mark.parametrize(
    ("value", "faults"),
    [
        (None, ["document: expected `object`, got `null`"]),
        ([], ["document: expected `object`, got `array`"]),
        ("1", ["document: expected `object`, got `str`"]),
        ({}, ["document: expected a member champion, got none"]),
        ({"champion": 1}, ["champion: expected `str`, got `int`"]),
        ({"champion": None}, ["champion: expected `str`, got `null`"]),
        (
            {"champion": "1", "b": 0, "a": 0},
            [
                "document: expected members among champion, challengers, unit, salt, overrides, revision, got 'a'",
                "document: expected members among champion, challengers, unit, salt, overrides, revision, got 'b'",
            ],
        ),
        ({"champion": "1", "challengers": None}, ["challengers: expected `array`, got `null`"]),
        ({"champion": "1", "challengers": {}}, ["challengers: expected `array`, got `object`"]),
        ({"champion": "1", "overrides": [1]}, ["overrides[0]: expected `object`, got `int`"]),
        ({"champion": "1", "salt": None}, ["salt: expected `str`, got `null`"]),
        ({"champion": "1", "salt": "s" * 201}, ["salt: expected at most 200 characters, got 201"]),
        ({"champion": "1", "revision": 1.5}, ["revision: expected `int`, got `float`"]),
        ({"champion": "1", "revision": True}, ["revision: expected `int`, got `bool`"]),
        ({"champion": "1", "revision": -1}, ["revision: expected 0 or more, below 2^53, got -1"]),
        ({"champion": "1", "revision": 2**53}, [f"revision: expected 0 or more, below 2^53, got {2**53}"]),
        ({"champion": "1", "revision": 2**63}, ["revision: expected an integer of 64 bits, got one beyond"]),
        ({"champion": "1", "revision": -(2**63)}, [f"revision: expected 0 or more, below 2^53, got {-(2**63)}"]),
        ({"champion": "1", "revision": -(2**63) - 1}, ["revision: expected an integer of 64 bits, got one beyond"]),
        ({"champion": "1", "unit": 3}, ["unit: expected `str`, got `int`"]),
        (
            {"champion": "1", "challengers": [{"version": "1"}, {"version": "2"}, {"version": "2"}]},
            [
                "expected every version once among champion and challengers, got '1' twice",
                "expected every version once among champion and challengers, got '2' twice",
            ],
        ),
        (
            {"champion": "1", "challengers": [{"version": f"c{number}"} for number in range(65)]},
            ["challengers: expected at most 64, got 65"],
        ),
        ({"champion": "1", "challengers": [{"mode": "split"}]}, [
            "challengers[0]: expected a member version, got none",
            "challengers[0]: expected a share beside mode split, got none",
        ]),
        (
            {"champion": "1", "challengers": [
                {"version": "2", "mode": "split"},
                {"version": "3", "mode": "split", "share": 0.5},
            ]},
            ["challengers[0]: expected a share beside mode split, got none"],
        ),
        (with_split(mode="AB"), ["challengers[0].mode: expected 'shadow' or 'split', got 'AB'"]),
        (with_split(mode=2), ["challengers[0].mode: expected `str`, got `int`"]),
        (with_split(share="0.1"), ["challengers[0].share: expected `float`, got `str`"]),
        (with_split(share=None), ["challengers[0].share: expected `float`, got `null`"]),
        (with_split(share=True), ["challengers[0].share: expected `float`, got `bool`"]),
        (with_split(share=10**400), ["challengers[0].share: number out of range"]),
        (with_split(share=-0.1), ["challenger '2': expected a share in [0, 1], got -0.1"]),
        (with_split(mode="shadow", share=1.5), ["challenger '2': expected a share in [0, 1], got 1.5"]),
        (with_split(share=math.nan), ["challenger '2': expected a share in [0, 1], got nan"]),
        (with_split(share=math.inf), ["challenger '2': expected a share in [0, 1], got inf"]),
        (
            with_split(sticky=True),
            ["challengers[0]: expected members among version, mode, share, guard, ranges, got 'sticky'"],
        ),
        (with_split(ranges=0.1), ["challengers[0].ranges: expected `array`, got `float`"]),
        (
            with_split(ranges=[["a", None], [0.1], 3, [0.2, 0.1]]),
            [
                "challengers[0].ranges[0][0]: expected `float`, got `str`",
                "challengers[0].ranges[0][1]: expected `float`, got `null`",
                "challengers[0].ranges[1]: expected `array` of length 2, got 1",
                "challengers[0].ranges[2]: expected `array`, got `int`",
                "challenger '2': expected ranges [from, to] with 0 <= from < to <= 1, a billionth apart or more, "
                "got [0.2, 0.1]",
            ],
        ),
        (with_split(guard=[]), ["challengers[0].guard: expected `object`, got `array`"]),
        (with_guard(), ["challenger '2': guard: expected error_rate, latency_ms or both, got neither"]),
        (
            with_guard(error_rate="0", p99=5),
            [
                "challengers[0].guard: expected members among error_rate, latency_ms, slow_rate, window_s, "
                "min_requests, got 'p99'",
                "challengers[0].guard.error_rate: expected `float`, got `str`",
            ],
        ),
        (
            with_guard(error_rate=1.0, latency_ms=0.0, slow_rate=1.0, window_s=0.5, min_requests=0),
            [
                "challenger '2': guard: expected an error_rate in [0, 1), got 1.0",
                "challenger '2': guard: expected latency_ms above 0, got 0.0",
                "challenger '2': guard: expected a slow_rate in [0, 1), got 1.0",
                "challenger '2': guard: expected window_s from 1 to 3600, got 0.5",
                "challenger '2': guard: expected min_requests of 1 or more, got 0",
            ],
        ),
        (
            with_guard(error_rate=-0.1, latency_ms=math.inf, slow_rate=-0.1, window_s=3600.5),
            [
                "challenger '2': guard: expected an error_rate in [0, 1), got -0.1",
                "challenger '2': guard: expected latency_ms above 0, got inf",
                "challenger '2': guard: expected a slow_rate in [0, 1), got -0.1",
                "challenger '2': guard: expected window_s from 1 to 3600, got 3600.5",
            ],
        ),
        (
            with_guard(error_rate=math.nan, latency_ms=math.nan, slow_rate=math.nan, window_s=math.nan),
            [
                "challenger '2': guard: expected an error_rate in [0, 1), got nan",
                "challenger '2': guard: expected latency_ms above 0, got nan",
                "challenger '2': guard: expected a slow_rate in [0, 1), got nan",
                "challenger '2': guard: expected window_s from 1 to 3600, got nan",
            ],
        ),
        (with_override(header="x tester"), ["overrides: expected a header's name, got 'x tester'"]),
        (with_override(header=""), ["overrides: expected a header's name, got ''"]),
        (with_override(colour="red"), ["overrides[0]: expected members among header, value, version, got 'colour'"]),
        ({"champion": "1", "overrides": [{}]}, [
            "overrides[0]: expected a member header, got none",
            "overrides[0]: expected a member value, got none",
            "overrides[0]: expected a member version, got none",
        ]),
        (
            {"champion": "1", "overrides": [
                {"header": "X-Tester", "value": "red", "version": "1"},
                {"header": "x-tester", "value": "red", "version": "2"},
                {"header": "x-tester", "value": "Red", "version": "2"},
            ]},
            ["overrides: expected every header and value once, got 'x-tester' twice with one value"],
        ),
    ],
)  # fmt: skip
def test_every_fault_is_named(value: Any, faults: list[str]) -> None:
    """What was expected and what came, where; no fault hides another or makes one up."""
    assert faults_of(value) == faults


@pytest.mark.parametrize(
    "value",
    [
        {"champion": "1", "unit": None},
        {"champion": "1", "salt": "s" * 200, "revision": 2**53 - 1},
        {"champion": "1", "challengers": [{"version": f"c{number}"} for number in range(64)]},
        with_split(guard=None, ranges=None),
        with_split(share=0),
        with_split(share=1),
        with_split(mode="shadow", ranges=[]),
        with_split(ranges=[[0, 0.5], [0.5, 1]]),
        with_split(ranges=[[0.1, 0.100000001]]),
        with_split(ranges=[[0.1, 0.2000000009], [0.2000000005, 0.3]]),
        with_guard(error_rate=0, slow_rate=0, window_s=1, min_requests=1),
        with_guard(error_rate=0.999, latency_ms=1e-9, slow_rate=0.999, window_s=3600),
        with_override(version="2"),
    ],
)
def test_limits_can_be_reached(value: Any) -> None:
    """What is just within is no fault; null is as good as no member where that is the default."""
    assert faults_of(value) == []


@pytest.mark.parametrize("unit", ["parameter:customer", "parameter:a:b", "header:X-Customer", "input:tail num", None])
def test_units(unit: str | None) -> None:
    """A parameter, a header, an input, or the request id."""
    assert read_route({"champion": "1", "unit": unit}).unit == unit


@pytest.mark.parametrize(
    "unit", ["", ":", "parameter", "parameter:", "cookie:id", "Header:x", "header:x customer", "header:x\n", "input:"]
)
def test_units_that_are_none(unit: str) -> None:
    """The kinds are three, and a header's name is one that HTTP knows."""
    assert faults_of({"champion": "1", "unit": unit}) == [
        f"unit: expected parameter:NAME, header:NAME, input:NAME or null, got {unit!r}"
    ]


@pytest.mark.parametrize("value", ["r", "red", "red car", "!", "é", "ÿ à"])
def test_values_of_headers(value: str) -> None:
    """What a header can hold, as it arrives."""
    assert read_route(with_override(value=value)).overrides[0].value.encode("latin-1").decode("latin-1") == value


@pytest.mark.parametrize("value", ["", " ", " red", "red ", "r\ned", "red\n", "\x7f", "a\x9fb", "✈", "\xa0red"])
def test_values_that_no_header_has(value: str) -> None:
    """Such an override would never hold, or could not be compared; the value is not echoed, it may be a secret."""
    assert faults_of(with_override(value=value)) == [
        "overrides: header 'x-tester': expected a value of printable characters of Latin-1, without spaces around, "
        "got another"
    ]


def splits(*parts: tuple[float, Any], mode: str = "split") -> dict[str, Any]:
    """Returns a document with challengers 2, 3, … of these shares and ranges."""
    return {
        "champion": "1",
        "challengers": [
            {"version": str(number), "mode": mode, "share": share, "ranges": ranges}
            for number, (share, ranges) in enumerate(parts, start=2)
        ],
    }


@pytest.mark.parametrize(
    "shares", [[0.5, 0.5], [1 / 3, 1 / 3, 1 / 3], [0.1] * 10, [0.7, 0.2, 0.1], [0.5000000004, 0.5], [0.0, 1.0]]
)
def test_shares_may_add_up_to_1(shares: list[float]) -> None:
    """In billionths, so that thirds and tenths do; what shadows score is no part of it."""
    assert faults_of(splits(*((share, None) for share in shares))) == []
    assert faults_of(splits((1.0, None), (1.0, None), mode="shadow")) == []


@pytest.mark.parametrize(
    ("shares", "total"), [([0.5, 0.500000001], "1.000000001"), ([0.6, 0.6], "1.2"), ([1.0] * 3, "3.0")]
)
def test_shares_may_not_add_up_to_more(shares: list[float], total: str) -> None:
    """Not by a billionth."""
    expected = f"expected shares of splits that add up to at most 1, got {total}"
    assert faults_of(splits(*((share, None) for share in shares))) == [expected]


def test_shares_outside_are_not_added() -> None:
    """They are a fault of their own; the rest may be one still."""
    outside = "challenger '2': expected a share in [0, 1], got nan"

    assert faults_of(splits((math.nan, None), (1.0, None))) == [outside]
    assert faults_of(splits((math.nan, None), (0.6, None), (0.6, None))) == [
        outside,
        "expected shares of splits that add up to at most 1, got 1.2",
    ]


@pytest.mark.parametrize(
    "part",
    [[-0.1, 0.1], [0.9, 1.1], [0.5, 0.5], [0.1, 0.1000000004], [math.nan, 1.0], [0.0, math.nan], [0.0, math.inf]],
)
def test_ranges_that_are_none(part: list[float]) -> None:
    """Outside [0, 1], empty, or empty once it is in billionths."""
    start, end = part
    assert faults_of(with_split(ranges=[part])) == [
        "challenger '2': expected ranges [from, to] with 0 <= from < to <= 1, a billionth apart or more, "
        f"got [{start}, {end}]"
    ]


def test_overlaps_are_all_named() -> None:
    """Also of one challenger with itself, and of ranges that lie within a long one."""
    value = splits((0.1, [[0.0, 0.9]]), (0.1, [[0.1, 0.2], [0.15, 0.3]]), (0.1, [[0.5, 0.95], [0.94, 1.0]]))

    assert faults_of(value) == [
        "expected ranges that do not overlap, got one of '2' up to 0.9 and one of '3' from 0.1",
        "expected ranges that do not overlap, got one of '2' up to 0.9 and one of '3' from 0.15",
        "expected ranges that do not overlap, got one of '2' up to 0.9 and one of '4' from 0.5",
        "expected ranges that do not overlap, got one of '4' up to 0.95 and one of '4' from 0.94",
    ]


def test_ranges_are_of_splits() -> None:
    """Which requests a shadow scores does not depend on who answers."""
    expected = "challenger '2': expected ranges beside mode split, got them beside shadow"
    assert faults_of(splits((0.1, [[0.0, 0.1]]), mode="shadow")) == [expected]


BREAKS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "champion: expected `str`, got `int`": lambda value: value.update(champion=3),
    "document: expected members among": lambda value: value.update(champions=[]),
    "challengers[2]: expected a member version": lambda value: value["challengers"][2].pop("version"),
    "challengers[0].mode: expected 'shadow' or 'split'": lambda value: value["challengers"][0].update(mode="off"),
    "challengers[1]: expected members among": lambda value: value["challengers"][1].update(weight=3),
    "challenger '3': expected a share in [0, 1], got 2.0": lambda value: value["challengers"][1].update(share=2.0),
    "challengers[1].ranges[0][1]: expected `float`": lambda value: value["challengers"][1]["ranges"][0].insert(1, None),
    "got one of '3' up to 0.5 and one of '5' from 0.4": lambda value: value["challengers"][1]["ranges"].append(
        [0.3, 0.5]
    ),
    "challengers[1].guard.window_s: expected `float`": lambda value: value["challengers"][1]["guard"].update(
        window_s=""
    ),
    "guard: expected min_requests of 1 or more": lambda value: value["challengers"][3]["guard"].update(min_requests=0),
    "got '5' twice": lambda value: value["challengers"].append({"version": "5"}),
    "unit: expected parameter:NAME": lambda value: value.update(unit="cookie:a"),
    "salt: expected `str`, got `array`": lambda value: value.update(salt=[]),
    "revision: expected 0 or more": lambda value: value.update(revision=-1),
    "overrides[0].value: expected `str`, got `bool`": lambda value: value["overrides"][0].update(value=True),
    "overrides: expected a header's name, got 'a b'": lambda value: value["overrides"][1].update(header="a b"),
}


@given(st.sets(st.sampled_from(sorted(BREAKS))))
def test_faults_hide_no_others(chosen: set[str]) -> None:
    """However many a person made at once, in members, in members of members, in what they say together."""
    value: dict[str, Any] = {
        "champion": "1",
        "challengers": [
            {"version": "2"},
            {"version": "3", "mode": "split", "share": 0.1, "guard": {"error_rate": 0.1}, "ranges": [[0.0, 0.1]]},
            {"version": "4"},
            {"version": "5", "mode": "split", "share": 0.1, "guard": {"error_rate": 0.1}, "ranges": [[0.4, 0.5]]},
        ],
        "overrides": [
            {"header": "a", "value": "b", "version": "1"},
            {"header": "c", "value": "d", "version": "1"},
        ],
    }
    for each in sorted(chosen):
        BREAKS[each](value)
    # A range of three numbers is one fault, of its length; the ends of one of two are looked at one by one.
    named = {
        each.replace("ranges[0][1]: expected `float`", "ranges[0]: expected `array` of length 2") for each in chosen
    }

    faults = faults_of(value)

    assert len(faults) == len(named)
    assert all(any(each in fault for fault in faults) for each in named)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
members = {
    "Route": ["champion", "challengers", "unit", "salt", "overrides", "revision"],
    "Challenger": ["version", "mode", "share", "guard", "ranges"],
    "Guard": ["error_rate", "latency_ms", "slow_rate", "window_s", "min_requests"],
    "Override": ["header", "value", "version"],
}
scalars = values | st.sampled_from(["1", "2", "split", "shadow", "header:a", 0.1, 0.5, 1, 2**70, math.nan])


def record(name: str, **inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Returns objects with some of a record's members, most of them of the wrong type."""
    return values | st.fixed_dictionaries({}, optional={each: inner.get(each, scalars) for each in members[name]})


documents = record(
    "Route",
    challengers=st.lists(
        record("Challenger", guard=record("Guard"), ranges=st.lists(st.lists(scalars, max_size=3), max_size=3)),
        max_size=3,
    ),
    overrides=st.lists(record("Override"), max_size=3),
)


@given(documents)
def test_any_value_is_a_route_or_refused(value: Any) -> None:
    """Nothing but RouteError is raised; what is read has no faults and can be written."""
    try:
        route = read_route(value)
    except RouteError as error:
        assert error.faults
        return
    assert faults_in(route) == []
    assert decode_route(encode_route(route)) == route


@given(routes(), documents, st.data())
def test_a_good_document_with_one_odd_value(route: Route, odd: Any, data: st.DataObject) -> None:
    """Nothing but RouteError, wherever in the document the value is put."""
    value = msgspec.to_builtins(route)
    place = value
    while True:
        key = data.draw(st.sampled_from(sorted(place)) if isinstance(place, dict) else st.integers(0, len(place) - 1))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            break
        place = inner
    place[key] = odd

    faults_of(value)


@given(st.binary() | st.text().map(str.encode), st.sampled_from(["json", "toml"]))
def test_any_bytes_are_a_route_or_refused(data: bytes, form: Any) -> None:
    """Nothing but RouteError is raised."""
    with pytest.raises(RouteError):
        decode_route(data, form)


@pytest.mark.parametrize(
    ("data", "form", "sentence"),
    [
        (b"{", "json", "expected a document in JSON, got one that is none: "),
        (b'"\xff"', "json", "expected a document in JSON, got one that is none: "),
        (b"[" * 100_000, "json", "expected a document in JSON, got one that is none: "),
        (b"champion", "toml", "expected a document in TOML, got one that is none: "),
        (b'a = "\xff"', "toml", "expected a document in TOML, got one that is none: "),
        (b"a = " + b"[" * 100_000, "toml", "expected a document in TOML, got one that is none: "),
        (b"revision = " + b"9" * 5000, "toml", "expected a document in TOML, got one that is none: "),
        (b'champion = "1"\nrevision = 0x' + b"f" * 5000, "toml", "revision: expected an integer of 64 bits, got one"),
        (b"champion = 2025-01-01", "toml", "champion: expected `str`, got `date"),
        (b'champion = "1"\n[[challengers]]\nversion = "2"\nshare = nan', "toml", "a share in [0, 1], got nan"),
        (b'champion = "1"\n[[challengers]]\nversion = "2"\nshare = -inf', "toml", "a share in [0, 1], got -inf"),
        (b'{"champion": "1", "challengers": [{"version": "2", "share": NaN}]}', "json", "got one that is none: "),
        (b'{"champion": "\\ud800"}', "json", "got one that is none: "),
    ],
)
def test_bytes_that_are_no_route(data: bytes, form: Any, sentence: str) -> None:
    """No JSON, no TOML, no UTF-8, too deep, or values that only TOML has."""
    with pytest.raises(RouteError) as caught:
        decode_route(data, form)

    assert sentence in str(caught.value)
    assert len(str(caught.value)) < 300


LONG = "x" * 100_000


@pytest.mark.parametrize(
    "value",
    [
        LONG,
        {LONG: 1},
        {"champion": LONG, "challengers": [{"version": LONG}, {"version": LONG, "share": 3}]},
        {"champion": "1", "challengers": [{"version": LONG, "mode": LONG}]},
        {"champion": "1", "challengers": [{"version": LONG, "ranges": [[0, 1], [0, 2]]}]},
        splits((0.1, [[0.0, 0.1]]), (0.1, [[0.0, 0.1]])) | {"champion": LONG},
        {"champion": "1", "challengers": [{"version": LONG, "guard": {}}]},
        {"champion": "1", "unit": LONG, "salt": LONG},
        {"champion": "1", "overrides": [{"header": LONG + " ", "value": " " + LONG, "version": LONG}] * 2},
        {LONG + str(number): 1 for number in range(1000)},
        {"champion": "1", "challengers": [3] * 10_000},
    ],
)
def test_a_message_is_no_longer_than_a_page_or_two(value: Any) -> None:
    """Long names are cut, and of many faults the first hundred are named."""
    with pytest.raises(RouteError) as caught:
        read_route(value)

    assert len(str(caught.value)) < 100 * 400
    assert LONG[:1000] not in str(caught.value)
    assert len(caught.value.faults) <= 101


def test_faults_beyond_a_hundred_are_counted() -> None:
    """A hundred are named whole; of more, how many more there are."""
    hundred = faults_of({"champion": "1", "overrides": [3] * 100})
    more = faults_of({"champion": "1", "overrides": [3] * 110})

    assert hundred == [f"overrides[{place}]: expected `object`, got `int`" for place in range(100)]
    assert more == [*hundred, "10 faults more"]


def test_what_is_cut_is_marked() -> None:
    """At 200 characters."""
    assert faults_of({"champion": "1", "unit": "u" * 200})[0].endswith(f"got '{'u' * 200}'")
    assert faults_of({"champion": "1", "unit": "u" * 201})[0].endswith(f"got '{'u' * 200}…'")
