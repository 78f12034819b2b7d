"""A clock that jumps and a disk that is slow or fails: a library that one server loads before the C library."""

import mmap
import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.faults.unavailable import UnavailableError

_SOURCE = Path(__file__).with_name("faulty_libc.c")
_WORDS = struct.Struct("=4q")


class FaultyLibc:
    """What the library is told; it obeys within the next call.

    Args:
        folder: takes the library and the file that it is told by.
        path: begins the names of the files whose disk it is.

    Raises:
        UnavailableError: there is no C compiler here, or its library cannot be preloaded.
    """

    def __init__(self, folder: Path, path: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            raise UnavailableError("cc: expected a C compiler, got none")
        self._library = folder / "faulty_libc.so"
        command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(self._library), str(_SOURCE), "-ldl"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise UnavailableError(f"cc cannot compile {_SOURCE.name}: {done.stderr.strip()[-500:]}")
        self._path = path
        self._control = folder / "faulty_libc.control"
        self._control.write_bytes(bytes(_WORDS.size))
        with self._control.open("r+b") as file:
            self._words = mmap.mmap(file.fileno(), _WORDS.size)

    def settings(self) -> Mapping[str, str]:
        """Returns the variables that a server must be started with."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAULTY_CONTROL": str(self._control),
            "FAULTY_PATH": str(self._path),
        }

    def tell(self, clock_s: float = 0.0, write_s: float = 0.0, sync_s: float = 0.0, error: int = 0) -> None:
        """Says what holds from now on; without arguments that all is well.

        Args:
            clock_s: how far the wall clock is from the true time.
            write_s: how much longer a write takes.
            sync_s: how much longer a sync takes.
            error: the errno that writes and syncs fail with, 0 for none.
        """
        words = (round(clock_s * 1e9), round(write_s * 1e6), round(sync_s * 1e6), error)
        self._words[:] = _WORDS.pack(*words)
