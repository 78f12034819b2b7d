"""Bundles in a local folder, ``MODELS/<model>/<version>/``; they are read where they are."""

import os
import stat
from pathlib import Path

from server.bundles.completeness import shortfall
from server.bundles.names import check_version, is_bundle_name
from server.contract.manifest import MANIFEST_FILE
from server.errors import BundleError, SettingsError, StoreError


class FolderStore:
    """A folder of bundles. Symbolic links may lead anywhere below it, and nowhere else."""

    def __init__(self, folder: Path) -> None:
        """Raises SettingsError when there is no such folder."""
        if not folder.is_dir():
            raise SettingsError(f"models {folder}: expected a folder of bundles, found none")
        self.folder = self._folder = folder
        self.where = str(folder)

    def versions(self) -> dict[str, list[str]]:
        """Returns the versions of every model; a model whose folder may not be read has none.

        Raises:
            StoreError: the folder itself cannot be listed.
        """
        try:
            models = _folders(self._folder)
        except OSError as error:
            raise StoreError(f"models {self.where}: expected a folder that can be listed, got: {error}") from error
        found = {}
        for model in models:
            try:
                versions = _folders(self._folder / model)
            except OSError:  # such as the lost+found of a file system; whose versions serve, go on serving
                continue
            if versions:
                found[model] = versions
        return found

    def fetch(self, model: str, version: str) -> Path:
        """Returns the version's own folder, or raises BundleError."""
        folder = self._of(model, version)
        self._files(folder)
        return folder

    def fingerprint(self, model: str, version: str) -> tuple[object, ...] | None:
        """Returns names, sizes and times of a version's files, None when it is gone."""
        folder = self._of(model, version)
        try:
            with os.scandir(folder) as entries:
                return tuple(sorted(_stamp(entry) for entry in entries))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unreadable(folder, error) from error

    def missing(self, model: str, version: str) -> str | None:
        """Returns why a version is not complete yet, None when by its files' sizes it is."""
        folder = self._of(model, version)
        try:
            sizes = self._files(folder)
            manifest = (folder / MANIFEST_FILE).read_bytes()
        except BundleError as error:
            return str(error)
        except OSError as error:
            return str(_unreadable(folder / MANIFEST_FILE, error))
        return shortfall(str(folder), manifest, sizes)

    def _of(self, model: str, version: str) -> Path:
        check_version(model, version)
        return self._folder / model / version

    def _files(self, folder: Path) -> dict[str, int]:
        """Returns the sizes of a bundle's files, or raises BundleError where one lies outside the store."""
        try:
            self._check_inside(folder)
            sizes = {}
            for path in sorted(folder.iterdir()):
                self._check_inside(path)
                status = path.stat()
                if stat.S_ISREG(status.st_mode):
                    sizes[path.name] = status.st_size
                elif not stat.S_ISDIR(status.st_mode):  # to read a pipe would wait for ever
                    raise BundleError(f"{path}: expected a regular file, got a device, pipe or socket")
        except OSError as error:
            raise _unreadable(folder, error) from error
        return sizes

    def _check_inside(self, path: Path) -> None:
        """Refuses what a symbolic link takes out of the store: a bundle may not make the server read other files."""
        try:
            inside = path.resolve().is_relative_to(self._folder.resolve())
        except RuntimeError as error:  # links in a circle, before Python 3.13
            raise BundleError(f"{path}: expected a file, got symbolic links in a circle") from error
        if not inside:
            raise BundleError(f"{path}: expected a file below {self.where}, got a symbolic link that leads out of it")


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_bundle_name(entry.name) and _is_folder(entry))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # such as symbolic links in a circle, which must not hide their neighbours
        return False


def _stamp(entry: os.DirEntry[str]) -> tuple[str, int, int, int]:
    """Returns what differs when a file does; of one that has just gone, or a link to nowhere, its name alone."""
    try:
        status = entry.stat()
    except OSError:
        return entry.name, -1, -1, -1
    return entry.name, status.st_size, status.st_mtime_ns, status.st_ino


def _unreadable(path: Path, error: OSError) -> BundleError:
    return BundleError(f"{path}: expected a readable file or folder, got: {error.strerror}")
