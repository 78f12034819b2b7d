"""A route's record in Kafka as version 1 of it is: what is written today is read for ever, and by earlier servers."""

from pathlib import Path

from server.routes.record import decode_record, encode_record

GOLDEN = Path(__file__).parent / "golden"
KEY, VALUE = ((GOLDEN / f"record.v1.{part}").read_bytes().strip() for part in ("key", "json"))


def test_the_golden_record() -> None:
    """It decodes to a route with everything that a route can have, and encodes to the same bytes."""
    revision = decode_record(KEY, VALUE)

    assert encode_record(revision) == (KEY, VALUE)
    assert (revision.model, revision.number, revision.base, revision.action) == ("flight-delay", 7, 6, "set")
    assert [(each.version, each.mode) for each in revision.route.challengers] == [("2", "split"), ("3", "shadow")]
    assert revision.route.challengers[0].ranges


def test_members_from_the_future_are_skipped() -> None:
    """A server of today obeys the route of a later one that says more."""
    newer = VALUE.replace(b'"model":', b'"novel":{"a":[1]},"model":')

    assert encode_record(decode_record(KEY, newer)) == (KEY, VALUE)
