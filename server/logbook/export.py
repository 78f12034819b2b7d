"""Events on their way from a log to a file, a batch in memory at a time."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from server.contract.events import decode_event
from server.logbook.export_file import ExportFile, export_file
from server.logbook.outbox_file import OutboxFile
from server.logbook.progress import shown_progress
from server.logbook.records import Topic, total
from server.logbook.selection import Selection


@dataclass(slots=True)
class Exported:
    """How many events were written, and how many lines were none."""

    events: int = 0
    malformed: int = 0


def export_outbox(log: OutboxFile, selection: Selection, out: Path) -> Exported:
    """Writes the wanted events that the log has now to a file.

    Raises:
        OutboxError: the log cannot be read, or a chunk of it is damaged.
        LogbookError: the file cannot be written.
    """
    exported = Exported()
    start, end = log.bounds()
    with export_file(out) as file, shown_progress("exporting", end - start) as advance:
        for offset, line in log.lines(start):
            if offset >= end:
                break
            _export(line, selection, file, exported)
            if not offset % _STEP:
                advance(_STEP)
    return exported


def export_topic(topic: Topic, selection: Selection, out: Path) -> Exported:
    """Writes the wanted events that a topic has now to a file, see above; partition by partition in their order."""
    exported = Exported()
    bounds = topic.bounds()
    starts, ends = ({place: each[side] for place, each in bounds.items()} for side in (0, 1))
    with export_file(out) as file, shown_progress("exporting", total(bounds)) as advance:
        for batch in topic.read(starts, ends):
            for record in batch:
                _export(record.value or b"", selection, file, exported)
            advance(len(batch))
    return exported


_STEP = 1000


def _export(line: bytes, selection: Selection, file: ExportFile, exported: Exported) -> None:
    try:
        event = decode_event(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        exported.malformed += 1
        return
    if selection.takes(event):
        file.add(line, event)
        exported.events += 1
