"""Who answers a unit: the same everywhere, exactly as often as the shares say, and independent of other things."""

import hashlib
import json
import shutil
import subprocess
from collections import Counter
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from numpy.typing import NDArray
from scipy import stats

from server.routing.assignment import Assignment, Lanes, assign, bucket_of, lanes_of, shadow_bucket_of
from server.routing.changes import with_shares
from server.routing.document import Challenger, Route, decode_route, encode_route, read_route
from server.routing.ranges import champion_share, lay_out
from tests.server.routing.routes import cuts_of, owner_at, routes, texts, toml_of

VECTORS = json.loads(files("server.routing").joinpath("reference_vectors.json").read_bytes())
KEYS = 10**6
QUANTILE = 0.9999
"""Of the chi-square distribution: the keys are fixed, so what stays below it once does so always."""


def bucket(salt: str, unit: str) -> Fraction:
    """Returns the bucket as the protocol writes it, in exact numbers."""
    return Fraction(int(hashlib.sha256((salt + ":" + unit).encode()).hexdigest()[:16], 16) >> 11, 2**53)


@pytest.mark.parametrize("case", VECTORS["buckets"])
def test_buckets_are_those_published(case: dict[str, Any]) -> None:
    """The file is right, and so is the module: each float there is the exact quotient."""
    salt, unit = case["salt"], case["unit"]

    assert case["first_8_bytes"] == hashlib.sha256((salt + ":" + unit).encode()).hexdigest()[:16]
    assert Fraction(case["bucket"]) == bucket(salt, unit)
    assert bucket_of(salt, unit) == case["bucket"]


@pytest.mark.parametrize("case", VECTORS["assignments"], ids=lambda case: case["about"])
def test_assignments_are_those_published(case: dict[str, Any]) -> None:
    """By the ranges of the document alone, in exact numbers, and by the module."""
    route = read_route(case["route"])
    splits = [each for each in case["route"]["challengers"] if each["mode"] == "split"]
    assert lay_out(route, None) == route, "a published route is whole"

    for answer in case["answers"]:
        unit = answer["unit"]
        place = bucket(case["route"]["salt"] or case["model"], unit)
        found = [each for each in splits if any(Fraction(a) <= place < Fraction(b) for a, b in each["ranges"])]
        rest = (10**9 - sum(round(each["share"] * 10**9) for each in splits)) / 10**9
        version, rule, share = (
            (found[0]["version"], "split", found[0]["share"])
            if found
            else (case["route"]["champion"], "champion", rest)
        )

        assert answer == {"unit": unit, "version": version, "rule": rule, "propensity": share}
        assert assign(route, unit, case["model"]) == Assignment(version, rule, float(place), share)


@pytest.mark.parametrize("case", VECTORS["shadows"])
def test_samples_of_shadows_are_those_published(case: dict[str, Any]) -> None:
    """A shadow scores the units whose place for it is below its share."""
    place = bucket(f"{case['salt']}:shadow:{case['version']}", case["unit"])

    assert Fraction(case["bucket"]) == place
    assert case["scored"] == (place < Fraction(case["share"]))
    assert shadow_bucket_of(case["salt"], case["version"], case["unit"]) == case["bucket"]


def test_the_published_cases_cover_what_they_should() -> None:
    """Other scripts, nothing at all, both sides of a range's end, several ranges, scored and not."""
    ends = [
        abs(bucket(case["route"]["salt"] or case["model"], answer["unit"]) - Fraction(end)) * 10**9 < 1
        for case in VECTORS["assignments"]
        for answer in case["answers"]
        for each in case["route"]["challengers"]
        for part in each.get("ranges", ())
        for end in part
    ]

    assert sum(ends) >= 4
    assert any(not case["unit"].isascii() for case in VECTORS["buckets"])
    assert any(not case["salt"].isascii() for case in VECTORS["buckets"])
    assert any(case["unit"] == case["salt"] == "" for case in VECTORS["buckets"])
    assert {case["scored"] for case in VECTORS["shadows"]} == {True, False}


def test_another_language_repeats_the_published_cases() -> None:
    """Thirty lines of JavaScript, which know nothing of this package."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: the published cases are repeated in Python alone")
    script = Path(__file__).with_name("reference_vectors.mjs")

    done = subprocess.run([node, script], input=json.dumps(VECTORS), capture_output=True, text=True, check=True)

    assert json.loads(done.stdout) == []


@given(texts, texts)
def test_a_bucket_is_below_one_and_always_the_same(salt: str, unit: str) -> None:
    """Any text has a place in [0, 1), which is the exact quotient."""
    assert 0 <= bucket_of(salt, unit) < 1
    assert bucket_of(salt, unit) == bucket_of(salt, unit) == bucket(salt, unit)


class Digest:
    """Stands for a hash with a digest that no unit known to anyone has."""

    def __init__(self, digest: bytes) -> None:
        self._digest = digest

    def digest(self) -> bytes:
        """Returns it."""
        return self._digest


@pytest.mark.parametrize(
    ("digest", "place"),
    [
        (b"\xff" * 32, 1 - 2.0**-53),
        (b"\x00" * 6 + b"\x07\xff" + b"\xff" * 24, 0.0),
        (b"\x00" * 6 + b"\x08\x00" + b"\xff" * 24, 2.0**-53),
        (b"\x80" + b"\x00" * 31, 0.5),
    ],
)
def test_the_highest_bucket_is_below_one(monkeypatch: pytest.MonkeyPatch, digest: bytes, place: float) -> None:
    """The lowest eleven bits are left out, so that no quotient is rounded, least of all up to 1."""
    monkeypatch.setattr("server.routing.assignment.sha256", lambda data: Digest(digest))

    assert bucket_of("s", "u") == place < 1


@given(routes(), texts)
def test_assignment_follows_from_the_document_alone(route: Route, unit: str) -> None:
    """Written and read again, as JSON or TOML, it gives every unit and every part of the traffic the same version."""
    for again in (decode_route(encode_route(route)), decode_route(toml_of(route), "toml")):
        assert lanes_of(again) == lanes_of(route)
        assert assign(again, unit, "m") == assign(route, unit, "m")


@given(routes())
def test_lanes_are_the_ranges(route: Route) -> None:
    """At both sides of every end the owner is whose range it is, the champion where it is nobody's."""
    lanes = lanes_of(route)

    for cut in cuts_of(route):
        for place in (cut, float(np.nextafter(cut, 0)), float(np.nextafter(cut, 1))):
            if place < 1:
                assert lanes.owner(place) == owner_at(route, place)
    assert list(lanes.cuts) == sorted(set(lanes.cuts))
    assert len(lanes.owners) == len(lanes.cuts) + 1


