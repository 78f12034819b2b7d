"""One change of a route, as a line of JSON."""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.routing.document import Route
from server.routing.revision import Revision, decode_revision, encode_revision
from tests.server.routing.routes import routes, texts

revisions = st.builds(
    Revision,
    id=texts,
    model=texts,
    base=st.integers(0, 2**53),
    time=st.datetimes(timezones=st.just(UTC)),
    by=texts,
    action=st.sampled_from(["set", "shares", "promote", "rollback", "guard", "file"]),
    reason=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
    route=routes(),
)


@given(revisions)
def test_a_revision_is_one_line_and_comes_back(revision: Revision) -> None:
    """Whatever its reason says, and its route to the last range."""
    line = encode_revision(revision)

    assert b"\n" not in line
    assert decode_revision(line) == revision
    assert revision.number == revision.route.revision


def test_the_line_is_as_it_was_kept() -> None:
    """Files of earlier servers are read, without a reason and with members that came later."""
    line = (
        b'{"id":"a","model":"m","base":6,"time":"2025-01-02T03:04:05Z","by":"","action":"shares","reason":null,'
        b'"route":{"champion":"1","challengers":[],"unit":null,"salt":"","overrides":[],"revision":7}}'
    )
    revision = Revision(
        id="a",
        model="m",
        base=6,
        time=datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC),
        by="",
        action="shares",
        route=Route(champion="1", revision=7),
    )

    assert encode_revision(revision) == line
    assert decode_revision(line.replace(b'"reason":null', b'"later":1')) == revision


@pytest.mark.parametrize("line", [b"", b"{", b"{}", b"[]", b"\xff"])
def test_what_is_no_revision_is_refused(line: bytes) -> None:
    """A line that a crash cut, or that is something else."""
    with pytest.raises(msgspec.DecodeError):
        decode_revision(line)
