"""The topic held against what the shipper promises of each record; what it has is put aside for comparison."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from server.contract.events import Event, decode_event
from server.logbook.findings import Findings, Seen
from server.logbook.outbox_check import expected_partitions, placed
from server.logbook.outbox_file import Bounds
from server.logbook.records import Record, Topic
from server.logbook.selection import type_of
from server.logbook.spill import Spill


@dataclass(slots=True)
class TopicFacts:
    """What was found in the topic within ``bounds``, by partition."""

    bounds: Mapping[int, Bounds]
    types: Counter[str] = field(default_factory=Counter)
    malformed: Seen = field(default_factory=Seen)
    misplaced: Seen = field(default_factory=Seen)
    misnamed: Seen = field(default_factory=Seen)

    @property
    def expired(self) -> int:
        """How many offsets the topic's retention has taken, over all partitions."""
        return sum(each.start for each in self.bounds.values())

    def tell(self, findings: Findings) -> None:
        """Adds lines and faults."""
        findings.note("records in the topic that are events", sum(self.types.values()))
        if self.malformed:
            findings.note("records in the topic that are none", self.malformed.count, str(self.malformed))
        if self.expired:
            findings.note("offsets that the topic's retention has taken", self.expired)
        if self.misplaced:
            findings.fault(
                f"{self.misplaced.count} records are in another partition than murmur2 of their key: {self.misplaced}"
            )
        if self.misnamed:
            findings.fault(
                f"{self.misnamed.count} records have another key than their event's partitionkey: {self.misnamed}"
            )


def check_topic(topic: Topic, bounds: Mapping[int, Bounds], spill: Spill, advance: Callable[[int], Any]) -> TopicFacts:
    """Returns what is in the topic, and puts every event's digests aside.

    Args:
        topic: open for reading.
        bounds: from where to where to read each partition.
        spill: takes an event each.
        advance: called with how many records more are done.
    """
    facts = TopicFacts(bounds)
    starts, ends = ({place: each[side] for place, each in bounds.items()} for side in (0, 1))
    for batch in topic.read(starts, ends):
        found: list[tuple[Record, bytes, Event]] = []
        for record in batch:
            try:
                value = record.value or b""
                found.append((record, value, decode_event(value)))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                facts.malformed.add(_where(record))
        events = [event for _, _, event in found]
        facts.types.update(map(type_of, events))
        wanted = expected_partitions(events, len(topic.partitions))
        for (record, _, event), partition in zip(found, wanted, strict=True):
            if record.key != event.partitionkey.encode():
                facts.misnamed.add(_where(record))
            if record.partition != partition:
                facts.misplaced.add(f"{_where(record)} instead of partition {partition}")
        spill.add([placed(event, value, record.offset, record.partition) for record, value, event in found])
        advance(len(batch))
    return facts


def _where(record: Record) -> str:
    return f"partition {record.partition} offset {record.offset}"
