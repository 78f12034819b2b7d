"""The route document of a model: which version is champion, and what each challenger does."""

from typing import Literal

import msgspec

from server.errors import RouteError


class Challenger(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version beside the champion; a shadow is scored on a ``share`` of requests, never returned."""

    version: str
    mode: Literal["shadow"] = "shadow"
    share: float = 1.0


class Route(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model's traffic is shared. ``salt`` keeps its assignment apart from other models'."""

    champion: str
    challengers: list[Challenger] = []
    salt: str = ""
    revision: int = 0


_decoder = msgspec.json.Decoder(Route)


def decode_route(data: bytes) -> Route:
    """Returns the route in a document's bytes.

    Raises:
        RouteError: not JSON, not a route, or a route that contradicts itself; every fault is named.
    """
    try:
        route = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RouteError(str(error)) from error
    faults = []
    seen = {route.champion}
    for challenger in route.challengers:
        if challenger.version in seen:
            faults.append(f"expected every version once, got {challenger.version!r} twice")
        if not 0.0 <= challenger.share <= 1.0:
            faults.append(f"challenger {challenger.version!r}: expected a share in [0, 1], got {challenger.share}")
        seen.add(challenger.version)
    if faults:
        raise RouteError("; ".join(faults))
    return route
