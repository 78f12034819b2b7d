"""An answer's line by splicing is the line that its records encode to."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.contract.answer_line import AnswerLine
from server.contract.events import Answer, Prediction, Shadow, encode_event, source_of

WHEN = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)

texts = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ['"', "\\", "\x00\n\x7f", "é🜁", "</script>"]
)
offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.datetimes(timezones=st.just(UTC) | offsets) | st.datetimes(timezones=st.just(UTC)).map(
    lambda time: time.replace(microsecond=0)
)
LEAST = Answer(model="m", version="1", role="champion", latency_us=0, rows=0)
# A member that is its default is left out, one that merely equals it is not.
shares = st.just(LEAST.share) | st.floats(0, 1) | st.sampled_from([1.0, 0.0, 1e-5, 5e-324, 1e-17])
tensors = st.lists(st.dictionaries(texts, st.lists(st.floats(allow_nan=False)))).map(msgspec.json.encode)
fixed = st.builds(
    dict,
    model=texts,
    version=texts,
    role=st.sampled_from(["champion", "challenger", "shadow"]),
    rule=st.sampled_from(["champion", "split", "override", "client", "shadow"]) | texts,
    share=shares,
    propensity=shares,
    revision=st.integers(0, 2**63),
    weight=st.integers(1, 2**63),
)


def encoded(
    kind: type[Prediction | Shadow],
    members: dict[str, Any],
    event_id: str,
    time: datetime,
    request_id: str,
    inputs: bytes | None,
    outputs: bytes,
    **varying: Any,
) -> bytes:
    """Returns the line as the records encode it."""
    kept: dict[str, Any] = {"inputs_omitted": "cut"} if inputs is None else {"inputs": msgspec.Raw(inputs)}
    answer = Answer(**members, **varying, **kept, outputs=msgspec.Raw(outputs))
    return encode_event(
        kind(
            id=event_id,
            source=source_of(answer.model, answer.version),
            time=time,
            subject=request_id,
            partitionkey=request_id,
            data=answer,
        )
    )


@given(
    kind=st.sampled_from([Prediction, Shadow]),
    members=fixed,
    event_id=texts,
    time=times,
    request_id=texts,
    bucket=st.none() | shares,
    latency_us=st.integers(0, 2**63),
    rows=st.integers(0, 2**63),
    inputs=st.none() | tensors,
    outputs=tensors,
)
def test_the_line_is_the_one_that_the_records_encode_to(
    kind: type[Prediction | Shadow], members: dict[str, Any], **varying: Any
) -> None:
    """Byte for byte, whatever the members hold: defaults, odd texts, tiny shares, any year and offset."""
    line = AnswerLine(kind, Answer(**members, latency_us=0, rows=0)).line(**varying)

    assert line == encoded(kind, members, **varying)


def test_inputs_are_taken_as_they_came() -> None:
    """Bytes and msgspec's raw ones are spliced in alike, spaces and all."""
    of_arm = AnswerLine(Prediction, LEAST)
    inputs, outputs = b'[ {"data": [1.50]}]', b"[ ]"

    line = of_arm.line("e", WHEN, "r", 0.5, 7, 1, inputs, outputs)

    assert line == of_arm.line("e", WHEN, "r", 0.5, 7, 1, msgspec.Raw(inputs), msgspec.Raw(outputs))
    assert line.endswith(b'"rows":1,"inputs":[ {"data": [1.50]}],"outputs":[ ]}}')


def test_one_instance_makes_many_lines() -> None:
    """Nothing of one answer is left in the next."""
    members: dict[str, Any] = {"model": "m", "version": "1", "role": "challenger", "rule": "split", "share": 0.25}
    of_arm = AnswerLine(Prediction, Answer(**members, latency_us=0, rows=0))
    first: dict[str, Any] = {
        "event_id": "1",
        "time": WHEN,
        "request_id": "r",
        "bucket": 0.5,
        "latency_us": 7,
        "rows": 1,
    }
    second: dict[str, Any] = {
        "event_id": "2",
        "time": WHEN,
        "request_id": "s",
        "bucket": None,
        "latency_us": 8,
        "rows": 2,
    }

    of_arm.line(**first, inputs=None, outputs=b"[]")
    line = of_arm.line(**second, inputs=b"[]", outputs=b"[1]")

    assert line == encoded(Prediction, members, **second, inputs=b"[]", outputs=b"[1]")


def test_half_a_surrogate_pair_is_refused_alike() -> None:
    """An id that no UTF-8 can hold raises what the records' encoder raises."""
    of_arm = AnswerLine(Prediction, LEAST)

    with pytest.raises(UnicodeEncodeError):
        of_arm.line("e", WHEN, "\ud800", 0.5, 7, 1, b"[]", b"[]")
