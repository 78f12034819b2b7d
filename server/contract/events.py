"""The facts in the log: CloudEvents 1.0 in structured JSON, one record class per type.

The server writes these records, the monitor reads them, and the public ``cloudevents`` SDK can
parse them. ``inputs`` and ``outputs`` are spliced in as the very bytes of the Open Inference
Protocol tensors, so nothing is encoded twice. Members unknown to a reader are skipped; new members
always have a default, so old readers read new events and the reverse.
"""

from datetime import datetime
from typing import Literal

import msgspec

Role = Literal["champion", "challenger", "shadow"]
LabelValue = bool | int | float | str | None


class Fallback(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The challenger that a request was meant for, and why the champion answered in its place."""

    version: str
    status: int
    error: str
    latency_us: int = 0


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one version said to one request: the data of a prediction and of a shadow.

    ``rule`` names why this version answered (``champion``, ``split``, ``override``, ``client``,
    ``shadow``, or ``fallback``: the champion for a challenger that failed, which ``fallback`` names);
    ``bucket`` in [0, 1) is the place that decided: the unit's in the traffic, a shadow's in its own sample.
    ``share`` is the part of the traffic the version held, ``propensity`` the probability with which
    its rule met this request; under ``fallback`` that of the challenger's rule.
    ``inputs`` and ``outputs`` are arrays of V2 tensors ``{name, shape, datatype, data}``, absent
    when there are none; in a string column that may have missing values "" is one of them, as null is.
    ``inputs_omitted`` says why inputs are not there as they came: ``cut`` are too many bytes and not there at
    all, ``masked`` are there without what the columns in ``redacted`` held. That names each such column and what
    became of it: ``mask`` (null in its place), ``hash`` (a keyed hash of each value, as a string) or ``drop`` (no
    tensor). A model of one matrix has one tensor for each of its columns then, by the column's name.
    ``weight`` is how many requests the event stands for: k where one in k is logged, 1 for one that always is.
    ``forgotten`` says that what was asked and answered was removed later.
    """

    model: str
    version: str
    role: Role
    rule: str = "champion"
    share: float = 1.0
    bucket: float | None = None
    propensity: float = 1.0
    revision: int = 0
    status: int = 200
    error: str | None = None
    latency_us: int
    rows: int
    inputs: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    outputs: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    inputs_omitted: Literal["cut", "masked"] | None = None
    fallback: Fallback | None = None
    redacted: dict[str, str] = {}
    weight: int = 1
    forgotten: bool = False


class Label(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The truth about one request: one value, or one per row.

    ``row`` says which row of the request a single value belongs to; without it a single value is
    the label of row 0. ``reward`` is a gain measured by the client, in its own units. ``forgotten`` says that
    both were removed later.
    """

    label: LabelValue | list[LabelValue] = None
    row: int | None = None
    reward: float | None = None
    model: str | None = None
    forgotten: bool = False


class Audit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A change made to the server: who did what, and the document before and after."""

    action: str
    by: str
    reason: str | None = None
    before: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    after: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Envelope(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """CloudEvents' context attributes; ``subject`` and ``partitionkey`` are the request id.

    ``time`` must carry an offset: the monitor's panes are cut by it.
    """

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str
    time: datetime
    subject: str
    partitionkey: str
    datacontenttype: Literal["application/json"] = "application/json"


class Prediction(_Envelope, frozen=True, kw_only=True, tag="tiltyard.prediction.v1"):
    """The answer a client was given."""

    data: Answer


class Shadow(_Envelope, frozen=True, kw_only=True, tag="tiltyard.shadow.v1"):
    """The answer a challenger would have given; no client saw it."""

    data: Answer


class Labelled(_Envelope, frozen=True, kw_only=True, tag="tiltyard.label.v1"):
    """The truth, or a correction of it."""

    data: Label


class Audited(_Envelope, frozen=True, kw_only=True, tag="tiltyard.audit.v1"):
    """A change of route or repository."""

    data: Audit


Event = Prediction | Shadow | Labelled | Audited

# What stands in the line of every event of the type, for readers that want no other.
AUDIT_TYPE = b'"tiltyard.audit.v1"'

_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_encoder = msgspec.json.Encoder()


def encode_event(event: Event) -> bytes:
    """Returns the event as one line of JSON, without the line's end."""
    return _encoder.encode(event)


def decode_event(line: bytes | memoryview) -> Event:
    """Returns the event that a line of the log holds.

    Raises:
        msgspec.DecodeError: the line is not JSON, or (as msgspec.ValidationError) is JSON but not
            an event of a known type. A time without an offset is refused as well.
    """
    event = _decoder.decode(line)
    if event.time.tzinfo is None:
        raise msgspec.ValidationError("Expected `time` with an offset, got one without - at `$.time`")
    return event


def source_of(model: str, version: str) -> str:
    """Returns the CloudEvents source of a version's answers."""
    return f"/models/{model}/versions/{version}"
