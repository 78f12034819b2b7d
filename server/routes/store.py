"""Where a server's routes are: beside its bundles, in a folder of their own, or behind a URL to be read only."""

from collections.abc import Sequence
from typing import Protocol

from server.bundles.folder_store import FolderStore
from server.bundles.remote_store import RemoteStore
from server.bundles.store import BundleStore
from server.errors import ConflictError, RouteError
from server.routes.folder import History, RouteFolder
from server.routing.revision import Revision
from server.routing.wanted import Document
from server.settings import Settings


class RouteStore(Protocol):
    """Documents and histories of models' routes. Any method may block.

    ``remote``: it is behind a URL and should be asked less often than a folder.
    """

    remote: bool

    def read(self, model: str) -> tuple[Document, Revision | None]:
        """Returns a model's document and its newest revision."""
        ...

    def stamp(self, model: str) -> object:
        """Returns what differs when ``read`` would return something else; None where only reading tells."""
        ...

    def append(self, revision: Revision, seen: Document) -> None:
        """Makes a revision of the document that was seen hold, or raises StaleRouteError, RouteStoreError or
        ConflictError."""
        ...

    def accept(self, revisions: Sequence[Revision]) -> list[Revision]:
        """Takes over revisions that hold elsewhere, and returns those that are new here; or raises RouteStoreError."""
        ...

    def history(self, model: str) -> History:
        """Returns a model's revisions, or raises RouteStoreError."""
        ...

    def mark_audited(self, revision: Revision) -> None:
        """Notes that a revision's audit event is in the log, or raises RouteStoreError."""
        ...


class RemoteRoutes:
    """Documents beside the bundles of a URL: whoever can write there changes them, this server does not."""

    remote = True

    def __init__(self, store: RemoteStore) -> None:
        self._store = store

    def read(self, model: str) -> tuple[Document, Revision | None]:
        """Returns a model's document; it has no revisions."""
        try:
            return self._store.read_route(model), None
        except RouteError as error:
            return error, None

    def stamp(self, model: str) -> None:
        """Returns None: only reading tells."""

    def append(self, revision: Revision, seen: Document) -> None:
        """Raises ConflictError."""
        raise ConflictError(
            f"model {revision.model!r}: expected a server that keeps routes in a folder, this one reads them from "
            f"{self._store.where}: change the document there, or name a folder with the setting `routes`"
        )

    def accept(self, revisions: Sequence[Revision]) -> list[Revision]:
        """Returns nothing: there is no place for them."""
        return []

    def history(self, model: str) -> History:
        """Returns an empty history."""
        return History([], set())

    def mark_audited(self, revision: Revision) -> None:
        """Does nothing."""


def open_routes(settings: Settings, store: BundleStore) -> RouteStore:
    """Returns the routes of a server, by its settings ``routes`` and ``models``."""
    if settings.routes is not None:
        return RouteFolder(settings.routes)
    if isinstance(store, FolderStore):
        return RouteFolder(store.folder, of_bundles=True)
    assert isinstance(store, RemoteStore)  # the two that open_store makes
    return RemoteRoutes(store)
