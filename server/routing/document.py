"""The route document of a model: which version is champion, and what each challenger does.

A document is whole: with ``ranges`` it says which part of the traffic every challenger has, so that who
answers a unit follows from the document and the unit alone (``assignment.py``). People write documents
without ranges; ``ranges.py`` makes those follow from the document before.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import UNSET

from server.errors import RouteError
from server.routing.steps import STEPS, in_steps

Range = tuple[float, float]
"""A part of [0, 1): from the first number, up to the second without it."""

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # a header's name, RFC 9110
_VALUE = re.compile(r"[!-~\u00a1-\u00ff]([ -~\u00a0-\u00ff]*[!-~\u00a1-\u00ff])?")  # a header's value in Latin-1
_LONGEST = 200
_UNITS = ("parameter", "header", "input")
_MOST_CHALLENGERS = 64
_MOST_FAULTS = 100


class Guard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a server takes a challenger out of the traffic by itself, without waiting for a monitor.

    Over the last ``window_s`` seconds and at least ``min_requests`` requests of it: the share of them that
    failed is above ``error_rate``, or the share of them slower than ``latency_ms`` above ``slow_rate``.
    """

    error_rate: float | None = None
    latency_ms: float | None = None
    slow_rate: float = 0.05
    window_s: float = 60.0
    min_requests: int = 50


