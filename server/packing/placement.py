"""Where a bundle goes: names, version numbers, and a folder that appears whole or not at all."""

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from server.packing.errors import PlacementError

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


def choose_folder(out: Path, model: str, version: str | None) -> Path:
    """Returns the folder of a new bundle, which is not there yet.

    Args:
        out: the repository of bundles.
        model: its name.
        version: None is one more than the highest number there.

    Raises:
        PlacementError: a name that no folder can have, a version that is there, or a repository
            that cannot be read.
    """
    check_name("model", model)
    if version is not None:
        check_name("version", version)
    folder = out / model / (version or next_version(out / model))
    check_free(folder)
    return folder


def check_name(what: str, name: str) -> None:
    """Raises PlacementError unless the name can be a folder and a part of a URL."""
    if not _NAME.fullmatch(name):
        raise PlacementError(
            f"the {what} {name!r}: expected 1 to 128 letters, digits, '-', '_' or '.', not starting with a dot"
        )


def next_version(folder: Path) -> str:
    """Returns one more than the highest number among a model's versions, "1" when there is none.

    Raises:
        PlacementError: the folder cannot be read.
    """
    try:
        present = [entry.name for entry in folder.iterdir()] if folder.exists() else []
    except OSError as error:
        raise PlacementError(f"cannot read {folder}: {error.strerror}") from error
    return str(1 + max((int(name) for name in present if name.isascii() and name.isdigit()), default=0))


def check_free(folder: Path) -> None:
    """Raises PlacementError when the version is there already: bundles never change."""
    if folder.exists():
        raise PlacementError(f"{folder} exists already, and bundles never change; choose another --version")


def write_bundle(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes the files and makes them appear as ``folder`` at once, safe from a crash half-way.

    Raises:
        PlacementError: the folder exists, or the disk refuses.
    """
    check_free(folder)
    staging: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target, since only a rename within a file system is atomic; the dot hides it from servers.
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        for name, content in files.items():
            with (staging / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        staging.chmod(0o755)  # mkdtemp's folders are their owner's alone; a server may be another user
        _sync_folder(staging)
        staging.rename(folder)
        _sync_folder(folder.parent)
    except OSError as error:
        raise PlacementError(f"cannot write {folder}: {error.strerror}") from error
    finally:
        if staging is not None and staging.exists():
            shutil.rmtree(staging, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
