"""Which part of [0, 1) each challenger has, such that a changed share moves no unit it need not move.

Shares and the ends of ranges are whole billionths. A challenger that grows takes the lowest parts that the
champion has, one that shrinks gives its highest parts back to the champion: units move between it and the
champion, never between challengers, and a ramp upwards moves nobody out of the challenger. Only where the
champion has too little does one change hand what some challengers give back to others.
"""

from collections.abc import Sequence
from itertools import chain

import msgspec

from server.routing.document import Challenger, Range, Route, faults_in, refusal
from server.routing.steps import STEPS, in_steps

_Steps = tuple[int, int]


def lay_out(wanted: Route, former: Route | None) -> Route:
    """Returns a route whose every split has the ranges that its share asks for.

    Args:
        wanted: with ranges for a split, even none at all, they are where it starts from.
        former: the route in force; a split whose ranges are None starts from those it has here.

    Raises:
        RouteError: ranges of two challengers overlap.
    """
    before = {} if former is None else {each.version: _in_steps(each.ranges) for each in former.splits}
    started = {
        each.version: before.get(each.version, []) if each.ranges is None else _in_steps(each.ranges)
        for each in wanted.splits
    }
    overlaps = faults_in(_with_ranges(wanted, started))
    if overlaps:
        raise refusal(overlaps)
    sizes = {each.version: in_steps(each.share) for each in wanted.splits}
    kept = {version: _shrunk(ranges, sizes[version]) for version, ranges in started.items()}
    # First from the champion, for all who grow; what other challengers had only where that is too little.
    for taken in (list(before.values()), []):
        for version, size in sizes.items():
            kept[version] = _grown(kept[version], _free([*taken, *kept.values()]), size)
    return _with_ranges(wanted, kept)


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


def _in_steps(ranges: Sequence[Range] | None) -> list[_Steps]:
    return [(in_steps(start), in_steps(end)) for start, end in ranges or ()]


def _size(ranges: Sequence[_Steps]) -> int:
    return sum(end - start for start, end in ranges)


def _free(taken: Sequence[Sequence[_Steps]]) -> list[_Steps]:
    """Returns the parts of [0, STEPS) that are in none of several lists, lowest first."""
    found, place = [], 0
    for start, end in [*sorted(chain.from_iterable(taken)), (STEPS, STEPS)]:
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
