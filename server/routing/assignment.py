"""Who answers a unit: pure functions of the route document and the unit, which any language can repeat.

``reference_vectors.json`` beside this file has cases to repeat them by.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from struct import Struct
from typing import Generic, TypeVar

from server.routing.document import Route
from server.routing.ranges import champion_share

T = TypeVar("T")
# Every request passes here: this way takes two thirds of the time of slicing the digest and int.from_bytes. To copy a
# hasher that has the salt already takes 0.50 µs instead of 0.64, too little for every caller to keep one.
_first_8_bytes = Struct(">Q").unpack_from


def bucket_of(salt: str, unit: str) -> float:
    """Returns a place in [0, 1): the first 8 bytes, big-endian, of SHA-256(salt + ":" + unit), / 2^64.

    Equal on every replica and after every restart. The top 53 bits decide, so that the quotient
    never rounds up to 1.

    Example:
        >>> round(bucket_of("flight-delay", "customer-7"), 6)
        0.932454
    """
    number: int = _first_8_bytes(sha256(f"{salt}:{unit}".encode()).digest())[0]
    return (number >> 11) * 2.0**-53


def shadow_bucket_of(salt: str, version: str, unit: str) -> float:
    """Returns a unit's place for a shadow's sample, independent of who answers it and of other shadows' samples."""
    return bucket_of(f"{salt}:shadow:{version}", unit)


@dataclass(frozen=True, slots=True)
class Lanes(Generic[T]):
    """[0, 1) cut into parts, each with its owner: ``owners[bisect_right(cuts, bucket)]`` has a bucket."""

    cuts: Sequence[float]
    owners: Sequence[T]

    def owner(self, bucket: float) -> T:
        """Returns who has a bucket in [0, 1)."""
        return self.owners[bisect_right(self.cuts, bucket)]


def lanes_of(route: Route) -> Lanes[str]:
    """Returns who has which part of the traffic: every split its ranges, the champion the rest."""
    cuts: list[float] = []
    owners = [route.champion]
    parts = sorted((start, end, each.version) for each in route.splits for start, end in each.ranges or ())
    for start, end, version in parts:
        if cuts and cuts[-1] == start:
            owners[-1] = version
        else:
            cuts.append(start)
            owners.append(version)
        cuts.append(end)
        owners.append(route.champion)
    return Lanes(tuple(cuts), tuple(owners))


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who answers a unit and why: ``rule`` is ``champion`` or ``split``, ``propensity`` how likely that was."""

    version: str
    rule: str
    bucket: float
    propensity: float


def assign(route: Route, unit: str, model: str = "") -> Assignment:
    """Returns who answers a unit, overrides aside; the server's own path does the same with lanes made once.

    Args:
        route: whole, with ranges.
        unit: the unit's text.
        model: the salt of a document that names none.
    """
    bucket = bucket_of(route.salt or model, unit)
    version = lanes_of(route).owner(bucket)
    if version == route.champion:
        return Assignment(version, "champion", bucket, champion_share(route))
    share = next(each.share for each in route.splits if each.version == version)
    return Assignment(version, "split", bucket, share)
