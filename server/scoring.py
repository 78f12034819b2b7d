"""The pipeline of one request: route, decode, execute, encode, record. No HTTP in it.

The same function serves every endpoint: what differs between tensors and rows is how a payload
becomes arrays, and that is the payload's business.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from server.contract.events import Answer, Prediction, Shadow, encode_event, source_of
from server.contract.manifest import Signature
from server.errors import InvalidRequestError, NotReadyError, OutboxError, OutboxFullError, TiltyardError
from server.eventlog.outbox import Outbox
from server.execution.session import Version
from server.identifiers import uuid7
from server.metrics import ArmMetrics
from server.protocol.datatypes import Arrays
from server.protocol.json_codec import encode_arrays, join_array
from server.protocol.status import status_of
from server.routing.assignment import bucket_of


@dataclass(frozen=True, slots=True)
class Rows:
    """A request's rows as one version takes them, and as the event keeps them."""

    arrays: Arrays
    count: int
    inputs: msgspec.Raw


class Payload(Protocol):
    """A request's body, which becomes rows once the version that answers is known."""

    request_id: str | None
    event_time: datetime | None

    def rows(self, signature: Signature) -> Rows:
        """Returns the rows for a version of this signature, or raises InvalidRequestError."""
        ...


@dataclass(frozen=True, slots=True)
class Arm:
    """A version in a role, with its metrics: what a route makes of a version."""

    version: Version
    metrics: ArmMetrics
    role: str
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class ModelRoute:
    """A model's traffic, resolved: who answers, who shadows, and every version by name.

    ``champion`` is None while the model cannot answer, and ``reason`` says why.
    """

    model: str
    salt: str
    revision: int
    champion: Arm | None
    reason: str
    shadows: tuple[Arm, ...]
    by_version: Mapping[str, Arm]


@dataclass(frozen=True, slots=True)
class Scored:
    """An answer: outputs as arrays and as V2 tensors, in the signature's order."""

    request_id: str
    model: str
    version: Version
    outputs: Arrays
    tensors: list[bytes]


@dataclass(frozen=True, slots=True)
class ShadowWork:
    """A request that a challenger is still to score."""

    route: ModelRoute
    arm: Arm
    payload: Payload
    request_id: str
    bucket: float
    time: datetime


class ShadowQueue(Protocol):
    """Where requests wait for their shadows; full means shed."""

    def offer(self, work: ShadowWork) -> None:
        """Takes the work, or sheds it at once."""
        ...


