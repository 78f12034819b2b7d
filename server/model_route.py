"""A model's traffic, resolved to versions that serve, and who of them answers a request."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from server.contract.answer_line import AnswerLine
from server.contract.events import Fallback, Role
from server.errors import InvalidRequestError, NotReadyError
from server.execution.session import Version
from server.metrics import ArmMetrics
from server.payload import Payload, Rows
from server.routing.assignment import Lanes, bucket_of
from server.routing.breaker import Breaker


@dataclass(frozen=True, slots=True)
class Arm:
    """A version in a role, with its metrics: what a route makes of a version.

    ``lines`` has by rule what makes the events of its answers, once there was one.
    """

    version: Version
    metrics: ArmMetrics
    role: Role
    share: float = 1.0
    breaker: Breaker | None = None
    lines: dict[str, AnswerLine] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The version's name."""
        return self.version.manifest.version


@dataclass(frozen=True, slots=True)
class Override:
    """A header's name in small letters and its value, and the arm that such requests go to."""

    header: bytes
    value: bytes
    arm: Arm


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRoute:
    """A model's traffic, resolved: who answers, who shadows, and every version by name.

    ``champion`` is None while the model cannot answer, and ``reason`` says why. ``unit`` is where a request's
    unit comes from, kind and name; None is the request id. ``hides`` says that events of some version must not
    hold all that requests do, ``hides_unit`` that what the unit comes from is among that.
    """

    model: str
    salt: str
    revision: int
    champion: Arm | None
    reason: str
    shadows: tuple[Arm, ...]
    by_version: Mapping[str, Arm]
    splits: tuple[Arm, ...] = ()
    lanes: Lanes[Arm] | None = None
    unit: tuple[str, str] | None = None
    overrides: tuple[Override, ...] = ()
    hides: bool = False
    hides_unit: bool = False


class Choice(msgspec.Struct):
    """Who answers a request and why; ``fallback`` is set once the champion does so in a challenger's place.

    ``unit`` keeps its version from request to request, ``bucket`` is its place in the traffic. ``rows`` are the
    champion's, where the unit is one of its inputs.
    """

    arm: Arm
    rule: str
    unit: str
    bucket: float
    propensity: float
    rows: Rows | None = None
    fallback: Fallback | None = None

    def fall_back(self, champion: Arm, fallback: Fallback) -> None:
        """Lets the champion answer in the challenger's place; the propensity stays that of the challenger's rule."""
        self.arm, self.rule, self.fallback = champion, "fallback", fallback


def choose(route: ModelRoute, version: str | None, payload: Payload) -> Choice:
    """Returns who answers a request.

    Args:
        route: the model's traffic.
        version: the client's choice, None to let the route decide; must be in the route.
        payload: the request.

    Raises:
        NotReadyError: the route decides, and the model has no champion that serves.
    """
    if version is not None:
        unit = payload.request_id
        return Choice(route.by_version[version], "client", unit, bucket_of(route.salt, unit), 1.0)
    champion, lanes = route.champion, route.lanes
    if champion is None or lanes is None:
        raise NotReadyError(f"model {route.model!r} does not serve: {route.reason}")
    unit, rows = (payload.request_id, None) if route.unit is None else _unit_of(*route.unit, champion, payload)
    bucket = bucket_of(route.salt, unit)
    for override in route.overrides:
        if payload.caller.header(override.header) == override.value:
            return Choice(override.arm, "override", unit, bucket, 1.0, rows)
    arm = lanes.owner(bucket)
    return Choice(arm, "champion" if arm is champion else "split", unit, bucket, arm.share, rows)


def _unit_of(kind: str, name: str, champion: Arm, payload: Payload) -> tuple[str, Rows | None]:
    """Returns a request's unit, its id where it has none, and the champion's rows where they had to be decoded."""
    rows = None
    value: Any = None
    if kind == "parameter":
        value = (payload.parameters or {}).get(name)
    elif kind == "header":
        value = payload.caller.header(name.encode())
    else:
        try:
            rows = payload.rows(champion.version.form)
        except InvalidRequestError:  # the champion will say so itself
            return payload.request_id, None
        first = rows.arrays[name].ravel()[:1].tolist() if name in rows.arrays else []
        value = first[0] if first else None
    return _text_of(value) or payload.request_id, rows


def _text_of(value: Any) -> str:
    """Returns a unit as every language writes it, "" for a value that cannot be one."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (str, int)) else ""
