"""The pipeline of one request: route, decode, execute, encode, record. No HTTP in it.

The same function serves every endpoint: what differs between tensors and rows is how a payload
becomes arrays, and that is the payload's business.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from server.contract.answer_line import AnswerLine
from server.contract.events import Answer, Fallback, Prediction, encode_event, source_of
from server.contract.sampling import in_sample
from server.errors import (
    ClientGoneError,
    ExecutionError,
    InvalidRequestError,
    NotReadyError,
    OutboxError,
    OutboxFullError,
    OverloadedError,
    TiltyardError,
)
from server.eventlog.event_log import EventLog
from server.execution.batcher import Batcher
from server.execution.session import Version
from server.identifiers import uuid7
from server.model_route import Arm, Choice, ModelRoute, choose
from server.payload import Payload, Rows
from server.protocol.datatypes import Arrays
from server.protocol.redaction import Redactor
from server.protocol.status import status_of
from server.protocol.tensors import SelectedOutput, encode_outputs
from server.routing.assignment import shadow_bucket_of
from server.settings import EventSettings

# Told of model, version and reason when a guard opens.
Tripped = Callable[[str, str, str], None]
# What a challenger can fail with while the request may still be answered.
_CHALLENGERS_OWN = (ExecutionError, InvalidRequestError, NotReadyError, OverloadedError)

_WITHHELD = "the request was refused; the reason is withheld, for columns of this model are hidden"


class ShadowWork(msgspec.Struct, frozen=True):
    """A request that a challenger is still to score."""

    route: ModelRoute
    arm: Arm
    payload: Payload
    request_id: str
    bucket: float
    time: datetime

    @property
    def size_bytes(self) -> int:
        """How much memory the request holds while it waits."""
        return self.payload.size_bytes

    @property
    def lane(self) -> Version:
        """The version: requests for the same one may share a run."""
        return self.arm.version


class Scored(msgspec.Struct, frozen=True):
    """An answer: outputs as arrays, and in JSON one by one and together as the event has them.

    Both are in the signature's order. ``shadows`` is what is still to be scored once the answer is written.
    """

    request_id: str
    model: str
    version: Version
    outputs: Arrays
    tensors: list[bytes]
    logged: bytes
    selected: list[SelectedOutput]
    shadows: tuple[ShadowWork, ...] = ()


class Scorer:
    """Answers requests and turns every answer into an event."""

    def __init__(self, log: EventLog, events: EventSettings, batcher: Batcher, tripped: Tripped) -> None:
        """log: takes an event for every answer; events: how; batcher: has graphs run; tripped: told of model, version
        and reason when a guard opens."""
        self._log = log
        self._batcher = batcher
        self._tripped = tripped
        self._durable = events.durability == "commit"
        self._block_when_full = events.when_full == "block"
        self._input_bytes = events.input_bytes
        self._sample_every = events.sample_every

    async def score(self, route: ModelRoute, version: str | None, payload: Payload) -> Scored:
        """Returns the answer of the version that the route or the client chose.

        Args:
            route: the model's traffic.
            version: the client's choice, None to let the route decide; must be in the route.
            payload: the request.

        Raises:
            TiltyardError: any of errors.py that an answer can end in; its event is logged as well.
        """
        choice = choose(route, version, payload)
        arrived_ns = payload.caller.arrived_ns
        request_id = payload.request_id
        moment = payload.event_time or datetime.now(UTC)
        try:
            if self._block_when_full and self._log.full:
                raise OutboxFullError("the event log has no room: try again later")
            if choice.arm is route.champion or choice.rule == "client":
                rows, outputs, tensors = await self._run(choice.arm, payload, choice.rows)
            else:
                rows, outputs, tensors = await self._challenge(route, choice, payload)
        except ClientGoneError as error:
            choice.arm.metrics.answered(status_of(error), _seconds_since(arrived_ns))
            raise
        except TiltyardError as error:
            answer = _event_data(
                route, choice, arrived_ns, status=status_of(error), error=told_reason(error, route), rows=0
            )
            self._record(Prediction, request_id, moment, answer)
            choice.arm.metrics.answered(answer.status, _seconds_since(arrived_ns))
            raise
        arm = choice.arm
        logged = b"[" + b",".join(tensors) + b"]"
        kept = self._sample_every == 1 or in_sample(request_id, self._sample_every)
        if not kept:
            self._log.leave_out()
        elif choice.fallback is None and arm.version.redactor is None:
            self._log.append(self._line(route, choice, payload, moment, rows, logged))
        else:
            inputs = kept_inputs(rows, self._input_bytes, arm.version.redactor)
            answer = _event_data(
                route, choice, arrived_ns, outputs=msgspec.Raw(logged), weight=self._sample_every, **inputs
            )
            self._record(Prediction, request_id, moment, answer)
        if self._durable and kept:
            try:
                await self._log.committed()
            except OutboxError as error:
                arm.metrics.answered(status_of(error), _seconds_since(arrived_ns))
                raise
        arm.metrics.answered(200, _seconds_since(arrived_ns))
        works = self._shadowed(route, choice.unit, payload, moment) if route.shadows and version is None else ()
        return Scored(request_id, route.model, arm.version, outputs, tensors, logged, rows.selected, works)

    async def _challenge(self, route: ModelRoute, choice: Choice, payload: Payload) -> tuple[Rows, Arrays, list[bytes]]:
        """Returns what the chosen challenger says, or in its place the champion."""
        arm, champion = choice.arm, route.champion
        assert champion is not None  # without one nothing is chosen but what the client chooses
        started_ns = time.perf_counter_ns()
        breaker = arm.breaker
        failure: TiltyardError
        if choice.rule == "split" and breaker is not None and breaker.open_because is not None:
            failure = NotReadyError(f"guard: {breaker.open_because}")
        else:
            try:
                found = await self._run(arm, payload)
            except _CHALLENGERS_OWN as error:
                failure = error
            else:
                self._watch(route, arm, started_ns, failed=False)
                return found
        choice.fall_back(
            champion,
            Fallback(
                version=arm.name,
                status=status_of(failure),
                error=told_reason(failure, route),
                latency_us=(time.perf_counter_ns() - started_ns) // 1000,
            ),
        )
        # What no version takes is the client's fault; what the champion takes is the challenger's.
        invalid = isinstance(failure, InvalidRequestError)
        if not invalid:
            self._count_failure(route, arm, failure, started_ns)
        found = await self._run(champion, payload, choice.rows)
        if invalid:
            self._count_failure(route, arm, failure, started_ns)
        return found

    async def _run(self, arm: Arm, payload: Payload, rows: Rows | None = None) -> tuple[Rows, Arrays, list[bytes]]:
        """Returns what an arm says; rows: the payload's for this arm, where they are known already."""
        version, caller = arm.version, payload.caller
        if rows is None:
            rows = payload.rows(version.form)
        turn = self._batcher.submit(version.lane, rows.arrays, rows.count, caller.check)
        outputs = await turn
        arm.metrics.queue_seconds.observe((turn.began_ns - caller.arrived_ns) / 1e9)
        return rows, outputs, encoded(version, rows, outputs)

    def _count_failure(self, route: ModelRoute, arm: Arm, failure: TiltyardError, started_ns: int) -> None:
        arm.metrics.fallbacks.inc()
        arm.metrics.answered(status_of(failure), _seconds_since(started_ns))
        self._watch(route, arm, started_ns, failed=True)

    def _watch(self, route: ModelRoute, arm: Arm, started_ns: int, *, failed: bool) -> None:
        watch(route, arm, _seconds_since(started_ns), self._tripped, failed=failed)

    def _shadowed(self, route: ModelRoute, unit: str, payload: Payload, moment: datetime) -> tuple[ShadowWork, ...]:
        """Returns what the route's shadows are still to score."""
        works = []
        for arm in route.shadows:
            if arm.breaker is not None and arm.breaker.open_because is not None:
                continue
            bucket = shadow_bucket_of(route.salt, arm.name, unit)
            if bucket < arm.share:
                works.append(ShadowWork(route, arm, payload, payload.request_id, bucket, moment))
        return tuple(works)

    def _line(
        self, route: ModelRoute, choice: Choice, payload: Payload, moment: datetime, rows: Rows, outputs: bytes
    ) -> bytes:
        """Returns the event of an answer that its own arm gave."""
        arm = choice.arm
        line = arm.lines.get(choice.rule)
        if line is None:
            answer = _event_data(route, choice, payload.caller.arrived_ns, rows=0, weight=self._sample_every)
            line = arm.lines[choice.rule] = AnswerLine(Prediction, answer)
        return line.line(
            uuid7(),
            moment,
            payload.request_id,
            told_bucket(choice.bucket, route),
            (time.perf_counter_ns() - payload.caller.arrived_ns) // 1000,
            rows.count,
            rows.inputs if len(rows.inputs) <= self._input_bytes else None,
            outputs,
        )

    def _record(self, kind: type[Prediction], request_id: str, moment: datetime, answer: Answer) -> None:
        event = kind(
            id=uuid7(),
            source=source_of(answer.model, answer.version),
            time=moment,
            subject=request_id,
            partitionkey=request_id,
            data=answer,
        )
        self._log.append(encode_event(event))


def encoded(version: Version, rows: Rows, outputs: Arrays) -> list[bytes]:
    """Returns each output once, in the signature's order, as the event has it."""
    form = version.form
    if rows.selected is form.selected:
        return form.tensors(outputs)
    return encode_outputs(outputs, form.signature.outputs, rows.packed)


def watch(route: ModelRoute, arm: Arm, seconds: float, tripped: Tripped, *, failed: bool) -> None:
    """Lets a guarded challenger's breaker see how it did, and tells when that opens it."""
    breaker = arm.breaker
    if breaker is not None and breaker.record(time.monotonic(), seconds, failed=failed):
        tripped(route.model, arm.name, breaker.open_because or "")


def kept_inputs(rows: Rows, most_bytes: int, redactor: Redactor | None) -> dict[str, Any]:
    """Returns what an answer's event keeps of its rows.

    Args:
        rows: of the request.
        most_bytes: inputs of more are left out, as they came or once columns are hidden.
        redactor: what hides columns of the version, None where none is hidden.
    """
    if len(rows.inputs) > most_bytes:
        return {"rows": rows.count, "inputs_omitted": "cut"}
    if redactor is None:
        return {"rows": rows.count, "inputs": rows.inputs}
    inputs = redactor.redact(rows.inputs, rows.arrays)
    if len(inputs) > most_bytes:
        return {"rows": rows.count, "inputs_omitted": "cut"}
    return {"rows": rows.count, "inputs": inputs, "inputs_omitted": "masked", "redacted": redactor.columns}


def told_reason(error: TiltyardError, route: ModelRoute) -> str:
    """Returns what an event says of an error: a refusal may name a value, so not where columns are hidden."""
    return _WITHHELD if route.hides and isinstance(error, InvalidRequestError) else str(error)


def _event_data(route: ModelRoute, choice: Choice, started_ns: int, **members: Any) -> Answer:
    arm = choice.arm
    return Answer(
        model=route.model,
        version=arm.name,
        role=arm.role,
        rule=choice.rule,
        share=arm.share,
        bucket=told_bucket(choice.bucket, route),
        propensity=choice.propensity,
        revision=route.revision,
        latency_us=(time.perf_counter_ns() - started_ns) // 1000,
        fallback=choice.fallback,
        **members,
    )


def withheld(error: Exception) -> RuntimeError:
    """Returns what may be logged of an error that nobody foresaw where columns are hidden: its class and its place.

    Its message may name a value.
    """
    told = RuntimeError(f"{type(error).__name__}, whose message is withheld, for columns of this model are hidden")
    told.__suppress_context__ = True
    return told.with_traceback(error.__traceback__)


def told_bucket(bucket: float, route: ModelRoute) -> float | None:
    """Returns what an event says of a unit's place, a hash without a key: nothing where the unit is hidden."""
    return None if route.hides_unit else bucket


def _seconds_since(started_ns: int) -> float:
    return (time.perf_counter_ns() - started_ns) / 1e9
