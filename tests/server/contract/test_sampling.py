"""Which requests a sample keeps: a function of the id that any language can repeat."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.contract.sampling import MOST_EVERY, in_sample


@pytest.mark.parametrize(
    ("request_id", "number"),
    [
        ("r1", 11256921645644177348),
        ("flight-1", 15062444922757015901),
        ("Zürich ✈", 12305164090745133847),
        ("", 13545295881831312521),
    ],
)
def test_reference_vectors(request_id: str, number: int) -> None:
    """First 8 bytes, big-endian, of SHA-256("tiltyard:sample:" + id): kept where ``every`` divides it, else not."""
    divisors = {every for every in range(1, 200) if number % every == 0}

    assert {every for every in range(1, 200) if in_sample(request_id, every)} == divisors


@given(st.text(st.characters(codec="utf-8")), st.integers(1, 100), st.integers(1, 100))
def test_a_thinner_sample_is_part_of_a_thicker_one(request_id: str, every: int, times: int) -> None:
    """Who goes from one in 10 to one in 100 keeps nothing that was left out before."""
    assert in_sample(request_id, 1)
    assert not in_sample(request_id, 0)
    assert not in_sample(request_id, every * times) or in_sample(request_id, every)


@pytest.mark.parametrize("every", [2, 10, 97, MOST_EVERY])
def test_a_sample_has_its_share(every: int) -> None:
    """Of n ids n/k are kept, within five standard deviations of the binomial distribution."""
    n = 100 * every if every < 1000 else 5 * every
    kept = sum(in_sample(f"request-{number}", every) for number in range(n))

    assert abs(kept - n / every) <= 5 * math.sqrt(n / every * (1 - 1 / every))
