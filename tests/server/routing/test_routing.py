"""Assignment and the route document, both pure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import RouteError
from server.routing.assignment import bucket_of
from server.routing.document import Challenger, Route, decode_route


@pytest.mark.parametrize(
    ("salt", "unit", "bucket"),
    [
        ("flight-delay", "customer-7", 0.9324540307206385),
        ("", "", 0.9049687102438427),
        ("s", "Ünit ✈", 0.5184117480427403),
    ],
)
def test_reference_vectors(salt: str, unit: str, bucket: float) -> None:
    """First 8 bytes, big-endian, of SHA-256(salt:unit), over 2^64: any language can repeat these."""
    assert bucket_of(salt, unit) == pytest.approx(bucket, abs=1e-7)


@given(st.text(), st.text())
def test_a_bucket_is_below_one(salt: str, unit: str) -> None:
    """Any text has a place in [0, 1), the same every time."""
    assert 0 <= bucket_of(salt, unit) == bucket_of(salt, unit) < 1


def test_buckets_are_uniform_and_salts_independent() -> None:
    """100,000 units fill ten parts evenly (chi-square below its 99.99 % point), and another salt another way."""
    places = [(int(10 * bucket_of("a", str(i))), int(10 * bucket_of("b", str(i)))) for i in range(100_000)]
    cells = [0] * 100
    for a, b in places:
        cells[10 * a + b] += 1

    assert sum((n - 1000) ** 2 / 1000 for n in cells) < 160


def test_a_document() -> None:
    """All members, as the protocol writes them."""
    data = b'{"champion":"1","challengers":[{"version":"2","mode":"shadow","share":0.5}],"salt":"s","revision":7}'

    expected = Route(champion="1", challengers=[Challenger(version="2", share=0.5)], salt="s", revision=7)
    assert decode_route(data) == expected


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"{", "truncated"),
        (b"{}", "champion"),
        (b'{"champion": 1}', "Expected `str`, got `int`"),
        (b'{"champion": "1", "chalengers": []}', "unknown field `chalengers`"),
        (b'{"champion": "1", "challengers": [{"version": "2", "mode": "split"}]}', "Invalid enum value 'split'"),
        (b'{"champion": "1", "challengers": [{"version": "1"}]}', "got '1' twice"),
        (b'{"champion": "1", "challengers": [{"version": "2", "share": 1.5}]}', "share in \\[0, 1\\], got 1.5"),
    ],
)
def test_faults_are_named(data: bytes, sentence: str) -> None:
    """A document that cannot be used says what was expected."""
    with pytest.raises(RouteError, match=sentence):
        decode_route(data)


def test_every_fault_is_named_at_once() -> None:
    """A person mends a document in one go."""
    data = (
        b'{"champion": "1", "challengers": [{"version": "1", "share": -0.1}, {"version": "2", "share": 2},'
        b' {"version": "2"}]}'
    )

    with pytest.raises(RouteError) as caught:
        decode_route(data)

    sentence = str(caught.value)
    for part in ("got '1' twice", "share in [0, 1], got -0.1", "share in [0, 1], got 2.0", "got '2' twice"):
        assert part in sentence
