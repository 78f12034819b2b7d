"""An event as a row of a table with fixed columns: what an export holds."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from server.contract.events import Answer, Audit, Audited, Event, Label
from server.logbook.selection import EventType, model_of, type_of

_encoder = msgspec.json.Encoder()


class EventRow(msgspec.Struct, frozen=True, kw_only=True):
    """One event, flat; None where a column says nothing of its type.

    ``inputs``, ``outputs``, ``fallback``, ``label``, ``before``, ``after`` and ``redacted`` are JSON.
    ``inputs_omitted`` says why inputs are not there, ``redacted`` what became of hidden columns, ``weight`` how many
    requests an answer stands for. Columns are only ever added, at the end.
    """

    event_id: str
    request_id: str
    type: EventType
    time: datetime
    model: str | None
    version: str | None = None
    role: str | None = None
    rule: str | None = None
    share: float | None = None
    bucket: float | None = None
    propensity: float | None = None
    revision: int | None = None
    status: int | None = None
    error: str | None = None
    latency_us: int | None = None
    rows: int | None = None
    inputs: str | None = None
    outputs: str | None = None
    inputs_omitted: str | None = None
    fallback: str | None = None
    label: str | None = None
    row: int | None = None
    reward: float | None = None
    action: str | None = None
    by: str | None = None
    reason: str | None = None
    before: str | None = None
    after: str | None = None
    redacted: str | None = None
    weight: int | None = None
    forgotten: bool | None = None


def event_row(event: Event) -> EventRow:
    """Returns an event as a row, its time in UTC."""
    data = event.data
    if isinstance(data, Answer):
        members = _answer(data)
    elif isinstance(data, Label):
        members = _label(data)
    else:
        members = _audit(data)
    subject = "" if isinstance(event, Audited) else event.subject
    return EventRow(
        event_id=event.id,
        request_id=subject,
        type=type_of(event),
        time=event.time.astimezone(UTC),
        model=model_of(event),
        **members,
    )


def _answer(answer: Answer) -> dict[str, Any]:
    return {
        "version": answer.version,
        "role": answer.role,
        "rule": answer.rule,
        "share": answer.share,
        "bucket": answer.bucket,
        "propensity": answer.propensity,
        "revision": answer.revision,
        "status": answer.status,
        "error": answer.error,
        "latency_us": answer.latency_us,
        "rows": answer.rows,
        "inputs": _text(answer.inputs),
        "outputs": _text(answer.outputs),
        "inputs_omitted": answer.inputs_omitted,
        "fallback": None if answer.fallback is None else _encoder.encode(answer.fallback).decode(),
        "redacted": _encoder.encode(answer.redacted).decode() if answer.redacted else None,
        "weight": answer.weight,
        "forgotten": answer.forgotten,
    }


def _label(label: Label) -> dict[str, Any]:
    value = None if label.label is None else _encoder.encode(label.label).decode()
    return {"label": value, "row": label.row, "reward": label.reward, "forgotten": label.forgotten}


def _audit(audit: Audit) -> dict[str, Any]:
    return {
        "action": audit.action,
        "by": audit.by,
        "reason": audit.reason,
        "before": _text(audit.before),
        "after": _text(audit.after),
    }


def _text(raw: msgspec.Raw | msgspec.UnsetType) -> str | None:
    return bytes(raw).decode() if isinstance(raw, msgspec.Raw) else None
