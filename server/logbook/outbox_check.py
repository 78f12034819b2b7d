"""The outbox held against what its writer promises: every offset there, every chunk whole, every line an event."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from server.contract.events import Event, Labelled, Prediction, Shadow, decode_event
from server.contract.partition import partitions_of
from server.logbook.findings import Findings, Seen
from server.logbook.outbox_file import Bounds, Chunk, OutboxFile
from server.logbook.selection import type_of
from server.logbook.spill import Placed, Spill, digest, id_digest

_TYPES: Final = ("prediction", "shadow", "label", "audit")


@dataclass(slots=True)
class OutboxFacts:
    """What was found in the outbox from its beginning to ``bounds.end``."""

    bounds: Bounds
    trimmed: int = 0
    types: Counter[str] = field(default_factory=Counter)
    forgotten: int = 0
    missing: Seen = field(default_factory=Seen)
    overlapping: Seen = field(default_factory=Seen)
    damaged: Seen = field(default_factory=Seen)
    damaged_events: int = 0
    malformed: Seen = field(default_factory=Seen)

    def tell(self, findings: Findings) -> None:
        """Adds lines and faults."""
        there = sum(self.types.values())
        findings.note("events ever logged", self.bounds.end, f"offsets 0 to {self.bounds.end}")
        findings.note("trimmed from the outbox", self.trimmed, f"offsets below {self.trimmed}" if self.trimmed else "")
        findings.note("in the outbox", there)
        for name in _TYPES:
            findings.note(f"  of type {name}", self.types[name])
        if self.forgotten:
            findings.note("  forgotten since", self.forgotten, "their answers and inputs were removed")
        damaged = f"{{0.count}} chunks of the outbox, of {self.damaged_events} events, are damaged: {{0}}"
        for seen, sentence in (
            (self.missing, "{0.count} offsets of the outbox are missing: {0}"),
            (self.overlapping, "{0.count} chunks of the outbox begin before the end of the one before: at offset {0}"),
            (self.damaged, damaged),
            (self.malformed, "{0.count} lines of the outbox are no events: at offset {0}"),
        ):
            if seen:
                findings.fault(sentence.format(seen))


def check_outbox(
    log: OutboxFile, bounds: Bounds, spill: Spill, partitions: int | None, advance: Callable[[int], Any]
) -> OutboxFacts:
    """Returns what is in the outbox, and puts every event's digests aside.

    Trimming may go on meanwhile: what it takes before it was read is counted as trimmed.

    Args:
        log: open for reading.
        bounds: from where to where to read.
        spill: takes an event each.
        partitions: of the topic that the events belong into, None where there is none.
        advance: called with how many offsets more are done.
    """
    facts = OutboxFacts(bounds)
    facts.trimmed = expected = log.trimmed_to
    for chunk in log.chunks(0, bounds.end):
        if chunk.first > expected:
            facts.trimmed = max(facts.trimmed, min(log.trimmed_to, chunk.first))
            missing = max(expected, facts.trimmed)
            if missing < chunk.first:
                facts.missing.add(f"{missing} to {chunk.first - 1}", chunk.first - missing)
        elif chunk.first < expected:
            facts.overlapping.add(chunk.first)
        _take(chunk, facts, spill, partitions)
        advance(chunk.events)
        expected = max(expected, chunk.end)
    return facts


def placed(event: Event, line: bytes, place: int, partition: int) -> Placed:
    """Returns an event by its digests."""
    forgotten = isinstance(event, Prediction | Shadow | Labelled) and event.data.forgotten
    return Placed(
        *id_digest(event.id),
        digest(line),
        digest(event.subject.encode()),
        place,
        partition,
        isinstance(event, Prediction | Shadow),
        forgotten,
    )


def expected_partitions(events: Sequence[Event], partitions: int | None) -> list[int]:
    """Returns the partition each event belongs into, -1 without a topic."""
    if partitions is None:
        return [-1] * len(events)
    return partitions_of([event.partitionkey.encode() for event in events], partitions)


def _take(chunk: Chunk, facts: OutboxFacts, spill: Spill, partitions: int | None) -> None:
    if chunk.fault is not None:
        facts.damaged.add(f"at offset {chunk.first} ({chunk.fault})")
        facts.damaged_events += chunk.events
        return
    found: list[tuple[int, bytes, Event]] = []
    for place, line in enumerate(chunk.lines(), start=chunk.first):
        try:
            found.append((place, line, decode_event(line)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            facts.malformed.add(place)
    events = [event for _, _, event in found]
    facts.types.update(map(type_of, events))
    records = [
        placed(event, line, place, partition)
        for (place, line, event), partition in zip(found, expected_partitions(events, partitions), strict=True)
    ]
    facts.forgotten += sum(record.forgotten for record in records)
    spill.add(records)
