"""What is expected of a run, by the runs before it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.execution.pace import Pace


def pace_of(*runs: tuple[int, float]) -> Pace:
    """Returns a pace that has learned from runs, each of so many rows and seconds."""
    pace = Pace()
    for rows, seconds in runs:
        pace.ran(rows, seconds)
    return pace


def test_nothing_is_expected_before_the_first_run() -> None:
    """Zero for every size: the first run of a graph is tried where it costs no thread."""
    assert [0.0] * 4 == [Pace().expected_s(rows) for rows in (0, 1, 1000, 10**9)]


def test_the_first_run_is_what_is_expected_of_the_next() -> None:
    """For all numbers of rows up to the next power of two."""
    pace = pace_of((5, 0.25))

    assert [0.25] * 4 == [pace.expected_s(rows) for rows in (4, 5, 6, 7)]


def test_a_run_moves_what_is_expected_by_a_fifth() -> None:
    """Up as well as down."""
    assert pytest.approx(1.2) == pace_of((1, 1.0), (1, 2.0)).expected_s(1)
    assert pytest.approx(0.8) == pace_of((1, 1.0), (1, 0.0)).expected_s(1)


@given(seconds=st.floats(4.0, 1e6))
def test_a_surprise_counts_as_four_times_what_was_expected(seconds: float) -> None:
    """However long the machine interrupted it."""
    assert pytest.approx(1.6) == pace_of((1, 1.0), (1, seconds)).expected_s(1)


def test_a_graph_that_has_become_slow_is_soon_known_as_such() -> None:
    """The bound holds back one surprise, not what keeps coming: a thousandfold is learned in 20 runs."""
    pace = pace_of((1, 0.001), *[(1, 1.0)] * 20)

    assert 0.5 < pace.expected_s(1) <= 1.0


def test_a_size_never_seen_costs_as_its_rows_beside_the_next_smaller() -> None:
    """Four times the rows, four times as long, whatever larger sizes took."""
    pace = pace_of((1, 9.0), (4, 1.0), (1024, 7.0))

    assert (4.0, 1.0) == (pace.expected_s(16), pace.expected_s(4))


def test_below_all_sizes_seen_the_next_larger_is_expected() -> None:
    """A run may cost the same whatever its rows: too much is expected rather than too little."""
    assert 1.0 == pace_of((64, 1.0), (1024, 7.0)).expected_s(2)


def test_sizes_are_learned_apart() -> None:
    """A large run says nothing about a small one that is known."""
    pace = pace_of((1, 0.5), (1024, 8.0), (1024, 8.0))

    assert (0.5, 8.0) == (pace.expected_s(1), pace.expected_s(1024))
