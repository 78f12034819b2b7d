"""The right to erasure where no server has the log open: through the one writer, for as long as it takes."""

import asyncio
from datetime import UTC, datetime

from server.audit import forget_line
from server.errors import OutboxError
from server.eventlog.erasure import Found, Order, erase_set_aside
from server.eventlog.outbox import Outbox
from server.logbook.errors import LogbookError
from server.logbook.forget_client import Forgot
from server.settings import Settings


def forget_here(settings: Settings, order: Order, found: Found, by: str, reason: str | None) -> Forgot:
    """Removes what was found from the log, after an audit event that says so.

    Args:
        settings: name the log, and how it is written.
        order: how it was found.
        found: what to forget.
        by: whose account this is.
        reason: why.

    Raises:
        LogbookError: a server has the log open.
        OutboxError: the disk refuses, or somebody keeps the journal from being emptied.
    """
    after = {"events": found.events, "requests": len(found.requests), "column": order.column}
    line = forget_line(by, reason, after, datetime.now(UTC))
    try:
        outbox = Outbox(settings.outbox, settings.events)
    except OutboxError as error:
        raise LogbookError(f"{error}; name the server with --url, or stop it first") from error

    async def forget() -> None:
        await outbox.append_durably([line])
        await outbox.forget(found, compact=True)

    try:
        asyncio.run(forget())
    finally:
        outbox.close()
    return Forgot(
        requests=len(found.requests),
        events=found.events,
        shipped=found.shipped,
        set_aside=erase_set_aside(settings.outbox, found),
        damaged=found.damaged,
        dry_run=False,
    )
