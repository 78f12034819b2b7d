"""The log's records: what is written today is read for ever."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from server.contract.events import (
    Answer,
    Audit,
    Audited,
    Label,
    Labelled,
    Prediction,
    Shadow,
    decode_event,
    encode_event,
    source_of,
)
from tests.server.contract.old_reader import BLOB, SOURCE, blob_of, load

GOLDEN = Path(__file__).parent / "golden"
KINDS = {
    "prediction": Prediction,
    "prediction-fallback": Prediction,
    "shadow": Shadow,
    "label": Labelled,
    "audit": Audited,
}


@pytest.mark.parametrize("name", KINDS)
def test_golden_events_of_version_1(name: str) -> None:
    """Each type as version 1 wrote it decodes to its class, and encodes to the same bytes."""
    line = (GOLDEN / f"{name}.v1.json").read_bytes().strip()

    event = decode_event(line)

    assert type(event) is KINDS[name]
    assert encode_event(event) == line
    attributes = msgspec.json.decode(line)
    assert attributes["type"] == f"tiltyard.{name.partition('-')[0]}.v1"
    assert {"specversion", "id", "source", "time", "subject", "partitionkey", "datacontenttype", "data"} < set(
        attributes
    )


@pytest.mark.parametrize("name", KINDS)
def test_members_from_the_future_are_skipped(name: str) -> None:
    """An old reader reads new events."""
    line = (GOLDEN / f"{name}.v1.json").read_bytes().strip()
    newer = line.replace(b'"specversion"', b'"novel":[1],"specversion"').replace(
        b'"data":{', b'"data":{"novel":{"a":1},'
    )

    assert encode_event(decode_event(newer)) == line


def least(kind: str, **data: object) -> bytes:
    """Returns an event of a type with the members that have no default, and no other."""
    attributes = {"id": "e", "source": "/s", "time": "2026-01-02T03:04:05+02:00", "subject": "r", "partitionkey": "r"}
    return msgspec.json.encode({"type": f"tiltyard.{kind}.v1", **attributes, "data": data})


def test_members_that_are_missing_have_their_defaults() -> None:
    """A new reader reads what an older writer left out."""
    answer = {"model": "m", "version": "1", "latency_us": 5, "rows": 1}
    prediction = decode_event(least("prediction", role="champion", **answer))
    label = decode_event(least("label"))
    audit = decode_event(least("audit", action="load", by="x"))

    assert isinstance(prediction, Prediction)
    assert prediction.time == datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)
    assert prediction.data == Answer(
        model="m",
        version="1",
        role="champion",
        rule="champion",
        share=1.0,
        bucket=None,
        propensity=1.0,
        revision=0,
        status=200,
        error=None,
        latency_us=5,
        rows=1,
        inputs=msgspec.UNSET,
        outputs=msgspec.UNSET,
        inputs_omitted=None,
        fallback=None,
        redacted={},
        weight=1,
    )
    assert isinstance(label, Labelled)
    assert label.data == Label(label=None, row=None, reward=None, model=None)
    assert isinstance(audit, Audited)
    assert audit.data == Audit(action="load", by="x", reason=None, before=msgspec.UNSET, after=msgspec.UNSET)


def test_the_public_shape_of_a_prediction() -> None:
    """CloudEvents 1.0 in structured JSON, written out by hand: names, types, and RFC 3339."""
    event = Prediction(
        id="e1",
        source=source_of("flight", "3"),
        time=datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
        subject="r1",
        partitionkey="r1",
        data=Answer(
            model="flight",
            version="3",
            role="challenger",
            rule="split",
            share=0.25,
            bucket=0.125,
            propensity=0.25,
            latency_us=99,
            rows=1,
            inputs=msgspec.Raw(b'[{"name": "x",  "data": [1.50]}]'),
        ),
    )

    assert encode_event(event) == (
        b'{"type":"tiltyard.prediction.v1","specversion":"1.0","id":"e1","source":"/models/flight/versions/3",'
        b'"time":"2026-01-02T03:04:05.678000Z","subject":"r1","partitionkey":"r1",'
        b'"datacontenttype":"application/json","data":{"model":"flight","version":"3","role":"challenger",'
        b'"rule":"split","share":0.25,"bucket":0.125,"propensity":0.25,"latency_us":99,"rows":1,'
        b'"inputs":[{"name": "x",  "data": [1.50]}]}}'
    )


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b'{"type":"tiltyard.other.v1"}',
        (GOLDEN / "label.v1.json").read_bytes().replace(b'Z"', b'"'),
        (GOLDEN / "label.v1.json").read_bytes().replace(b'"1.0"', b'"2.0"'),
        (GOLDEN / "prediction.v1.json").read_bytes().replace(b'"rows":1', b'"rows":"one"'),
    ],
)
def test_what_is_no_event_is_refused(line: bytes) -> None:
    """Not JSON, an unknown type, a time without an offset, another CloudEvents version, a wrong member."""
    with pytest.raises(msgspec.DecodeError):
        decode_event(line)


NEWER = {
    "prediction-redacted": Prediction,
    "prediction-sampled": Prediction,
    "shadow-redacted-sampled": Shadow,
}
OLD: Any = load()


def test_the_old_reader_is_the_one_that_was() -> None:
    """What stands in for an earlier version is its very file."""
    assert blob_of(SOURCE.read_bytes()) == BLOB


@pytest.mark.parametrize("name", NEWER)
def test_golden_events_with_the_newer_members(name: str) -> None:
    """Events that say what they hide and what they stand for, as they are written today."""
    line = (GOLDEN / f"{name}.v1.json").read_bytes().strip()

    event = decode_event(line)

    assert type(event) is NEWER[name]
    assert encode_event(event) == line
    assert isinstance(event, Prediction | Shadow)
    assert (bool(event.data.redacted), event.data.weight) == ("redacted" in name, 10 if "sampled" in name else 1)


@pytest.mark.parametrize("name", [*KINDS, *NEWER])
def test_an_old_monitor_reads_new_events(name: str) -> None:
    """All members that it knows arrive, and it passes the inputs over where columns are hidden.

    An earlier monitor leaves the features of any event alone that has ``inputs_omitted``, so it takes nulls and
    hashes neither for missing values nor for drift. It counts an event of a sample once.
    """
    line = (GOLDEN / f"{name}.v1.json").read_bytes().strip()

    old, new = OLD.decode_event(line), decode_event(line)

    assert type(old).__name__ == type(new).__name__
    known = msgspec.json.decode(OLD.encode_event(old))
    everything = msgspec.json.decode(line)
    added = {"redacted", "weight"} & set(everything["data"])
    for member in added:
        del everything["data"][member]
    assert known == everything
    assert added or name in KINDS
    if isinstance(new, Prediction | Shadow) and new.data.redacted:
        assert old.data.inputs_omitted == "masked"


@pytest.mark.parametrize("name", KINDS)
def test_a_new_monitor_reads_old_events(name: str) -> None:
    """What an earlier server writes is read with the newer members at their defaults."""
    line = OLD.encode_event(OLD.decode_event((GOLDEN / f"{name}.v1.json").read_bytes().strip()))

    event = decode_event(line)

    assert encode_event(event) == line
    if isinstance(event, Prediction | Shadow):
        assert (event.data.redacted, event.data.weight) == ({}, 1)
