"""What people and scripts do to a route, each as a pure function of the route in force, and what that changes."""

from collections.abc import Mapping
from itertools import pairwise

import msgspec

from server.contract.manifest import Signature
from server.errors import RouteError
from server.routing.document import Range, Route, faults_in, refusal, shown
from server.routing.ranges import champion_share, lay_out
from server.routing.steps import STEPS, in_steps


def replaced(former: Route, wanted: Route) -> Route:
    """Returns a whole new route, its splits laid out from where the former one had them.

    Raises:
        RouteError: ranges of it overlap.
    """
    return _next(former, lay_out(wanted, former))


def with_shares(former: Route, shares: Mapping[str, float]) -> Route:
    """Returns the route with other shares for some of its challengers.

    Raises:
        RouteError: a version that is no challenger, or shares that are none; every fault is named.
    """
    named = {each.version for each in former.challengers}
    faults = [
        f"shares: expected versions among the challengers {sorted(named)}, got {shown(version)}"
        for version in shares
        if version not in named
    ]
    challengers = [
        msgspec.structs.replace(each, share=shares.get(each.version, each.share)) for each in former.challengers
    ]
    wanted = msgspec.structs.replace(former, challengers=challengers)
    faults += faults_in(wanted)
    if faults:
        raise refusal(faults)
    return _next(former, lay_out(wanted, former))


def promoted(former: Route, version: str) -> Route:
    """Returns the route with another champion; what the version had as a challenger is the champion's then.

    The former champion leaves the route, other challengers keep their units, and overrides stay.

    Raises:
        RouteError: the version is champion already.
    """
    if version == former.champion:
        raise RouteError(
            f"promote: expected another version than the champion, got {shown(version)}, which is champion"
        )
    challengers = [each for each in former.challengers if each.version != version]
    return _next(former, msgspec.structs.replace(former, champion=version, challengers=challengers))


def restored(former: Route, earlier: Route) -> Route:
    """Returns an earlier route, ranges and all, as a new revision."""
    return _next(former, earlier)


def same(one: Route, other: Route) -> bool:
    """Says whether two routes differ in nothing but their revision."""
    return one == msgspec.structs.replace(other, revision=one.revision)


def version_faults(route: Route, known: list[str], serving: list[str]) -> list[str]:
    """Returns which versions a route names that cannot answer.

    Args:
        route: to be obeyed.
        known: the model's versions that are loaded, or were refused.
        serving: those of them that serve.
    """
    faults = [
        f"expected versions among {known}, got {shown(version)}" for version in route.versions() if version not in known
    ]
    if route.champion in known and route.champion not in serving:
        faults.append(f"expected a champion that serves, got version {route.champion!r}, which was refused")
    return faults


def unit_fault(route: Route, signature: Signature) -> list[str]:
    """Returns why a route's unit cannot be had from requests to a champion of this signature, nothing when it can.

    An input can be a unit when its values are exact in every language: strings, integers, booleans.
    """
    kind, _, name = (route.unit or "").partition(":")
    if kind != "input":
        return []
    datatypes = {tensor.name: tensor.datatype for tensor in signature.inputs}
    fitting = sorted(each for each, datatype in datatypes.items() if not datatype.startswith("FP"))
    if name in fitting:
        return []
    wanted = f"an input of strings, integers or booleans, of the champion's {fitting}"
    return [f"unit: expected {wanted}, got {shown(name)}"]


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """A version in a route: its role and its share; ``role`` is ``champion``, ``split``, ``shadow`` or ``none``."""

    role: str
    share: float


class VersionChange(msgspec.Struct, frozen=True, kw_only=True):
    """What a change means for one version."""

    version: str
    before: Arm
    after: Arm


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """Part of all units that another version answers after a change."""

    source: str = msgspec.field(name="from")
    target: str = msgspec.field(name="to")
    share: float


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """What a change of route means: version by version, which units move, and what else of the document differs.

    ``reassigned`` says that salt or unit differ: every unit gets a new place, whatever the shares.
    """

    versions: list[VersionChange]
    moves: list[Move]
    members: list[str]
    reassigned: bool


def difference(before: Route, after: Route) -> Difference:
    """Returns what differs between two routes, to the billionth."""
    versions = sorted({*before.versions(), *after.versions()})
    changes = [
        VersionChange(version=version, before=_arm(before, version), after=_arm(after, version)) for version in versions
    ]
    members = [name for name in ("unit", "salt", "overrides") if getattr(before, name) != getattr(after, name)]
    members += [f"guard of {version}" for version in versions if _guard(before, version) != _guard(after, version)]
    reassigned = before.unit != after.unit or before.salt != after.salt
    return Difference(
        versions=[each for each in changes if each.before != each.after],
        moves=[] if reassigned else _moves(before, after),
        members=members,
        reassigned=reassigned,
    )


def _next(former: Route, route: Route) -> Route:
    return msgspec.structs.replace(route, revision=former.revision + 1)


def _arm(route: Route, version: str) -> Arm:
    if version == route.champion:
        return Arm(role="champion", share=champion_share(route))
    for challenger in route.challengers:
        if challenger.version == version:
            return Arm(role=challenger.mode, share=challenger.share)
    return Arm(role="none", share=0.0)


def _guard(route: Route, version: str) -> object:
    return next((each.guard for each in route.challengers if each.version == version), None)


def _moves(before: Route, after: Route) -> list[Move]:
    """Returns how much of [0, 1) has another owner, by both owners."""
    sums: dict[tuple[str, str], int] = {}
    earlier, later = _parts(before), _parts(after)
    ends = sorted({0, STEPS, *(end for start, stop, _ in (*earlier, *later) for end in (start, stop))})
    for start, end in pairwise(ends):
        owners = _owner(earlier, start, before.champion), _owner(later, start, after.champion)
        if owners[0] != owners[1]:
            sums[owners] = sums.get(owners, 0) + end - start
    return [
        Move(source=source, target=target, share=size / STEPS)
        for (source, target), size in sorted(sums.items(), key=lambda item: (-item[1], item[0]))
    ]


def _parts(route: Route) -> list[tuple[int, int, str]]:
    def steps(part: Range) -> tuple[int, int]:
        return in_steps(part[0]), in_steps(part[1])

    return [(*steps(part), each.version) for each in route.splits for part in each.ranges or ()]


def _owner(parts: list[tuple[int, int, str]], place: int, champion: str) -> str:
    return next((version for start, end, version in parts if start <= place < end), champion)