def test_lanes_of_neighbours() -> None:
    """A cut between two splits is one cut; a split without ranges has nothing, and the champion needs none."""
    route = Route(
        champion="1",
        challengers=[
            Challenger(version="3", mode="split", share=0.2, ranges=[(0.1, 0.2), (0.9, 1.0)]),
            Challenger(version="2", mode="split", share=0.1, ranges=[(0.0, 0.1)]),
            Challenger(version="4", mode="split", share=0.0),
        ],
    )

    assert lanes_of(route) == Lanes((0.0, 0.1, 0.2, 0.9, 1.0), ("1", "2", "3", "1", "3", "1"))
    assert lanes_of(Route(champion="1")) == Lanes((), ("1",))


@given(routes(), texts)
def test_an_assignment_says_why(route: Route, unit: str) -> None:
    """Whose range the bucket is in, and how likely that was; the model's name is the salt where there is none."""
    place = bucket_of(route.salt or "m", unit)
    version = owner_at(route, place)
    shares = {each.version: each.share for each in route.splits} | {"1": champion_share(route)}

    rule = "champion" if version == "1" else "split"
    assert assign(route, unit, "m") == Assignment(version, rule, place, shares[version])


@pytest.fixture(scope="module")
def places() -> NDArray[np.float64]:
    """The buckets of a million units under one salt: float64, (KEYS,)."""
    return np.array([bucket_of("flight-delay", f"customer-{number}") for number in range(KEYS)])


def bound(freedom: int) -> float:
    """Returns the QUANTILE of chi-square with some degrees of freedom."""
    return float(stats.chi2.ppf(QUANTILE, freedom))


def ramped(share: float) -> Route:
    """Returns a route whose version 2 came to its share by a ramp beside others, so that it has several ranges."""
    challengers = [Challenger(version=version, mode="split", share=0.0) for version in ("2", "3", "4")]
    route = lay_out(Route(champion="1", challengers=challengers), None)
    for shares in ({"2": share / 5}, {"3": 0.1}, {"2": share / 2}, {"4": 0.2}, {"3": 0.05}, {"2": share}):
        route = with_shares(route, shares)
    return route


@pytest.mark.parametrize("share", [0.005, 0.01, 0.1, 0.5])
def test_shares_are_kept_exactly(places: NDArray[np.float64], share: float) -> None:
    """Of a million units every arm has its share, in one range and in several: chi-square below its 99.99 % point."""
    one = lay_out(Route(champion="1", challengers=[Challenger(version="2", mode="split", share=share)]), None)
    several = ramped(share)
    assert len(several.challengers[0].ranges or ()) >= 2

    for route in (one, several):
        lanes = lanes_of(route)
        counts = Counter(map(lanes.owner, places.tolist()))
        expected = {each.version: each.share * KEYS for each in route.splits} | {"1": champion_share(route) * KEYS}

        statistic = sum((counts[version] - n) ** 2 / n for version, n in expected.items())
        assert statistic < bound(len(expected) - 1)


def test_buckets_are_uniform(places: NDArray[np.float64]) -> None:
    """In a thousand equal parts of [0, 1), and in the thousand lowest of a million parts."""
    counts = np.histogram(places, bins=1000, range=(0.0, 1.0))[0]
    fine = np.histogram(places * 1000 % 1, bins=1000, range=(0.0, 1.0))[0]

    for each in (counts, fine):
        assert float(((each - KEYS / 1000) ** 2 / (KEYS / 1000)).sum()) < bound(999)


def dependence(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Returns chi-square of a two-way table of twenty parts each, relative to its bound: below 1 is independent."""
    table = np.histogram2d(one, other, bins=20, range=[[0.0, 1.0], [0.0, 1.0]])[0]
    return float(stats.chi2_contingency(table).statistic) / bound(19 * 19)


def test_salts_are_independent(places: NDArray[np.float64]) -> None:
    """Who answers in one experiment says nothing about another, even where salts differ in one letter."""
    other = np.array([bucket_of("flight-delax", f"customer-{number}") for number in range(KEYS)])

    assert dependence(places, other) < 1 < dependence(places, places)


def test_samples_of_shadows_are_independent_of_splits_and_each_other(places: NDArray[np.float64]) -> None:
    """So that a shadow is compared on the traffic as it is, not on those units that some split answers."""
    units = [f"customer-{number}" for number in range(KEYS // 4)]
    one = np.array([shadow_bucket_of("flight-delay", "4", unit) for unit in units])
    other = np.array([shadow_bucket_of("flight-delay", "5", unit) for unit in units])

    assert dependence(places[: len(units)], one) < 1
    assert dependence(one, other) < 1
