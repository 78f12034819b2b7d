"""The events of the outbox found again in the topic, file by file of their digests."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from server.logbook.findings import Findings, Seen
from server.logbook.spill import Records, Spill

# The first time the topic has an event of the outbox: request, partition, place in the topic and in the outbox.
MET: Final = np.dtype([("key", "<u8"), ("partition", "<i4"), ("place", "<i8"), ("offset", "<i8")])
LOST: Final = np.dtype([("high", "<u8"), ("place", "<i8"), ("partition", "<i4")])

Mask = NDArray[np.bool_]


@dataclass(slots=True)
class Matched:
    """How outbox and topic compare.

    ``repeated`` are labels and audit events that were logged again under their own id, which is how a resend is made
    harmless; an answer's id is the server's, and is there once.
    """

    doubled: Seen = field(default_factory=Seen)
    repeated: int = 0
    in_topic: int = 0
    waiting: int = 0
    waiting_in_topic: int = 0
    lost: Seen = field(default_factory=Seen)
    set_aside: int = 0
    expired: int = 0
    twice: int = 0
    differing: Seen = field(default_factory=Seen)
    others: int = 0
    disordered: Seen = field(default_factory=Seen)

    def tell(self, findings: Findings, *, shipped: int | None) -> None:
        """Adds lines and faults; shipped: the position below which all must be in the topic, None without a topic."""
        if self.repeated:
            findings.note("labels and audit events logged again", self.repeated, "by who sent them, under the same id")
        if self.doubled:
            findings.fault(f"{self.doubled.count} answers have an id that another has: at offset {self.doubled}")
        if shipped is None:
            return
        findings.note("of the outbox, shipped", self.in_topic, f"offsets below {shipped}, found in the topic")
        if self.expired:
            findings.note("of the outbox, shipped and expired", self.expired, "before their partition's beginning")
        if self.set_aside:
            findings.note("of the outbox, set aside", self.set_aside, "no broker takes them; they are beside the log")
        findings.note("of the outbox, waiting to be shipped", self.waiting, f"offsets from {shipped} on")
        if self.waiting_in_topic:
            findings.note("  in the topic already", self.waiting_in_topic, "not yet acknowledged")
        findings.note("in the topic more than once", self.twice, "the same bytes: readers count an id once")
        findings.note("in the topic, not in the outbox", self.others, "trimmed, newer, or of others who write to it")
        for seen, sentence in (
            (self.lost, "{0.count} events below the shipped position are not in the topic: offset {0}"),
            (self.differing, "{0.count} records of the topic have an event's id and other bytes: {0}"),
            (self.disordered, "{0.count} events stand in the topic before an earlier one of their request: {0}"),
        ):
            if seen:
                findings.fault(sentence.format(seen))


def match(outbox: Spill, topic: Spill, met: Spill, lost: Spill, shipped: int, advance: Callable[[int], Any]) -> Matched:
    """Returns how the events of both compare.

    Args:
        outbox: its events.
        topic: its records; none where there is no topic.
        met: takes what is needed to look at the order.
        lost: takes what is missing; how much of it is lost depends on where partitions begin.
        shipped: the position below which all must be in the topic.
        advance: called with 1 for every file that is done.
    """
    found = Matched()
    for ours, theirs in zip(outbox.read(), topic.read(), strict=True):
        _compare(ours, theirs, met, lost, shipped, found)
        advance(1)
    return found


def _compare(ours: Records, theirs: Records, met: Spill, lost: Spill, shipped: int, found: Matched) -> None:
    records = np.concatenate([ours, theirs])
    is_theirs = np.arange(len(records)) >= len(ours)
    order = np.lexsort(
        (records["place"], records["partition"], is_theirs, records["line"], records["low"], records["high"])
    )
    records, is_theirs = records[order], is_theirs[order]
    is_ours = ~is_theirs
    new_id = _differs(records["high"]) | _differs(records["low"])
    new_pair = new_id | _differs(records["line"])
    of_id, of_pair = np.cumsum(new_id) - 1, np.cumsum(new_pair) - 1  # numbers of equal ids, and of equal id and bytes

    ours_of_id, theirs_of_id = _sums(of_id, is_ours), _sums(of_id, is_theirs)
    ours_of_pair, theirs_of_pair = _sums(of_pair, is_ours), _sums(of_pair, is_theirs)
    forgotten = _sums(of_id, is_ours & records["forgotten"]) > 0
    foreign = ours_of_id == 0

    again = is_ours & (ours_of_id[of_id] > 1)
    found.doubled.add_many(*_named(records, again & records["answer"]))
    found.repeated += int(np.sum(again & ~records["answer"] & ~new_id))

    # Other bytes under a known id, or under an unknown one beside those that came first. A label may be sent again, to
    # another server too, and one that was damaged is missing anyway.
    unlike = (ours_of_pair[of_pair] == 0) & ~foreign[of_id] & ~forgotten[of_id] | foreign[of_id] & new_pair & ~new_id
    unlike &= is_theirs & records["answer"]
    unlike_of_id = _sums(of_id, unlike)
    found.differing.add_many(
        int(unlike.sum()),
        [f"partition {each['partition']} offset {each['place']}" for each in records[unlike][:5]],
    )

    there = (theirs_of_pair[of_pair] > 0) | (forgotten[of_id] & (theirs_of_id[of_id] > 0))
    below = records["place"] < shipped
    found.in_topic += int(np.sum(is_ours & below & there))
    found.waiting += int(np.sum(is_ours & ~below))
    found.waiting_in_topic += int(np.sum(is_ours & ~below & there))
    missing = is_ours & below & ~there & (unlike_of_id[of_id] == 0)
    lost.add(_table(LOST, *(records[missing][name] for name in LOST.names or ())))

    known = np.maximum(ours_of_pair, 1)
    found.twice += int(np.maximum(theirs_of_pair - known, 0).sum())
    found.others += int(np.sum(foreign & (theirs_of_id > 0)))

    # In a pair the outbox's come first: the first of the topic's follows the last of them.
    firsts = is_theirs & ~foreign[of_id] & (ours_of_pair[of_pair] > 0)
    firsts[1:] &= ~(is_theirs[:-1] & ~new_pair[1:])
    first_offsets = records["place"][np.flatnonzero(new_pair)][of_pair]
    chosen = records[firsts]
    met.add(_table(MET, chosen["key"], chosen["partition"], chosen["place"], first_offsets[firsts]))


def check_order(met: Spill, found: Matched, advance: Callable[[int], Any]) -> dict[int, int]:
    """Counts events that the topic has before an earlier one of their request.

    Returns:
        The lowest offset of the outbox that each partition has.
    """
    lowest: dict[int, int] = {}
    for records in met.read():
        order = np.lexsort((records["place"], records["partition"], records["key"]))
        records = records[order]
        same = ~(_differs(records["key"]) | _differs(records["partition"]))
        back = same.copy()
        back[1:] &= records["offset"][1:] < records["offset"][:-1]
        found.disordered.add_many(
            int(back.sum()),
            [
                f"partition {each['partition']} offset {each['place']} (outbox {each['offset']})"
                for each in records[back][:5]
            ],
        )
        for partition in np.unique(records["partition"]):
            low = int(records["offset"][records["partition"] == partition].min())
            lowest[int(partition)] = min(low, lowest.get(int(partition), low))
        advance(1)
    return lowest


def tell_lost(lost: Spill, found: Matched, begins_at: dict[int, int | None], kept: NDArray[np.int64]) -> None:
    """Counts what is missing from the topic as lost, as set aside, or as expired where its partition begins later.

    Args:
        lost: what is missing.
        found: takes the counts.
        begins_at: of partitions that retention has cut, the lowest offset of the outbox they still have, None where
            they have none. A partition has the outbox's order, so what is missing below was there once.
        kept: offsets of events that were set aside, as no broker takes them.
    """
    for records in lost.read():
        expired = np.zeros(len(records), np.bool_)
        for partition, low in begins_at.items():
            of_partition = records["partition"] == partition
            expired |= of_partition if low is None else of_partition & (records["place"] < low)
        aside = np.isin(records["place"], kept)
        found.set_aside += int(aside.sum())
        found.expired += int((expired & ~aside).sum())
        found.lost.add_many(*_named(records, ~expired & ~aside))


def _table(dtype: np.dtype[Any], *columns: NDArray[Any]) -> Records:
    """Returns columns as records."""
    table = np.empty(len(columns[0]), dtype)
    for name, column in zip(dtype.names or (), columns, strict=True):
        table[name] = column
    return table


def _differs(values: NDArray[Any]) -> Mask:
    """Returns where a value is another than the one before; the first is."""
    found = np.ones(len(values), np.bool_)
    found[1:] = values[1:] != values[:-1]
    return found


def _sums(groups: NDArray[np.intp], mask: Mask) -> NDArray[np.int64]:
    return np.bincount(groups, mask, int(groups[-1]) + 1 if len(groups) else 0).astype(np.int64)


def _named(records: Records, mask: Mask) -> tuple[int, list[int]]:
    """Returns how many records a mask takes, and the lowest few places."""
    places = np.sort(records["place"][mask])
    return len(places), places[:5].tolist()
