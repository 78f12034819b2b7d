"""The log's records: what is written today is read for ever."""

from pathlib import Path

import msgspec
import pytest

from server.contract.events import Audited, Labelled, Prediction, Shadow, decode_event, encode_event

GOLDEN = Path(__file__).parent / "golden"
KINDS = {"prediction": Prediction, "shadow": Shadow, "label": Labelled, "audit": Audited}


@pytest.mark.parametrize("name", KINDS)
def test_golden_events_of_version_1(name: str) -> None:
    """Each type as version 1 wrote it decodes to its class, and encodes to the same bytes."""
    line = (GOLDEN / f"{name}.v1.json").read_bytes().strip()

    event = decode_event(line)

    assert type(event) is KINDS[name]
    assert encode_event(event) == line
    attributes = msgspec.json.decode(line)
    assert attributes["type"] == f"tiltyard.{name}.v1"
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
