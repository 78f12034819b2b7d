"""A server's counters held against its outbox, while both may move.

Counters are read before and after the outbox. When they are the same both times and nothing waits, the server was at
rest and the balance is exact:

    answers + labels + audits = logged + dropped (+ any other outcome)
    logged = events of the outbox since the server opened it

Otherwise two inequalities hold, as every counter only grows and an event is counted before it has an outcome:

    made before <= outcomes after + waiting after
    logged before <= events in the outbox since then <= logged after + waiting after
"""

from dataclasses import dataclass

from server.contract.log_schema import META_OPENED, META_OPENED_OFFSET
from server.logbook.errors import LogbookError
from server.logbook.findings import Findings
from server.logbook.outbox_file import OutboxFile
from server.logbook.server_counters import Counters


@dataclass(frozen=True, slots=True)
class Opening:
    """When the present writer, or the last one, opened the outbox: the time, and the offset it began at."""

    at_ms: int
    offset: int


def opening_of(log: OutboxFile) -> Opening:
    """Returns where the present writer's events begin.

    Raises:
        LogbookError: it is of a version that did not say so.
    """
    offset = log.meta(META_OPENED_OFFSET)
    if offset is None:
        raise LogbookError(
            f"outbox {log.path}: expected to find where its server began, got a log of an older Tiltyard"
        )
    return Opening(int(log.meta(META_OPENED) or 0), int(offset))


def check_server(before: Counters, after: Counters, opened: Opening, reopened: bool, end: int) -> Findings:
    """Returns the lines and faults of a server's balance.

    Args:
        before: counted before the outbox was read.
        after: counted after that.
        opened: where the events of this server's run begin.
        reopened: whether the outbox was opened again in between: then no counter says anything.
        end: of the outbox, as it was read.
    """
    findings = Findings()
    if reopened:
        findings.fault("the server was started again while its log was read: its counters began anew, verify again")
        return findings
    findings.note("answers, shadows included", after.answers, "counted by the server since its start")
    findings.note("labels accepted", after.labels)
    findings.note("changes told", after.audits)
    for outcome in sorted(after.outcomes, key=lambda name: (name != "logged", name)):
        findings.note(f"events {outcome}", after.outcomes[outcome])
    findings.note("events waiting", after.waiting)
    in_outbox = end - opened.offset
    has = f"the outbox has {in_outbox} events since its start"
    findings.note("in the outbox since the server's start", in_outbox, f"offsets {opened.offset} to {end}")
    surplus = after.settled + after.waiting - after.made
    if before == after and not after.waiting:
        findings.note("at rest", 1, "answers + labels + changes = events by outcome; logged = in the outbox")
        if surplus < 0:
            findings.fault(f"{-surplus} answers, labels or changes are neither in the log nor counted as dropped")
        if surplus > 0:
            refused = f"{after.refused_labels} feedback requests were answered 503"
            why = refused if after.refused_labels else "a worker died before it counted them"
            findings.note("events beyond what was counted", surplus, why)
        if after.logged != in_outbox:
            findings.fault(f"the server counts {after.logged} events logged, {has}")
        return findings
    findings.note("moving", 1, "made before <= outcomes + waiting after; logged before <= in the outbox <= after")
    lost = before.made - after.settled - after.waiting
    if lost > 0:
        findings.fault(f"{lost} answers, labels or changes are neither in the log nor counted as dropped")
    if in_outbox < before.logged:
        findings.fault(f"the server had counted {before.logged} events logged, {has}")
    if in_outbox > after.logged + after.waiting:
        findings.fault(f"the server counts {after.logged} events logged and {after.waiting} waiting, {has}")
    return findings
