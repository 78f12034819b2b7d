"""A real file system of a few megabytes, which can be full."""

import errno
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.unavailable import ForbiddenError, UnavailableError

_BLOCK = bytes(64 * 1024)


class SmallDisk:
    """A mounted file system with a file of ours beside the log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leaves no room at all."""
        with self._filler.open("ab", buffering=0) as file:
            for block in (_BLOCK, _BLOCK[:4096], _BLOCK[:1]):
                try:
                    while file.write(block) == len(block):
                        pass
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self) -> None:
        """Gives the room back."""
        self._filler.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """Mounts a file system in memory on a folder, and takes it away in the end.

    Raises:
        UnavailableError: there is no command to mount with, or this process may not (ForbiddenError).
    """
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tiltyard-faults", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise UnavailableError("mount: expected the command, got none") from error
    if done.returncode != 0:
        raise ForbiddenError(f"expected to be allowed to mount a small disk, got: {done.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)
