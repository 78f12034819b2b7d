"""``POST /v1/feedback``: the truth about requests, durable before it is accepted."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from server.contract.events import Label, Labelled, LabelValue, encode_event
from server.contract.sampling import in_sample
from server.endpoints.wire import read_body, read_head, send_error, send_json
from server.errors import InvalidRequestError, TiltyardError
from server.identifiers import uuid7
from server.payload import parse_time
from server.protocol.messages import FeedbackItem
from server.protocol.status import status_of
from server.service import Service

_any_decoder = msgspec.json.Decoder()


class Feedback:
    """Accepts labels: one object, ``{"feedback": [...]}``, or one object a line (NDJSON)."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 202 once every label of the body is on disk; one malformed label refuses them all.

        A label of a request that the sample leaves out is left out with it: nothing in the log could meet it.
        """
        service, limits = self._service, self._service.settings.limits
        entered = False
        try:
            head = read_head(scope)
            service.admission.enter(head.authorization, "feedback")
            entered = True
            items = decode_feedback(await read_body(head, receive, limits), limits.feedback_items)
            now = datetime.now(UTC)
            events = [label_event(item, place, now) for place, item in enumerate(items)]
            every = service.settings.events.sample_every
            lines = [encode_event(event) for event in events if in_sample(event.subject, every)]
            if lines:
                await service.log.append_durably(lines)
        except TiltyardError as error:
            service.metrics.feedback_was_refused(status_of(error))
            await send_error(send, error)
        else:
            service.log.leave_out(len(items) - len(lines))
            service.metrics.feedback.inc(len(items))
            await send_json(send, 202, {"accepted": len(items)})
        finally:
            if entered:
                service.admission.leave()


def decode_feedback(body: bytes, limit: int) -> list[FeedbackItem]:
    """Returns the labels in a body.

    Raises:
        InvalidRequestError: it is in none of the three forms, a label is malformed (its index is
            named), or there are more than ``limit``.
    """
    values = _values(body)
    if len(values) > limit:
        raise InvalidRequestError(f"expected at most {limit} labels in one request, got {len(values)}")
    return [_item(value, place) for place, value in enumerate(values)]


def label_event(item: FeedbackItem, place: int, now: datetime) -> Labelled:
    """Returns the event of a label; place is its index in the request, for the error's sentence."""
    return Labelled(
        id=item.event_id or uuid7(),
        source=f"/models/{item.model}" if item.model else "/feedback",
        time=now if item.time is None else parse_time(item.time, f"feedback {place}: time"),
        subject=item.id,
        partitionkey=item.id,
        data=Label(label=item.label, row=item.row, reward=item.reward, model=item.model),
    )


def _values(body: bytes) -> list[Any]:
    try:
        value = _any_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [_line(line, place) for place, line in enumerate(filter(None, map(bytes.strip, body.split(b"\n"))))] or (
            _refuse_empty()
        )
    if isinstance(value, dict) and "feedback" in value:
        if not isinstance(value["feedback"], list):
            raise InvalidRequestError("feedback: expected an array of labels, got another value")
        return list(value["feedback"])
    return [value]


def _refuse_empty() -> list[Any]:
    raise InvalidRequestError('expected a label, {"feedback": [...]} or one label a line, got an empty body')


def _line(line: bytes, place: int) -> Any:
    try:
        return _any_decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(f"feedback {place}: expected JSON, got a line that is not") from error


def _item(value: Any, place: int) -> FeedbackItem:
    try:
        item = msgspec.convert(value, FeedbackItem)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"feedback {place}: {error}") from error
    if not item.id:
        raise InvalidRequestError(f"feedback {place}: expected the id of a request, got an empty one")
    if item.label is None and item.reward is None:
        raise InvalidRequestError(f"feedback {place}: expected a label or a reward, got neither")
    if any(type(label) is int and abs(label) >= 1 << 64 for label in _each(item.label)):
        raise InvalidRequestError(f"feedback {place}: expected an integer label of at most 64 bits, got a larger one")
    if item.row is not None and (item.row < 0 or isinstance(item.label, list)):
        raise InvalidRequestError(
            f"feedback {place}: expected a row of 0 or more and a single label with it, got row {item.row}"
        )
    return item


def _each(label: LabelValue | list[LabelValue]) -> list[LabelValue]:
    return label if isinstance(label, list) else [label]
