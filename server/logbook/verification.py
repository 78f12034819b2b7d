"""Server, outbox and topic held against each other.

Read in this order, so that what moves meanwhile cannot look like a loss: the server's counters; the shipped position;
the outbox's end and the topic's ends, beyond which nothing is read; the outbox; the topic; the counters again. All that
was shipped by the second step is in the topic by the third.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from server.eventlog.shipped import Shipped, read_shipped
from server.logbook.errors import LogbookError
from server.logbook.findings import Findings
from server.logbook.matching import LOST, MET, Matched, check_order, match, tell_lost
from server.logbook.outbox_check import check_outbox
from server.logbook.outbox_file import Bounds, OutboxFile
from server.logbook.progress import shown_progress
from server.logbook.records import Topic, total
from server.logbook.server_check import check_server, opening_of
from server.logbook.server_counters import Counters
from server.logbook.set_aside_offsets import offsets_set_aside
from server.logbook.spill import FILES, Spill
from server.logbook.topic_check import check_topic


@dataclass(frozen=True, slots=True)
class Others:
    """What the outbox is held against beside itself: the topic, by its name, and what reads a server's counters."""

    topic: Topic | None = None
    topic_name: str = ""
    counters: Callable[[], Counters] | None = None


def verify(log: OutboxFile, others: Others, scratch: Path | None = None) -> Findings:
    """Returns the balance.

    Args:
        log: open for reading.
        others: what it is held against.
        scratch: where digests are kept meanwhile, 64 bytes an event; the system's folder for that without one.

    Raises:
        LogbookError, OutboxError: something cannot be read.
    """
    before = None if others.counters is None else others.counters()
    shipped = None if others.topic is None else _shipped(log, others)
    opened = None if others.counters is None else opening_of(log)
    bounds = log.bounds()
    findings = Findings()
    with tempfile.TemporaryDirectory(prefix="tiltyard-verify-", dir=scratch) as folder:
        _check_log(log, bounds, others.topic, shipped, Path(folder), findings)
    if others.counters is not None and before is not None and opened is not None:
        after = others.counters()
        now = opening_of(log)
        server = check_server(before, after, opened, now.at_ms != opened.at_ms, bounds.end)
        findings.rows += server.rows
        findings.faults += server.faults
    return findings


def _check_log(
    log: OutboxFile, bounds: Bounds, topic: Topic | None, shipped: Shipped | None, folder: Path, findings: Findings
) -> None:
    ends = {} if topic is None else topic.bounds()
    position = 0 if shipped is None else shipped.offset
    with (
        Spill(folder, "outbox") as ours,
        Spill(folder, "topic") as theirs,
        Spill(folder, "met", MET, "key") as met,
        Spill(folder, "lost", LOST) as lost,
    ):
        partitions = None if topic is None else len(topic.partitions)
        with shown_progress("reading the outbox", bounds.end - bounds.start) as advance:
            check_outbox(log, bounds, ours, partitions, advance).tell(findings)
        if topic is not None:
            with shown_progress("reading the topic", total(ends)) as advance:
                check_topic(topic, ends, theirs, advance).tell(findings)
        with shown_progress("comparing", 2 * FILES) as advance:
            matched = match(ours, theirs, met, lost, position, advance)
            lowest = check_order(met, matched, advance)
        cut = {place: lowest.get(place) for place, each in ends.items() if each.start}
        tell_lost(lost, matched, cut, offsets_set_aside(log.path, log.log_id))
        _tell(matched, shipped, bounds, findings)


def _tell(matched: Matched, shipped: Shipped | None, bounds: Bounds, findings: Findings) -> None:
    matched.tell(findings, shipped=None if shipped is None else shipped.offset)
    if shipped is not None and shipped.offset > bounds.end:
        findings.fault(f"the outbox ends at {bounds.end}, before the shipped position {shipped.offset}")


def _shipped(log: OutboxFile, others: Others) -> Shipped:
    """Returns how much of the log the topic must have; nothing where nothing was shipped yet."""
    assert others.topic is not None
    found = read_shipped(log.path)
    if found is None:
        return Shipped(
            log_id=log.log_id,
            offset=0,
            topic=others.topic_name,
            partitions=len(others.topic.partitions),
            cluster="",
        )
    wanted = (log.log_id, others.topic_name, len(others.topic.partitions))
    got = (found.log_id, found.topic, found.partitions)
    for what, expected, came in zip(("log", "topic", "number of partitions"), wanted, got, strict=True):
        if expected != came:
            raise LogbookError(
                f"{log.path}.shipped: expected the position of {what} {expected}, got that of {came}: "
                "this log was not shipped there"
            )
    return found
