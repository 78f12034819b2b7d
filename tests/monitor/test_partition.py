from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.errors import SourceError
from monitor.fold import FoldLimits, read_events
from monitor.history import Unsaved
from monitor.partition import Partition
from monitor.sources.source import Batch, Delivery
from monitor.state_store import Joined, Position
from monitor.version_profile import VersionProfile

_LIMITS = FoldLimits(pane_us=60_000_000, grace_us=0, ttl_us=100_000_000, max_open=6)
_NOTHING = Unsaved({}, {}, {})


def _partition(profiles: Any, position: Position, joined: Joined, requests: Any, saved: bool = True) -> Partition:
    return Partition(3, profiles, _LIMITS, position, joined, requests, saved, {})


def _feed(partition: Partition, lines: list[tuple[int, bytes]], begin: int, end: int) -> Any:
    events, refused = read_events(lines[begin:end])
    return partition.take_in(Delivery(3, begin, Batch(lines[begin:end], [], 0, end), None), events, refused)


@pytest.fixture(scope="module")
def profiles(module_profile_of: Callable[..., VersionProfile]) -> Any:
    versions = [module_profile_of(version=version) for version in ("1", "2")]
    return {profile.key: profile for profile in versions}


# Few requests, whose ids are used again and again over many times their time to live, and more than may be open.
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["champion", "shadow", "label", "junk"]),
        st.integers(0, 9),
        st.floats(-150, 300),
        st.integers(0, 1),
    ),
    max_size=60,
)


@given(_STEPS, st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_partition_is_taken_over_from_any_checkpoint_exactly(
    profiles: Any, module_events: Any, steps: Any, data: st.DataObject
) -> None:
    """From the open requests at one offset and the panes at a later one, folding goes on to the very same state."""
    events, found = module_events, []
    for number, (kind, request, at_s, value) in enumerate(steps):
        name, at_s = f"r{request}", number * 10 + at_s
        if kind == "junk":
            found.append(b"junk")
        elif kind == "label":
            found.append(events.label(name, value, at_s, event_id=f"e{number}"))
        else:
            version = "2" if kind == "shadow" else "1"
            found.append(events.answer(name, at_s, role=kind, version=version, p=[0.3], event_id=f"e{number}"))
    lines = events.lines(found)
    size = len(lines)
    checkpoint, taken = sorted(data.draw(st.tuples(st.integers(0, size), st.integers(0, size))))
    cut = data.draw(st.integers(checkpoint, size))

    before = _partition(profiles, Position(0, None), Joined(0, None), [])
    _feed(before, lines, 0, checkpoint)
    joined, requests = Joined(checkpoint, before.position.watermark_us), before.requests()
    _feed(before, lines, checkpoint, taken)
    position, counters = before.position, dict(before.counters)
    expected = _feed(before, lines, taken, size)
    after = Partition(3, profiles, _LIMITS, position, joined, requests, False, counters)
    _feed(after, lines, checkpoint, cut)
    found_of_cut = _feed(after, lines, cut, size)

    assert sorted(before.requests()) == sorted(after.requests())
    assert (before.position, before.counters) == (after.position, after.counters)
    if cut <= taken < size:
        assert (expected.panes, expected.comparisons) == (found_of_cut.panes, found_of_cut.comparisons)


def test_what_is_read_once_more_is_not_counted_once_more(profiles: Any, events: Any) -> None:
    """Up to the position nothing is counted or kept aside; the open requests are to be saved whole."""
    lines = events.lines([events.answer("a"), b"junk", events.answer("b"), events.answer("c")])
    partition = _partition(profiles, Position(3, 5), Joined(0, None), [], saved=False)

    early = _feed(partition, lines, 0, 2)
    warming = partition.warming
    late = _feed(partition, lines, 2, 4)
    changes = partition.changes(_NOTHING, {})

    assert (None, True, False) == (early, warming, partition.warming)
    assert ({"prediction": 1}, []) == (dict(late.counters), list(changes.dead_letters))
    assert (1, True, ["a", "b", "c"]) == (
        partition.uncommitted_events,
        changes.anew,
        [name for name, _ in changes.requests],
    )


def test_a_gap_before_the_position_is_not_counted(profiles: Any) -> None:
    """What retention took away of what had been counted is no loss; what it took beyond is."""
    partition = _partition(profiles, Position(10, 5), Joined(4, None), [])

    partition.take_in(Delivery(3, 4, Batch([], [], 8, 12), None), [], [])

    assert (2, 12) == (partition.counters["gap_events"], partition.position.offset)


def test_events_of_another_place_are_refused(profiles: Any, events: Any) -> None:
    """Events that do not follow the last ones would be counted twice, or some not at all."""
    lines = events.lines([events.answer("a"), events.answer("b")])
    partition = _partition(profiles, Position(0, None), Joined(0, None), [])
    _feed(partition, lines, 0, 2)

    with pytest.raises(SourceError, match="partition 3 of the log: expected events from offset 2, got some from 1"):
        _feed(partition, lines, 1, 2)
