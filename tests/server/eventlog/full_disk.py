"""A disk that is full for a log alone: the limit of pages of its own connection."""

from typing import Any

from server.eventlog.outbox import Outbox


class _Limited:
    """A writer's connection, whose limit is changed by the thread that writes.

    sqlite3 asks the connection what a failed statement failed with: a statement of another thread in between would
    make it a success.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.pages: int | None = None

    def execute(self, *arguments: Any) -> Any:
        if self.pages is not None:
            pages, self.pages = self.pages, None
            self._connection.execute(f"PRAGMA max_page_count = {pages}")
        return self._connection.execute(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def limit_pages(log: Any, pages: int) -> None:
    """Gives an outbox's file room for so many pages from its next statement on: beyond them the disk is full."""
    assert isinstance(log, Outbox)
    if not isinstance(log._connection, _Limited):
        log._connection = _Limited(log._connection)  # type: ignore[assignment]  # all of one that the writer uses
    log._connection.pages = pages  # type: ignore[attr-defined]  # it is limited