class Scorer:
    """Answers requests and turns every answer into an event."""

    def __init__(self, outbox: Outbox, *, durable: bool, block_when_full: bool) -> None:
        """durable: answers wait for their commit; block_when_full: no answer without room for its event."""
        self._outbox = outbox
        self._durable = durable
        self._block_when_full = block_when_full

    async def score(
        self, route: ModelRoute, version: str | None, payload: Payload, arrived_ns: int, shadows: ShadowQueue
    ) -> Scored:
        """Returns the answer of the version that the route or the client chose.

        Args:
            route: the model's traffic.
            version: the client's choice, None to let the route decide; must be in the route.
            payload: the request.
            arrived_ns: when it arrived, of time.perf_counter_ns.
            shadows: takes the work of challengers, to run after the answer.

        Raises:
            TiltyardError: any of errors.py that an answer can end in; its event is logged as well.
        """
        arm, rule = _choose(route, version)
        request_id = payload.request_id or uuid7()
        moment = payload.event_time or datetime.now(UTC)
        bucket = bucket_of(route.salt, request_id)
        try:
            if self._block_when_full and self._outbox.full:
                raise OutboxFullError("the event log has no room: try again later")
            rows, outputs, tensors = _execute(arm, payload)
        except TiltyardError as error:
            answer = _answer(route, arm, rule, bucket, arrived_ns, status=status_of(error), error=str(error), rows=0)
            self._record(Prediction, request_id, moment, answer)
            arm.metrics.answered(answer.status, _seconds_since(arrived_ns))
            raise
        answer = _answer(
            route, arm, rule, bucket, arrived_ns, rows=rows.count, inputs=rows.inputs, outputs=join_array(tensors)
        )
        self._record(Prediction, request_id, moment, answer)
        if version is None:
            for shadow in route.shadows:
                if bucket < shadow.share:
                    shadows.offer(ShadowWork(route, shadow, payload, request_id, bucket, moment))
        if self._durable:
            try:
                await self._outbox.committed()
            except OutboxError as error:
                arm.metrics.answered(status_of(error), _seconds_since(arrived_ns))
                raise
        arm.metrics.answered(200, _seconds_since(arrived_ns))
        return Scored(request_id, route.model, arm.version, outputs, tensors)

    def score_shadow(self, work: ShadowWork) -> None:
        """Scores a request for a challenger and logs what it would have said, a failure included."""
        started_ns = time.perf_counter_ns()
        try:
            rows, _, tensors = _execute(work.arm, work.payload)
        except TiltyardError as error:
            self._record_shadow(work, started_ns, status=status_of(error), error=str(error), rows=0)
            return
        self._record_shadow(work, started_ns, rows=rows.count, inputs=rows.inputs, outputs=join_array(tensors))

    def shed_shadow(self, work: ShadowWork) -> None:
        """Logs that a challenger was not asked, for want of time."""
        self._record_shadow(work, time.perf_counter_ns(), status=503, error="shed: the shadow queue is full", rows=0)

    def _record_shadow(self, work: ShadowWork, started_ns: int, **members: Any) -> None:
        answer = _answer(work.route, work.arm, "shadow", work.bucket, started_ns, **members)
        self._record(Shadow, work.request_id, work.time, answer)
        work.arm.metrics.answered(answer.status, _seconds_since(started_ns))

    def _record(self, kind: type[Prediction] | type[Shadow], request_id: str, moment: datetime, answer: Answer) -> None:
        event = kind(
            id=uuid7(),
            source=source_of(answer.model, answer.version),
            time=moment,
            subject=request_id,
            partitionkey=request_id,
            data=answer,
        )
        self._outbox.append(encode_event(event))


def event_time_of(parameters: Mapping[str, Any] | None) -> datetime | None:
    """Returns the time that a request's parameters give its event, None without one.

    Raises:
        InvalidRequestError: ``time`` is not RFC 3339 with an offset.
    """
    value = (parameters or {}).get("time")
    return None if value is None else parse_time(value, "parameters.time")


def parse_time(value: Any, where: str) -> datetime:
    """Returns an RFC 3339 time, or raises InvalidRequestError that names where it stood."""
    try:
        moment: datetime = msgspec.convert(value, datetime)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"{where}: expected a time as RFC 3339, got another value") from error
    if moment.tzinfo is None:
        raise InvalidRequestError(f"{where}: expected a time with an offset such as Z, got one without")
    return moment


def _choose(route: ModelRoute, version: str | None) -> tuple[Arm, str]:
    if version is not None:
        return route.by_version[version], "client"
    if route.champion is None:
        raise NotReadyError(f"model {route.model!r} does not serve: {route.reason}")
    return route.champion, "champion"


def _execute(arm: Arm, payload: Payload) -> tuple[Rows, Arrays, list[bytes]]:
    rows = payload.rows(arm.version.signature)
    started_ns = time.perf_counter_ns()
    outputs = arm.version.run(rows.arrays)
    arm.metrics.execution_seconds.observe(_seconds_since(started_ns))
    return rows, outputs, encode_arrays(outputs, arm.version.signature.outputs)


def _answer(route: ModelRoute, arm: Arm, rule: str, bucket: float, started_ns: int, **members: Any) -> Answer:
    return Answer(
        model=route.model,
        version=arm.version.manifest.version,
        role=arm.role,  # type: ignore[arg-type]  # made by app.py from the three roles
        rule=rule,
        share=arm.share,
        bucket=bucket,
        propensity=1.0 if rule == "client" else arm.share,
        revision=route.revision,
        latency_us=(time.perf_counter_ns() - started_ns) // 1000,
        **members,
    )


def _seconds_since(started_ns: int) -> float:
    return (time.perf_counter_ns() - started_ns) / 1e9
