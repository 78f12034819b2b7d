"""What a monitor finds that nothing happens to: the measure of all others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from monitor.app import Monitor
from monitor.settings import load
from server.eventlog.outbox import Outbox
from server.settings import EventSettings
from tests.faults.commands import JOIN, PANES
from tests.faults.models import MODEL
from tests.patience import until


def findings_over(folder: Path, models: Path, lines: Sequence[bytes]) -> Any:
    """Returns all findings over a log of just these lines, read once from its beginning.

    Args:
        folder: takes the log; made here.
        models: the bundles.
        lines: the log's events. What is found does not depend on the panes' late events, so any order of
            requests will do, as long as each request's own events keep theirs.
    """
    folder.mkdir()
    outbox = Outbox(folder / "outbox.db", EventSettings(queue_bytes=1024**3))
    for line in lines:
        outbox.append(line)
    outbox.close()
    flags = {"models": models, "outbox": folder / "outbox.db", "pane": PANES, "join": JOIN}
    with Monitor(load(flags, config=Path("/dev/null")), "http://127.0.0.1") as monitor:
        until(lambda: monitor.consumer.failure or monitor.consumer.progress.offset == len(lines), "the whole log")
        assert monitor.consumer.failure is None, monitor.consumer.failure
        return msgspec.json.decode(msgspec.json.encode(monitor.findings.model(MODEL, 1_000_000)))
