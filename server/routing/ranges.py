"""Which part of [0, 1) each challenger has, such that a changed share moves no unit it need not move.

Shares and the ends of ranges are whole billionths, so that sums are exact and a document says the same in
every language. A challenger that grows takes the lowest part that is free, one that shrinks gives its highest
part back: units move between it and the champion, never between challengers, and a ramp upwards moves
nobody out of the challenger.
"""

import math
from collections.abc import Sequence

import msgspec

from server.errors import RouteError
from server.routing.document import Challenger, Range, Route, faults_in

STEPS = 10**9
"""How many parts [0, 1) has: the step of shares and ranges is 1 / STEPS."""

_Steps = tuple[int, int]


def lay_out(wanted: Route, former: Route | None) -> Route:
    """Returns a route whose every split has the ranges that its share asks for.

    Args:
        wanted: with ranges for a split, they are where it starts from.
        former: the route in force; without ranges in ``wanted``, a split starts from those it has here.

    Raises:
        RouteError: ranges of two challengers overlap.
    """
    before = {} if former is None else {each.version: each.ranges for each in former.splits}
    started = {
        each.version: [_to_steps(part) for part in each.ranges or before.get(each.version) or ()]
        for each in wanted.splits
    }
    overlaps = faults_in(_with_ranges(wanted, started))
    if overlaps:
        raise RouteError.of(overlaps)
    sizes = {each.version: in_steps(each.share) for each in wanted.splits}
    # Whatever is given back is free for those that grow.
    kept = {version: _shrunk(ranges, sizes[version]) for version, ranges in started.items()}
    for version, size in sizes.items():
        free = _free([part for ranges in kept.values() for part in ranges])
        kept[version] = _grown(kept[version], free, size)
    return _with_ranges(wanted, kept)


def in_steps(share: float) -> int:
    """Returns a share in billionths; what lies between two of them is rounded down, so that thirds still add up.

    Example:
        >>> in_steps(0.29), in_steps(1 / 3), in_steps(1 / 6)
        (290000000, 333333333, 166666666)
    """
    exact = share * STEPS
    nearest = round(exact)
    return nearest if abs(exact - nearest) < 1e-3 else math.floor(exact)


def champion_share(route: Route) -> float:
    """Returns the champion's part of the traffic: what no split has."""
    return (STEPS - sum(in_steps(each.share) for each in route.splits)) / STEPS


def _with_ranges(route: Route, steps: dict[str, list[_Steps]]) -> Route:
    return msgspec.structs.replace(route, challengers=[_placed(each, steps) for each in route.challengers])


def _placed(challenger: Challenger, steps: dict[str, list[_Steps]]) -> Challenger:
    share = in_steps(challenger.share) / STEPS
    if challenger.mode == "shadow":
        return msgspec.structs.replace(challenger, share=share, ranges=None)
    ranges = [(start / STEPS, end / STEPS) for start, end in steps[challenger.version]]
    return msgspec.structs.replace(challenger, share=share, ranges=ranges)


def _to_steps(part: Range) -> _Steps:
    return in_steps(part[0]), in_steps(part[1])


def _size(ranges: Sequence[_Steps]) -> int:
    return sum(end - start for start, end in ranges)


def _free(taken: list[_Steps]) -> list[_Steps]:
    """Returns the parts of [0, STEPS) that nobody has, lowest first."""
    found, place = [], 0
    for start, end in [*sorted(taken), (STEPS, STEPS)]:
        if start > place:
            found.append((place, start))
        place = max(place, end)
    return found


def _shrunk(ranges: list[_Steps], size: int) -> list[_Steps]:
    """Returns the lowest parts of ranges that together are no larger than a size."""
    kept, left = [], size
    for start, end in sorted(ranges):
        if left > 0:
            kept.append((start, min(end, start + left)))
            left -= end - start
    return kept


def _grown(ranges: list[_Steps], free: list[_Steps], size: int) -> list[_Steps]:
    """Returns ranges with the lowest free parts that bring them to a size, neighbours joined."""
    added = _shrunk(free, size - _size(ranges))
    joined: list[_Steps] = []
    for start, end in sorted([*ranges, *added]):
        if joined and joined[-1][1] == start:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined
