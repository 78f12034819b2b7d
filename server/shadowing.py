"""What a challenger would have said: requests scored several in a run, each told in an event of its own.

Nothing that fails here reaches a client or another request: a request that the challenger cannot take is an
event of status 400, a run that fails is repeated with each request alone, and what nobody foresaw is an event
of status 500.
"""

import logging
import time
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from server.contract.events import Answer, Shadow, encode_event, source_of
from server.contract.sampling import in_sample
from server.errors import TiltyardError
from server.eventlog.event_log import EventLog
from server.execution.session import Version
from server.execution.stacking import cut, stack
from server.identifiers import uuid7
from server.payload import Rows
from server.protocol.datatypes import Arrays
from server.protocol.json_codec import join_array
from server.protocol.status import status_of
from server.scoring import ShadowWork, Tripped, encoded, kept_inputs, told_bucket, told_reason, watch, withheld
from server.settings import EventSettings

logger = logging.getLogger(__name__)

RUN_S = 0.0005
"""How long a run of several requests may take: nothing interrupts it. One request alone takes what it takes."""

RUN_ROWS = 1024
"""How many rows a run of several requests may have."""


@dataclass(slots=True)
class _Attempt:
    """A request on its way through a batch; ``spent_ns`` is what its event calls latency."""

    work: ShadowWork
    rows: Rows | None = None
    outputs: Arrays | None = None
    status: int = 200
    error: str | None = None
    spent_ns: int = 0

    def fail(self, error: Exception) -> None:
        """Notes why there is no answer; an error that is none of ours is told in the server's log as well."""
        if isinstance(error, TiltyardError):
            self.status, self.error = status_of(error), told_reason(error, self.work.route)
        else:
            logger.error("a shadow has failed", exc_info=withheld(error) if self.work.route.hides else error)
            self.status, self.error = 500, "the server failed on this shadow; its log says more"


