"""The pipeline of one request: route, decode, execute, encode, record. No HTTP in it.

The same function serves every endpoint: what differs between tensors and rows is how a payload
becomes arrays, and that is the payload's business.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from server.contract.events import Answer, Prediction, Shadow, encode_event, source_of
from server.contract.manifest import Signature
from server.errors import (
    ClientGoneError,
    DeadlineError,
    InvalidRequestError,
    NotReadyError,
    OutboxError,
    OutboxFullError,
    TiltyardError,
)
from server.eventlog.event_log import EventLog
from server.execution.session import Version
from server.identifiers import uuid7
from server.metrics import ArmMetrics
from server.protocol.datatypes import Arrays
from server.protocol.json_codec import join_array
from server.protocol.status import status_of
from server.protocol.tensors import SelectedOutput, encode_outputs
from server.routing.assignment import bucket_of
from server.settings import EventSettings


@dataclass(frozen=True, slots=True)
class Rows:
    """A request's rows as one version takes them, and as the event keeps them.

    ``selected`` are the outputs the client wants, in its order.
    """

    arrays: Arrays
    count: int
    inputs: msgspec.Raw
    selected: list[SelectedOutput]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who waits for an answer: until when, of time.perf_counter_ns, and whether it is still there."""

    arrived_ns: int
    deadline_ns: int | None
    gone: Callable[[], bool]

    def check(self) -> None:
        """Raises DeadlineError or ClientGoneError when nobody waits for the answer any more."""
        if self.deadline_ns is not None and time.perf_counter_ns() > self.deadline_ns:
            allowed_ms = (self.deadline_ns - self.arrived_ns) / 1e6
            raise DeadlineError(f"expected to begin within {allowed_ms:g} ms of the request's arrival, got to it later")
        if self.gone():
            raise ClientGoneError("the client left before its request was worked on")


class Payload(Protocol):
    """A request's body, which becomes rows once the version that answers is known."""

    request_id: str
    event_time: datetime | None
    caller: Caller

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
    """An answer: outputs as arrays and as the event has them, in the signature's order."""

    request_id: str
    model: str
    version: Version
    outputs: Arrays
    tensors: list[bytes]
    selected: list[SelectedOutput]


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

    def __init__(self, log: EventLog, events: EventSettings) -> None:
        """log: takes an event for every answer; events: how."""
        self._log = log
        self._durable = events.durability == "commit"
        self._block_when_full = events.when_full == "block"
        self._input_bytes = events.input_bytes

    async def score(self, route: ModelRoute, version: str | None, payload: Payload, shadows: ShadowQueue) -> Scored:
        """Returns the answer of the version that the route or the client chose.

        Args:
            route: the model's traffic.
            version: the client's choice, None to let the route decide; must be in the route.
            payload: the request.
            shadows: takes the work of challengers, to run after the answer.

        Raises:
            TiltyardError: any of errors.py that an answer can end in; its event is logged as well.
        """
        arm, rule = _choose(route, version)
        arrived_ns = payload.caller.arrived_ns
        request_id = payload.request_id
        moment = payload.event_time or datetime.now(UTC)
        bucket = bucket_of(route.salt, request_id)
        try:
            if self._block_when_full and self._log.full:
                raise OutboxFullError("the event log has no room: try again later")
            rows = payload.rows(arm.version.signature)
            payload.caller.check()
            arm.metrics.began(arrived_ns, rows.count)
            outputs, tensors = _execute(arm, rows)
        except ClientGoneError as error:
            arm.metrics.answered(status_of(error), _seconds_since(arrived_ns))
            raise
        except TiltyardError as error:
            answer = _answer(route, arm, rule, bucket, arrived_ns, status=status_of(error), error=str(error), rows=0)
            self._record(Prediction, request_id, moment, answer)
            arm.metrics.answered(answer.status, _seconds_since(arrived_ns))
            raise
        answer = _answer(route, arm, rule, bucket, arrived_ns, outputs=join_array(tensors), **self._kept(rows))
        self._record(Prediction, request_id, moment, answer)
        if version is None:
            for shadow in route.shadows:
                if bucket < shadow.share:
                    shadows.offer(ShadowWork(route, shadow, payload, request_id, bucket, moment))
        if self._durable:
            try:
                await self._log.committed()
            except OutboxError as error:
                arm.metrics.answered(status_of(error), _seconds_since(arrived_ns))
                raise
        arm.metrics.answered(200, _seconds_since(arrived_ns))
        return Scored(request_id, route.model, arm.version, outputs, tensors, rows.selected)

    def score_shadow(self, work: ShadowWork) -> None:
        """Scores a request for a challenger and logs what it would have said, a failure included."""
        started_ns = time.perf_counter_ns()
        try:
            rows = work.payload.rows(work.arm.version.signature)
            _, tensors = _execute(work.arm, rows)
        except TiltyardError as error:
            self._record_shadow(work, started_ns, status=status_of(error), error=str(error), rows=0)
            return
        self._record_shadow(work, started_ns, outputs=join_array(tensors), **self._kept(rows))

    def shed_shadow(self, work: ShadowWork) -> None:
        """Logs that a challenger was not asked, for want of time."""
        self._record_shadow(work, time.perf_counter_ns(), status=503, error="shed: the shadow queue is full", rows=0)

    def _record_shadow(self, work: ShadowWork, started_ns: int, **members: Any) -> None:
        answer = _answer(work.route, work.arm, "shadow", work.bucket, started_ns, **members)
        self._record(Shadow, work.request_id, work.time, answer)
        work.arm.metrics.answered(answer.status, _seconds_since(started_ns))

    def _kept(self, rows: Rows) -> dict[str, Any]:
        """Returns what an answer's event keeps of its rows."""
        if len(rows.inputs) > self._input_bytes:
            return {"rows": rows.count, "inputs_omitted": "cut"}
        return {"rows": rows.count, "inputs": rows.inputs}

    def _record(self, kind: type[Prediction] | type[Shadow], request_id: str, moment: datetime, answer: Answer) -> None:
        event = kind(
            id=uuid7(),
            source=source_of(answer.model, answer.version),
            time=moment,
            subject=request_id,
            partitionkey=request_id,
            data=answer,
        )
        self._log.append(encode_event(event))


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


def _execute(arm: Arm, rows: Rows) -> tuple[Arrays, list[bytes]]:
    started_ns = time.perf_counter_ns()
    outputs = arm.version.run(rows.arrays)
    arm.metrics.execution_seconds.observe(_seconds_since(started_ns))
    packed = frozenset(output.name for output in rows.selected if output.binary)
    return outputs, encode_outputs(outputs, arm.version.signature.outputs, packed)


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
