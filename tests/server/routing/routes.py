"""Routes and changes of them for the tests of this folder, and who answers by the plainest reading of a document."""

import json
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise

from hypothesis import strategies as st

from server.routing.changes import with_shares
from server.routing.document import Challenger, Guard, Override, Route, encode_route
from server.routing.ranges import STEPS, lay_out

VERSIONS = ["2", "3", "4", "5"]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.from_regex(r"[A-Za-z0-9-]{1,8}", fullmatch=True)
guards = st.builds(
    Guard,
    error_rate=st.floats(0.0, 0.99),
    latency_ms=st.none() | st.floats(0.1, 1e6),
    slow_rate=st.floats(0.0, 0.99),
    window_s=st.floats(1.0, 3600.0),
    min_requests=st.integers(1, 10**6),
)
overrides = st.lists(
    st.builds(Override, header=names, value=names, version=st.sampled_from(["1", *VERSIONS])),
    max_size=3,
    unique_by=lambda each: (each.header.lower(), each.value),
)


@st.composite
def split_shares(draw: st.DrawFn, count: int) -> list[float]:
    """Returns shares in billionths that add up to 1 at most, often to 1 itself and often 0."""
    shares, left = [], STEPS
    for _ in range(count):
        size = draw(st.sampled_from([0, 1, left // 2, left]) | st.integers(0, left))
        shares.append(min(size, left) / STEPS)
        left -= min(size, left)
    return shares


@st.composite
def routes(draw: st.DrawFn) -> Route:
    """Returns whole routes: several challengers, their ranges in pieces as ramps leave them."""
    versions = draw(st.lists(st.sampled_from(VERSIONS), unique=True))
    modes = [draw(st.sampled_from(["split", "split", "shadow"])) for _ in versions]
    shares = draw(split_shares(len(versions)))
    challengers = [
        Challenger(version=version, mode=mode, share=share, guard=draw(st.none() | guards))
        for version, mode, share in zip(versions, modes, shares, strict=True)
    ]
    route = Route(
        champion="1",
        challengers=challengers,
        unit=draw(
            st.none() | st.builds(lambda kind, name: f"{kind}:{name}", st.sampled_from(["header", "input"]), names)
        ),
        salt=draw(texts),
        overrides=draw(overrides),
        revision=draw(st.integers(0, 100)),
    )
    route = lay_out(route, None)
    for _ in range(draw(st.integers(0, 3))):
        route = with_shares(route, draw(changed_shares(route)))
    return route


@st.composite
def changed_shares(draw: st.DrawFn, route: Route) -> dict[str, float]:
    """Returns other shares for some of a route's splits, such that all of them add up to 1 at most."""
    splits = [each.version for each in route.splits]
    shares = dict(zip(splits, draw(split_shares(len(splits))), strict=True))
    changed = draw(st.lists(st.sampled_from(splits), unique=True)) if splits else []
    total = sum(
        round(STEPS * (shares[each.version] if each.version in changed else each.share)) for each in route.splits
    )
    return {version: shares[version] for version in changed} if total <= STEPS else shares


def owner_at(route: Route, place: float) -> str:
    """Returns who answers a bucket, by going through all ranges."""
    owners = [each.version for each in route.splits for start, end in each.ranges or () if start <= place < end]
    assert len(owners) <= 1, f"{owners} have {place}"
    return owners[0] if owners else route.champion


def cuts_of(*routes: Route) -> list[float]:
    """Returns every place at which the owner may change in any of several routes, 0 and 1 included."""
    ends = {end for route in routes for each in route.splits for part in each.ranges or () for end in part}
    return sorted({0.0, 1.0, *ends})


def moves_between(before: Route, after: Route) -> dict[tuple[str, str], Decimal]:
    """Returns how much of the traffic goes from whom to whom, part by part."""
    moved: Counter[tuple[str, str]] = Counter()
    for start, end in pairwise(cuts_of(before, after)):
        owners = owner_at(before, start), owner_at(after, start)
        if owners[0] != owners[1]:
            moved[owners] += Decimal(str(end)) - Decimal(str(start))
    return dict(moved)


def size(ranges: Sequence[tuple[float, float]] | None) -> Decimal:
    """Returns the exact sum of ranges, as the decimals that a document shows."""
    return sum((Decimal(str(end)) - Decimal(str(start)) for start, end in ranges or ()), Decimal(0))


def toml_of(route: Route) -> bytes:
    """Returns a route as TOML, which knows no null."""

    def written(value: object) -> str:
        if isinstance(value, dict):
            members = (f"{key} = {written(each)}" for key, each in value.items() if each is not None)
            return "{" + ", ".join(members) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(written, value)) + "]"
        # A string of JSON is one of TOML, once DEL is escaped as well.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

    document = json.loads(encode_route(route))
    return "".join(f"{key} = {written(each)}\n" for key, each in document.items() if each is not None).encode()
