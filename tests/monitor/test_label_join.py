from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.label_join import LabelJoin, Match, Meeting, WaitingAnswer
from server.contract.sampling import in_sample

_TTL_US = 1_000


def _join(**changes: Any) -> LabelJoin:
    return LabelJoin(**{"ttl_us": _TTL_US, "max_open": 100, **changes})


def _answer(event_id: str = "a1", version: str = "1", served: bool = True, model: str = "m") -> WaitingAnswer:
    return WaitingAnswer(model, version, served, 0, 2, [0, 1], [0.9, 0.1, 0.2, 0.8], [event_id])


def _net(meetings: list[Meeting] | None) -> Counter[Any]:
    """Returns what is left when retractions are set off against what they take back."""
    net: Counter[Any] = Counter()
    for meeting in meetings or []:
        if isinstance(meeting, Match):
            net[meeting.answer.event_ids[-1], meeting.row, meeting.value] += meeting.sign
        else:
            sides = (meeting.champion.event_ids[-1], meeting.challenger.event_ids[-1])
            net[*sides, meeting.row, meeting.value] += meeting.sign
    return Counter({key: count for key, count in net.items() if count})


# Each entry calls the join once; answers of one slot and labels of one row are in an order of their own.
_STEPS = {
    "champion": lambda join: join.add_answer("r", 0, _answer("a1")),
    "shadow": lambda join: join.add_answer("r", 0, _answer("s1", "2", served=False)),
    "other model": lambda join: join.add_answer("r", 0, _answer("b1", "7", model="other")),
    "label of row 0": lambda join: join.add_label("r", 0, "l0", [(0, 1)]),
    "labels of both rows": lambda join: join.add_label("r", 0, "l1", [(1, 0)]),
    "label of the other model": lambda join: join.add_label("r", 0, "l2", [(0, 5)], "other"),
}
_EXPECTED = Counter(
    {
        ("a1", 0, 1): 1, ("a1", 1, 0): 1, ("s1", 0, 1): 1, ("s1", 1, 0): 1, ("b1", 0, 5): 1, ("b1", 1, 0): 1,
        ("a1", "s1", 0, 1): 1, ("a1", "s1", 1, 0): 1,
    }
)  # fmt: skip


@given(st.permutations(list(_STEPS)), st.lists(st.sampled_from(list(_STEPS))))
def test_order_and_duplicates_do_not_matter(order: list[str], again: list[str]) -> None:
    """Answers and labels meet the same, once, in whatever order they come and however often."""
    join, meetings = _join(), []
    for name in [*order, *again]:
        meetings += _STEPS[name](join) or []

    assert _net(meetings) == _EXPECTED


@given(st.data())
def test_corrections_leave_only_the_latest_truth(data: st.DataObject) -> None:
    """Whatever was corrected or answered anew, what is left is the latest answers with the latest labels."""
    join, meetings = _join(), []
    latest: dict[Any, Any] = {}
    for number in range(data.draw(st.integers(1, 12))):
        kind = data.draw(st.sampled_from(["served", "shadow", "label"]))
        if kind == "label":
            row, value = data.draw(st.integers(0, 1)), data.draw(st.integers(0, 1))
            meetings += join.add_label("r", 0, f"l{number}", [(row, value)]) or []
            latest[row] = value
        else:
            served = kind == "served"
            meetings += join.add_answer("r", 0, _answer(f"e{number}", "1" if served else "2", served)) or []
            latest[kind] = f"e{number}"

    answers = [latest[kind] for kind in ("served", "shadow") if kind in latest]
    truths = [(row, latest[row]) for row in (0, 1) if row in latest]
    expected = Counter((answer, *truth) for answer in answers for truth in truths)
    if len(answers) == 2:
        expected.update((*answers, *truth) for truth in truths)
    assert expected == _net(meetings)


def test_a_resend_does_not_undo_a_correction() -> None:
    """A label sent once more after it was corrected is dropped, and so is a replaced answer."""
    join = _join()
    join.add_answer("r", 0, _answer("a1"))
    join.add_label("r", 0, "l1", [(0, 0)])
    join.add_label("r", 0, "l2", [(0, 1)])
    join.add_answer("r", 0, _answer("a2"))

    assert join.add_label("r", 0, "l1", [(0, 0)]) is None
    assert join.add_answer("r", 0, _answer("a1")) is None


def test_a_label_for_the_model_outweighs_one_for_any() -> None:
    """A label that names the model replaces the nameless one at that row, in either order."""
    named_last, named_first = _join(), _join()
    steps = [("l1", None, 0), ("l2", "m", 1)]
    found = []
    for join, order in ((named_last, steps), (named_first, steps[::-1])):
        meetings = join.add_answer("r", 0, _answer()) or []
        for event_id, model, value in order:
            meetings += join.add_label("r", 0, event_id, [(0, value)], model) or []
        found.append(_net(meetings))

    assert [Counter({("a1", 0, 1): 1})] * 2 == found


