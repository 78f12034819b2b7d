"""Where bundles come from: a folder, or a URL whose bundles are kept in a local cache."""

from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from server.bundles.folder_store import FolderStore
from server.bundles.remote_store import RemoteStore
from server.errors import SettingsError


class BundleStore(Protocol):
    """Bundles by model and version. Any method raises BundleError when the store cannot be reached.

    Methods that take names raise UnknownModelError for those that could leave the store. ``where``
    names the store in messages, without any secret of its URL.
    """

    where: str

    def versions(self) -> dict[str, list[str]]:
        """Returns the versions of every model, complete or not."""
        ...

    def fetch(self, model: str, version: str) -> Path:
        """Returns a local folder ``<model>/<version>`` that holds the bundle.

        Raises:
            BundleError: it is not there, cannot be had, or is damaged.
        """
        ...

    def fingerprint(self, model: str, version: str) -> tuple[object, ...] | None:
        """Returns what differs when any of a version's files does, read from no file; None when it is gone."""
        ...

    def missing(self, model: str, version: str) -> str | None:
        """Returns why a version is not complete yet, None when by its files' sizes it is."""
        ...


def open_store(models: str, cache: Path) -> BundleStore:
    """Returns the store at a path, a ``file://`` URL, or a URL that fsspec knows.

    Args:
        models: the setting of that name.
        cache: the folder that keeps the bundles of a URL.

    Raises:
        SettingsError: no such folder, a URL that cannot be used, or the extra ``remote`` is not installed.
    """
    if "://" not in models:
        return FolderStore(Path(models))
    url = urlsplit(models)
    if url.scheme == "file":
        if url.netloc not in ("", "localhost"):
            raise SettingsError(f"models {models}: expected file:///FOLDER, got a URL that names a host")
        return FolderStore(Path(unquote(url.path)))
    return RemoteStore(models, cache)