class Shadowing:
    """Scores requests for challengers and logs what each would have said, a failure included.

    An event's ``latency_us`` is the time spent on it: decoding, the whole run that it shared, and encoding.
    The waiting for its turn is not in it, since no client would have waited so; of a shed one it is 0.
    """

    def __init__(self, log: EventLog, events: EventSettings, tripped: Tripped) -> None:
        """log: takes an event for every shadow; events: how; tripped: told when a guard opens."""
        self._log = log
        self._tripped = tripped
        self._input_bytes = events.input_bytes
        self._sample_every = events.sample_every
        self._run_rows: WeakKeyDictionary[Version, int] = WeakKeyDictionary()

    def run(self, works: Sequence[ShadowWork]) -> Generator[None]:
        """Scores requests for one version, a step between one ``next`` and another: a decode, a run, or an event.

        Closed before its end, it logs what is left as shed.
        """
        attempts = deque(_Attempt(work) for work in works)
        try:
            for attempt in attempts:
                self._decode(attempt)
                yield
            decoded = deque(attempt for attempt in attempts if attempt.rows is not None)
            while decoded:
                yield from self._run(self._next_run(decoded))
            while attempts:
                self._log_answer(attempts.popleft())
                yield
        except GeneratorExit:
            for attempt in attempts:
                self.shed(attempt.work, "shed: the server is stopping")
            raise

    def shed(self, work: ShadowWork, reason: str) -> None:
        """Logs that a challenger was not asked."""
        self._log_event(work, 0, status=503, error=reason, rows=0)

    def _decode(self, attempt: _Attempt) -> None:
        began_ns = time.perf_counter_ns()
        try:
            attempt.rows = attempt.work.payload.rows(attempt.work.arm.version.form)
        except Exception as error:  # noqa: BLE001  # told in its event
            attempt.fail(error)
        attempt.spent_ns = time.perf_counter_ns() - began_ns

    def _next_run(self, decoded: deque[_Attempt]) -> list[_Attempt]:
        """Takes the requests off that make the next run: one, and more while their rows are few enough."""
        version = decoded[0].work.arm.version
        room = self._run_rows.get(version, 1) if version.lane.together else 0
        batch = [decoded.popleft()]
        room -= _count(batch[0])
        while decoded and _count(decoded[0]) <= room:
            batch.append(decoded.popleft())
            room -= _count(batch[-1])
        return batch

    def _run(self, batch: list[_Attempt]) -> Generator[None]:
        """Runs the graph once for all of the batch, or when that fails once for each."""
        try:
            self._run_together(batch)
        except Exception as error:  # noqa: BLE001  # as above
            if len(batch) == 1:
                batch[0].fail(error)
            else:
                yield
                for attempt in batch:
                    yield from self._run([attempt])
                return
        yield

    def _run_together(self, batch: list[_Attempt]) -> None:
        arm = batch[0].work.arm
        counts = [_count(attempt) for attempt in batch]
        began_ns = time.perf_counter_ns()
        try:
            outputs = arm.version.run(stack([attempt.rows.arrays for attempt in batch if attempt.rows is not None]))
            parts = [outputs] if len(batch) == 1 else cut(outputs, counts)
        finally:
            spent_ns = time.perf_counter_ns() - began_ns
            for attempt in batch:
                attempt.spent_ns += spent_ns
        rows = sum(counts)
        arm.metrics.ran(rows, spent_ns / 1e9)
        self._run_rows[arm.version] = _fitting_rows(rows, spent_ns / 1e9)
        for attempt, part in zip(batch, parts, strict=True):
            attempt.outputs = part

    def _log_answer(self, attempt: _Attempt) -> None:
        work, rows = attempt.work, attempt.rows
        if rows is not None and attempt.outputs is not None:
            began_ns = time.perf_counter_ns()
            try:
                outputs = join_array(encoded(work.arm.version, rows, attempt.outputs))
            except Exception as error:  # noqa: BLE001  # as above
                attempt.fail(error)
            else:
                spent_ns = attempt.spent_ns + time.perf_counter_ns() - began_ns
                watch(work.route, work.arm, spent_ns / 1e9, self._tripped, failed=False)
                if in_sample(work.request_id, self._sample_every):
                    inputs = kept_inputs(rows, self._input_bytes, work.arm.version.redactor)
                    self._log_event(work, spent_ns, outputs=outputs, weight=self._sample_every, **inputs)
                else:
                    self._log.leave_out()
                    work.arm.metrics.answered(200, spent_ns / 1e9)
                return
        watch(work.route, work.arm, attempt.spent_ns / 1e9, self._tripped, failed=True)
        self._log_event(work, attempt.spent_ns, status=attempt.status, error=attempt.error, rows=0)

    def _log_event(self, work: ShadowWork, spent_ns: int, **members: Any) -> None:
        arm, version = work.arm, work.arm.version.manifest.version
        answer = Answer(
            model=work.route.model,
            version=version,
            role="shadow",
            rule="shadow",
            share=arm.share,
            bucket=told_bucket(work.bucket, work.route),
            propensity=arm.share,
            revision=work.route.revision,
            latency_us=spent_ns // 1000,
            **members,
        )
        event = Shadow(
            id=uuid7(),
            source=source_of(answer.model, version),
            time=work.time,
            subject=work.request_id,
            partitionkey=work.request_id,
            data=answer,
        )
        self._log.append(encode_event(event))
        arm.metrics.answered(answer.status, spent_ns / 1e9)


def _count(attempt: _Attempt) -> int:
    return 0 if attempt.rows is None else attempt.rows.count


def _fitting_rows(rows: int, seconds: float) -> int:
    """Returns how many rows the next run may have, after one of so many took so long: twice as many at most."""
    fitting = int(rows * RUN_S / max(seconds, 1e-9))
    return max(1, min(fitting, 2 * rows, RUN_ROWS))