def test_a_label_without_value_changes_nothing() -> None:
    """A label of null, as a bare reward has, neither waits nor takes back."""
    join = _join()
    join.add_answer("r", 0, _answer())
    join.add_label("r", 0, "l1", [(0, 1)])

    assert join.add_label("r", 0, "l2", [(0, None)]) == []
    assert join.add_label("other", 0, "l3", [(0, None)]) == []
    assert len(join) == 1


def test_requests_expire_by_event_time() -> None:
    """What waited longer than the time to live behind the watermark is gone, counted by what was missing."""
    join = _join()
    join.add_answer("unlabelled", 0, _answer())
    join.add_answer("labelled", 1, _answer())
    join.add_label("labelled", 1, "l1", [(0, 1)])
    join.add_label("orphan", 2, "l2", [(0, 1), (1, 0)])
    join.add_answer("fresh", 3, _answer())

    join.expire(_TTL_US + 3)

    assert len(join) == 1
    assert {"expired": 1, "orphan_labels": 2} == dict(join.counters)
    assert join.add_answer("fresh", 3, _answer()) is None


def test_the_oldest_request_makes_room() -> None:
    """Beyond the most that may be open, the oldest by event time is given up, not the first to come."""
    join = _join(max_open=2)
    for name, time_us in (("b", 20), ("a", 10), ("c", 30)):
        join.add_answer(name, time_us, _answer(name))
    join.expire(None)

    assert [None, True, True] == [record and True for record in map(join.record, "abc")]


def test_a_join_resumes_from_its_records() -> None:
    """A join made from saved records goes on as the first would have, and expires the same."""
    join = _join()
    join.add_answer("r", 500, _answer())
    join.add_label("r", 0, "l1", [(0, 1)])
    resumed = _join(requests=[(name, record) for name in join.changed if (record := join.record(name)) is not None])

    assert resumed.add_answer("r", 0, _answer()) is None
    expected = join.add_label("r", 0, "l2", [(0, 0)])
    assert expected == resumed.add_label("r", 0, "l2", [(0, 0)])
    resumed.expire(_TTL_US + 500)
    assert len(resumed) == 1
    resumed.expire(_TTL_US + 501)
    assert len(resumed) == 0


@pytest.mark.parametrize("value", [10**30, -(10**30), 2**64])
def test_a_number_beyond_64_bits_is_no_truth(value: int) -> None:
    """An integer that no class can be does not stop the join from saving."""
    join = _join()
    join.add_answer("r", 0, _answer())

    meetings = join.add_label("r", 0, "l1", [(0, value)])

    assert [float("inf")] == [meeting.value for meeting in meetings or []]


def test_labels_of_requests_that_the_sample_leaves_out_are_no_loss() -> None:
    """Which they are is told by the hash, in the largest sample that was in force when the label came."""
    join = _join()
    kept = [name for name in map(str, range(40)) if in_sample(name, 4)]
    for name in ("a", "b"):
        answer = _answer(name)
        answer.weight = 4 if name == "a" else 1
        join.add_answer(name, 0, answer)
    for name in map(str, range(40)):
        join.add_label(name, 10, f"l{name}", [(0, 1)])
    reopened = _join(requests=[(name, record) for name in join.changed if (record := join.record(name)) is not None])
    for each in (join, reopened):
        each.add_label("late", _TTL_US, "l", [(0, 1), (1, 0)])
        each.expire(2 * _TTL_US)
        each.add_label("lost", 2 * _TTL_US, "l", [(0, 1)])  # nothing of a sample is open any more
        each.expire(4 * _TTL_US)

    late = 0 if in_sample("late", 4) else 2
    expected = {"expired": 2, "orphan_labels": len(kept) + 2 - late + 1, "sampled_out_labels": 40 - len(kept) + late}
    assert 0 < len(kept) < 40
    assert +join.counters == +reopened.counters == Counter(expected)


def test_records_of_an_earlier_monitor_are_read() -> None:
    """Open requests that were saved before there were weights stand for one request each."""
    old = msgspec.msgpack.encode([5, [["m", "1", True, 0, 1, [1], [0.2, 0.8], ["a1"]]], {}])
    join = _join(requests=[("r", old)])

    (meeting,) = join.add_label("r", 6, "l", [(0, 1)]) or []

    assert meeting.answer.weight == 1  # type: ignore[union-attr]
