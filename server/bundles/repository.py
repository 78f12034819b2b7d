"""Which models and versions there are, and which of them serve.

The repository knows folders and states; how a folder becomes something that answers is the
``load`` callable's business.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from server.errors import BundleError, NotReadyError, SettingsError, UnknownModelError

logger = logging.getLogger(__name__)

V = TypeVar("V")


class Repository(Generic[V]):
    """The versions of all models, each loaded or kept with the reason why not."""

    def __init__(self, root: Path, load: Callable[[Path], V]) -> None:
        """root: the folder MODELS; load: returns a version from its folder or raises BundleError."""
        self._root = root
        self._load = load
        self._versions: dict[str, dict[str, V | BundleError]] = {}

    def load_all(self) -> None:
        """Loads every version found. One that fails is kept with its reason while the others serve.

        Raises:
            SettingsError: the folder of models is not there.
        """
        if not self._root.is_dir():
            raise SettingsError(f"models {self._root}: expected a folder of bundles, found none")
        for folder in _bundle_folders(self._root):
            versions = self._versions.setdefault(folder.parent.name, {})
            try:
                versions[folder.name] = self._load(folder)
            except BundleError as error:
                versions[folder.name] = error
                logger.error("refused %s version %s: %s", folder.parent.name, folder.name, error)
        if not self._versions:
            logger.warning("models %s: found no bundle; every prediction will be answered 404", self._root)

    def models(self) -> list[str]:
        """Returns the names of all models, those without a serving version included."""
        return sorted(self._versions)

    def versions(self, model: str) -> list[str]:
        """Returns a model's versions that serve, oldest first, or raises UnknownModelError."""
        found = self._of(model)
        return sorted(
            (name for name, version in found.items() if not isinstance(version, BundleError)), key=version_key
        )

    def known(self, model: str) -> list[str]:
        """Returns all of a model's versions, the refused ones included, or raises UnknownModelError."""
        return sorted(self._of(model), key=version_key)

    def get(self, model: str, version: str) -> V:
        """Returns a version that serves.

        Raises:
            UnknownModelError: no such model or version.
            NotReadyError: the version is there but was refused.
        """
        found = self._of(model)
        if version not in found:
            raise UnknownModelError(
                f"model {model!r} has no version {version!r}: expected one of {sorted(found, key=version_key)}"
            )
        entry = found[version]
        if isinstance(entry, BundleError):
            raise NotReadyError(f"model {model!r} version {version!r} does not serve: its bundle was refused")
        return entry

    def _of(self, model: str) -> dict[str, V | BundleError]:
        try:
            return self._versions[model]
        except KeyError:
            raise UnknownModelError(f"model {model!r} is unknown: expected one of {self.models()}") from None


def version_key(version: str) -> tuple[int, int, str]:
    """Returns a sort key that puts numbers in their order, before all other names."""
    return (0, int(version), "") if version.isdecimal() else (1, 0, version)


def _bundle_folders(root: Path) -> Iterator[Path]:
    for model in sorted(root.iterdir()):
        if model.is_dir() and not model.name.startswith("."):
            for version in sorted(model.iterdir()):
                if version.is_dir() and not version.name.startswith("."):
                    yield version