class Challenger(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version beside the champion.

    A ``shadow`` is scored on a ``share`` of the requests and never returned; a ``split`` answers its share of
    them, those whose bucket lies in its ``ranges``.
    """

    version: str
    mode: Literal["shadow", "split"] = "shadow"
    share: float = 1.0
    guard: Guard | None = None
    ranges: list[Range] | None = None


class Override(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version for testers: it answers the requests that have this header with this value."""

    header: str
    value: str
    version: str


class Route(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model's traffic is shared.

    ``unit`` is what keeps its version from request to request: ``parameter:NAME`` of the request,
    ``header:NAME``, ``input:NAME`` (a column, of the first row), or None for the request id, which also stands in
    where a request has no such unit. ``salt`` keeps this assignment apart from other models' and experiments'; "" is
    the model's name.
    """

    champion: str
    challengers: list[Challenger] = []
    unit: str | None = None
    salt: str = ""
    overrides: list[Override] = []
    revision: int = 0

    @property
    def splits(self) -> list[Challenger]:
        """Returns the challengers that answer a share."""
        return [each for each in self.challengers if each.mode == "split"]

    @property
    def shadows(self) -> list[Challenger]:
        """Returns the challengers that shadow."""
        return [each for each in self.challengers if each.mode == "shadow"]

    def versions(self) -> list[str]:
        """Returns every version that is named, the champion first, each once."""
        named = [
            self.champion,
            *(each.version for each in self.challengers),
            *(each.version for each in self.overrides),
        ]
        return list(dict.fromkeys(named))


_encoder = msgspec.json.Encoder()


def encode_route(route: Route) -> bytes:
    """Returns a route as one line of JSON."""
    return _encoder.encode(route)


def format_route(route: Route) -> bytes:
    """Returns a route as JSON that people read."""
    return msgspec.json.format(_encoder.encode(route), indent=2) + b"\n"


def decode_route(data: bytes, form: Literal["json", "toml"] = "json") -> Route:
    """Returns the route in a document's bytes.

    Raises:
        RouteError: not JSON or TOML, not a route, or a route that contradicts itself; it names every fault.
    """
    try:
        value = msgspec.json.decode(data) if form == "json" else tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # no JSON, no TOML, no UTF-8, or deeper than anyone writes
        raise RouteError(f"expected a document in {form.upper()}, got one that is none: {error}") from error
    return read_route(value)


def read_route(value: Any) -> Route:
    """Returns the route that plain values describe; null is as good as no member where the default is null.

    Raises:
        RouteError: they do not describe a route, or one that contradicts itself; it names every fault.
    """
    faults: list[str] = []
    route = _read(Route, value, "document", faults)
    if route is not UNSET:
        faults += faults_in(route)
    if faults:
        raise refusal(faults)
    assert isinstance(route, Route)
    return route


def refusal(faults: Sequence[str]) -> RouteError:
    """Returns the error of a document with these faults, of which there are as many as anyone reads."""
    more = len(faults) - _MOST_FAULTS
    return RouteError.of([*faults[:_MOST_FAULTS], *([f"{more} faults more"] if more > 0 else [])])


def shown(text: str) -> str:
    """Returns a text as a message shows it: quoted, and cut where it is long."""
    return repr(text if len(text) <= _LONGEST else text[:_LONGEST] + "…")


def route_schema() -> dict[str, Any]:
    """Returns the JSON Schema of route documents."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Route)}


def faults_in(route: Route) -> list[str]:
    """Returns what a route of the right shape contradicts, nothing for one that can be used."""
    faults = [*_version_faults(route), *_share_faults(route), *_range_faults(route), *_override_faults(route)]
    for challenger in route.challengers:
        if challenger.guard is not None:
            faults += [
                f"challenger {shown(challenger.version)}: guard: {fault}" for fault in _guard_faults(challenger.guard)
            ]
    if route.unit is not None:
        kind, _, name = route.unit.partition(":")
        if kind not in _UNITS or not name or (kind == "header" and not _NAME.fullmatch(name)):
            wanted = "parameter:NAME, header:NAME, input:NAME or null"
            faults.append(f"unit: expected {wanted}, got {shown(route.unit)}")
    if len(route.salt) > _LONGEST:
        faults.append(f"salt: expected at most {_LONGEST} characters, got {len(route.salt)}")
    if not 0 <= route.revision < 2**53:
        faults.append(f"revision: expected 0 or more, below 2^53, got {route.revision}")
    return faults


def _read(kind: Any, value: Any, where: str, faults: list[str]) -> Any:
    """Returns what a value describes, UNSET where it is not of its type, and adds to the faults why not.

    What else there is can still be judged, so that one message names every fault; msgspec alone names the first.
    """
    kind = _without_none(kind) if value is not None else kind
    if _is_record(kind) and isinstance(value, Mapping):
        return _read_members(kind, value, where, faults)
    if get_origin(kind) is list and isinstance(value, list):
        read = [_read(get_args(kind)[0], each, f"{where}[{place}]", faults) for place, each in enumerate(value)]
        return [each for each in read if each is not UNSET]
    if get_origin(kind) is tuple and isinstance(value, list) and len(value) == len(get_args(kind)):
        ends = [
            _read(part, each, f"{where}[{place}]", faults)
            for place, (part, each) in enumerate(zip(get_args(kind), value, strict=True))
        ]
        return UNSET if UNSET in ends else tuple(ends)
    if get_origin(kind) is Literal and isinstance(value, str) and value not in get_args(kind):
        faults.append(f"{where}: expected {' or '.join(map(repr, get_args(kind)))}, got {shown(value)}")
        return UNSET
    if kind is int and isinstance(value, int) and not -(2**63) <= value < 2**63:
        faults.append(f"{where}: expected an integer of 64 bits, got one beyond")
        return UNSET
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        faults.append(f"{where}: {_lower(str(error))}")
        return UNSET


def _read_members(kind: Any, value: Mapping[str, Any], where: str, faults: list[str]) -> Any:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    faults += [
        f"{where}: expected members among {', '.join(fields)}, got {shown(name)}"
        for name in sorted(value.keys() - fields.keys())
    ]
    members = {}
    for name, field in fields.items():
        if name in value:
            members[name] = _read(field.type, value[name], name if kind is Route else f"{where}.{name}", faults)
        elif field.required:
            faults.append(f"{where}: expected a member {name}, got none")
            members[name] = UNSET
    # Of a shadow the whole traffic is a harmless default, of a split it is not.
    if kind is Challenger and members.get("mode") == "split" and "share" not in members:
        faults.append(f"{where}: expected a share beside mode split, got none")
        members["share"] = UNSET
    read = {name: member for name, member in members.items() if member is not UNSET}
    if kind is Route:
        return Route(**{"champion": "", **read})
    # What cannot be read of a list or a record is left out; a name or a number is what the rest depends on.
    if any(name not in read and not _is_compound(fields[name].type) for name in members):
        return UNSET
    return kind(**read)


def _is_compound(kind: Any) -> bool:
    return get_origin(_without_none(kind)) is list or _is_record(_without_none(kind))


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _without_none(kind: Any) -> Any:
    if get_origin(kind) not in (Union, UnionType):
        return kind
    return next(each for each in get_args(kind) if each is not NoneType)


def _version_faults(route: Route) -> Iterator[str]:
    seen: set[str] = set()
    for version in [route.champion, *(each.version for each in route.challengers)]:
        if version in seen:
            yield f"expected every version once among champion and challengers, got {shown(version)} twice"
        seen.add(version)
    if len(route.challengers) > _MOST_CHALLENGERS:
        yield f"challengers: expected at most {_MOST_CHALLENGERS}, got {len(route.challengers)}"


def _share_faults(route: Route) -> Iterator[str]:
    for challenger in route.challengers:
        if not 0.0 <= challenger.share <= 1.0:
            yield f"challenger {shown(challenger.version)}: expected a share in [0, 1], got {challenger.share}"
    total = sum(in_steps(each.share) for each in route.splits if 0.0 <= each.share <= 1.0)
    if total > STEPS:
        yield f"expected shares of splits that add up to at most 1, got {total / STEPS}"


def _range_faults(route: Route) -> Iterator[str]:
    taken: list[tuple[float, float, str]] = []
    for challenger in route.challengers:
        if challenger.ranges and challenger.mode != "split":
            yield f"challenger {shown(challenger.version)}: expected ranges beside mode split, got them beside shadow"
        for start, end in challenger.ranges or ():
            if 0.0 <= start < end <= 1.0 and in_steps(start) < in_steps(end):
                taken.append((start, end, challenger.version))
            else:
                yield (
                    f"challenger {shown(challenger.version)}: expected ranges [from, to] with 0 <= from < to <= 1, "
                    f"a billionth apart or more, got [{start}, {end}]"
                )
    furthest, owner = 0.0, ""
    for start, end, version in sorted(taken):
        if in_steps(start) < in_steps(furthest):
            yield (
                f"expected ranges that do not overlap, got one of {shown(owner)} up to {furthest} and one of "
                f"{shown(version)} from {start}"
            )
        if end > furthest:
            furthest, owner = end, version


def _override_faults(route: Route) -> Iterator[str]:
    seen: set[tuple[str, str]] = set()
    for override in route.overrides:
        key = override.header.lower(), override.value
        if not _NAME.fullmatch(override.header):
            yield f"overrides: expected a header's name, got {shown(override.header)}"
        # Headers arrive without spaces around and are compared in Latin-1.
        if not _VALUE.fullmatch(override.value):
            yield (
                f"overrides: header {shown(override.header)}: expected a value of printable characters of Latin-1, "
                "without spaces around, got another"
            )
        if key in seen:
            yield f"overrides: expected every header and value once, got {shown(override.header)} twice with one value"
        seen.add(key)


def _guard_faults(guard: Guard) -> Iterator[str]:
    if guard.error_rate is None and guard.latency_ms is None:
        yield "expected error_rate, latency_ms or both, got neither"
    if guard.error_rate is not None and not 0.0 <= guard.error_rate < 1.0:
        yield f"expected an error_rate in [0, 1), got {guard.error_rate}"
    if guard.latency_ms is not None and not 0.0 < guard.latency_ms < float("inf"):
        yield f"expected latency_ms above 0, got {guard.latency_ms}"
    if not 0.0 <= guard.slow_rate < 1.0:
        yield f"expected a slow_rate in [0, 1), got {guard.slow_rate}"
    if not 1.0 <= guard.window_s <= 3600.0:
        yield f"expected window_s from 1 to 3600, got {guard.window_s}"
    if guard.min_requests < 1:
        yield f"expected min_requests of 1 or more, got {guard.min_requests}"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
