"""An event in one line that people read."""

from datetime import UTC
from typing import Any, Final

import msgspec

from server.contract.events import Answer, Audited, Event, Labelled
from server.logbook.selection import type_of
from server.routes.client import plain

_OUTPUTS_LENGTH: Final = 60
_VALUES: Final = 4

_FORM: Final = (
    "{time:<23}  {type:<10}  {request:<36}  {version:<20}  {role:<10}  {status:>6}  {latency:>9}  {rows:>5}  {said}"
)

HEADING: Final = _FORM.format(
    time="time (UTC)",
    type="type",
    request="request",
    version="model/version",
    role="role",
    status="status",
    latency="latency",
    rows="rows",
    said="outputs",
)


def tail_line(event: Event) -> str:
    """Returns an event as a line of a table under ``HEADING``, without control characters."""
    members: dict[str, Any] = {"version": "", "role": "", "status": "", "latency": "", "rows": "", "said": ""}
    if isinstance(event, Labelled):
        members |= {"version": event.data.model or "", "said": _label(event)}
    elif isinstance(event, Audited):
        members |= {"said": _audit(event)}
    else:
        answer = event.data
        members |= {
            "version": f"{answer.model}/{answer.version}",
            "role": answer.role,
            "status": answer.status,
            "latency": f"{answer.latency_us / 1000:.2f} ms",
            "rows": answer.rows,
            "said": _answer(answer),
        }
    time = event.time.astimezone(UTC)
    line = _FORM.format(
        time=f"{time:%Y-%m-%d %H:%M:%S}.{time.microsecond // 1000:03d}",
        type=type_of(event),
        request=event.subject,
        **members,
    )
    return plain(line.rstrip())


def _label(event: Labelled) -> str:
    label = event.data
    parts = [] if label.label is None else [_short(label.label)]
    parts += [] if label.row is None else [f"row {label.row}"]
    parts += [] if label.reward is None else [f"reward {label.reward:g}"]
    return ", ".join(parts)


def _audit(event: Audited) -> str:
    audit = event.data
    by = f" by {audit.by}" if audit.by else ""
    return f"{audit.action}{by}" + (f": {audit.reason}" if audit.reason else "")


def _answer(answer: Answer) -> str:
    if answer.error is not None:
        return answer.error
    if not isinstance(answer.outputs, msgspec.Raw):
        return ""
    try:
        tensors = msgspec.json.decode(answer.outputs)
        said = " ".join(f"{tensor['name']}={_short(tensor.get('data', []))}" for tensor in tensors)
    except (msgspec.DecodeError, TypeError, KeyError, AttributeError):
        said = bytes(answer.outputs).decode(errors="replace")
    return said if len(said) <= _OUTPUTS_LENGTH else said[: _OUTPUTS_LENGTH - 1] + "…"


def _short(value: Any) -> str:
    """Returns a value, of an array the first few, as people write numbers."""
    if isinstance(value, list):
        more = ", …" if len(value) > _VALUES else ""
        return f"[{', '.join(map(_short, value[:_VALUES]))}{more}]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
