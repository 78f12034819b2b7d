"""The breaker of a guarded challenger: what it counts, over which time, and when it opens. Time is an argument."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.routing.breaker import Breaker
from server.routing.document import Guard

PARTS = 10


def fed(breaker: Breaker, good: int = 0, failed: int = 0, slow: int = 0, at_s: float = 1000.0) -> list[bool]:
    """Returns what a breaker says to failures, slow ones and good ones, in this order, at one moment."""
    requests = [(0.0, True)] * failed + [(9.0, False)] * slow + [(0.0, False)] * good
    return [breaker.record(at_s, seconds, failed=fails) for seconds, fails in requests]


@pytest.mark.parametrize(
    ("good", "failed", "opens"), [(91, 9, False), (90, 10, False), (89, 11, True), (0, 100, True), (100, 0, False)]
)
def test_it_opens_above_the_share_that_may_fail(good: int, failed: int, opens: bool) -> None:
    """Of 100 requests 9, 10 and 11 fail where a tenth may: at the limit it stays closed."""
    breaker = Breaker(Guard(error_rate=0.1, min_requests=100))

    assert sum(fed(breaker, good=good, failed=failed)) == opens
    assert (breaker.open_because is not None) == opens


@pytest.mark.parametrize(("good", "slow", "opens"), [(96, 4, False), (95, 5, False), (94, 6, True)])
def test_it_opens_above_the_share_that_may_be_slow(good: int, slow: int, opens: bool) -> None:
    """Of 100 requests 4, 5 and 6 take longer than they may where a twentieth is let off."""
    breaker = Breaker(Guard(latency_ms=100, min_requests=100))

    assert sum(fed(breaker, good=good, slow=slow)) == opens


@pytest.mark.parametrize("percent", range(100))
def test_exactly_the_limit_is_not_above_it(percent: int) -> None:
    """For every whole percentage; 0.29 * 100 is less than 29 in floating point."""
    breaker = Breaker(Guard(error_rate=percent / 100, min_requests=100))

    assert not any(fed(breaker, good=0, failed=percent) + fed(breaker, good=100 - percent))
    assert fed(breaker, failed=1) == [True]


def test_a_request_of_exactly_the_time_allowed_is_not_slow() -> None:
    """Longer than latency_ms is slow; with no latency_ms nothing is."""
    limited = Breaker(Guard(latency_ms=250, slow_rate=0.0, min_requests=1))
    unlimited = Breaker(Guard(error_rate=0.0, slow_rate=0.0, min_requests=1))

    assert [limited.record(0.0, seconds, failed=False) for seconds in (0.25, 0.2501)] == [False, True]
    assert not unlimited.record(0.0, 1e9, failed=False)


def test_a_failure_that_is_slow_as_well_counts_as_both() -> None:
    """The reason that is named first is that it failed."""
    breaker = Breaker(Guard(error_rate=0.5, latency_ms=1, slow_rate=0.5, min_requests=2))
    slow = Breaker(Guard(error_rate=0.99, latency_ms=1, slow_rate=0.5, min_requests=3))

    said = [breaker.record(0.0, 1.0, failed=True) for _ in range(2)]
    slower = [slow.record(0.0, 1.0, failed=fails) for fails in (True, True, False)]

    assert (said, slower) == ([False, True], [False, False, True])
    assert breaker.open_because == "2 of 2 requests within 60 s failed, expected at most 0.5 of them"
    assert slow.open_because == "3 of 3 requests within 60 s took longer than 1 ms, expected at most 0.5 of them"


def test_few_requests_say_nothing() -> None:
    """49 failures of 49 are too few; the next request decides, whatever it is."""
    breaker = Breaker(Guard(error_rate=0.1, min_requests=50))

    assert not any(fed(breaker, failed=49))
    assert fed(breaker, good=1) == [True]


def test_it_opens_once_and_for_good() -> None:
    """One request is told that it was the one; neither success nor time closes it, and the reason stays."""
    breaker = Breaker(Guard(error_rate=0.1, min_requests=10))
    said = fed(breaker, failed=30)
    because = breaker.open_because

    later = fed(breaker, good=100) + fed(breaker, good=100, failed=100, at_s=9999.0)

    assert (said.index(True), sum(said), any(later)) == (9, 1, False)
    assert breaker.open_because == because == "10 of 10 requests within 60 s failed, expected at most 0.1 of them"


@pytest.mark.parametrize("parts", [*range(25), 1000])
def test_the_window_slides_by_tenths(parts: int) -> None:
    """What happened in a tenth of it counts in that one and the nine after it, and never again."""
    breaker = Breaker(Guard(error_rate=0.5, window_s=60, min_requests=10))
    assert not any(fed(breaker, failed=9, at_s=1206.0))

    later_s = 1206.0 + 6.0 * parts
    assert fed(breaker, failed=1, at_s=later_s) == [parts < 10]
    assert any(fed(breaker, failed=8, at_s=later_s + 5.9)) is False
    assert fed(breaker, failed=1, at_s=later_s + 5.9) == [parts >= 10]


def test_a_rate_may_come_to_be_too_high_by_good_requests_that_leave_the_window() -> None:
    """90 good ones, then 10 failures: a tenth. When the good ones are too old, the next request opens it."""
    breaker = Breaker(Guard(error_rate=0.1, window_s=60, min_requests=10))
    assert not any(fed(breaker, good=90, at_s=600.0) + fed(breaker, failed=10, at_s=630.0))

    assert fed(breaker, good=1, at_s=660.0) == [True]


requests = st.tuples(st.floats(0, 30), st.sampled_from([0.001, 0.1, 0.2]), st.booleans())
guards = st.builds(
    Guard,
    error_rate=st.none() | st.sampled_from([0.0, 0.1, 0.29, 0.5, 0.9]),
    latency_ms=st.none() | st.sampled_from([1.0, 100.0, 150.0]),
    slow_rate=st.sampled_from([0.0, 0.05, 0.5]),
    window_s=st.sampled_from([1.0, 10.0, 60.0]),
    min_requests=st.integers(1, 12),
)


@given(guards, st.floats(0, 1e6), st.lists(requests, max_size=60))
def test_it_does_what_counting_anew_at_every_request_does(
    guard: Guard, start_s: float, fed: list[tuple[float, float, bool]]
) -> None:
    """Against a model that keeps all requests, and counts those in the present tenth of a window and nine before."""
    breaker = Breaker(guard)
    part_s = guard.window_s / PARTS
    seen: list[tuple[int, float, bool]] = []
    now_s, opened = start_s, False
    for wait_s, seconds, failed in fed:
        now_s += wait_s
        part = int(now_s / part_s)
        seen.append((part, seconds, failed))
        inside = [each for each in seen if each[0] > part - PARTS]
        failures = Fraction(sum(each[2] for each in inside), len(inside))
        slow = Fraction(sum(1000 * each[1] > (guard.latency_ms or 1e9) for each in inside), len(inside))
        beyond = len(inside) >= guard.min_requests and (
            (guard.error_rate is not None and failures > Fraction(str(guard.error_rate)))
            or (guard.latency_ms is not None and slow > Fraction(str(guard.slow_rate)))
        )

        assert breaker.record(now_s, seconds, failed=failed) == (beyond and not opened)
        opened = opened or beyond
        assert (breaker.open_because is not None) == opened
