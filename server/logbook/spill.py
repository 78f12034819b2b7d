"""Records of a fixed size that need not fit into memory: in files by the first bits of their digest.

Records with the same digest meet in the same file, so each file is sorted by itself: 50 million events of 64 bytes are
3.2 GB of disk and 50 MB of memory at a time.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

FILES: Final = 64
_SHIFT: Final = np.uint64(64 - 6)
_BUFFER: Final = 64 * 1024

Records = NDArray[np.void]

PLACED: Final = np.dtype(
    [
        ("high", "<u8"),  # of the event's id
        ("low", "<u8"),
        ("line", "<u8"),  # of the event's bytes
        ("key", "<u8"),  # of the request's id
        ("place", "<i8"),  # its offset
        ("partition", "<i4"),  # where it belongs in the outbox, where it is in the topic; -1 where that is not known
        ("answer", "?"),  # whose id the server made, so that it is there once
        ("forgotten", "?"),  # what it said was removed later
    ]
)


class Placed(NamedTuple):
    """An event by its digests, and where it is; see PLACED."""

    high: int
    low: int
    line: int
    key: int
    place: int
    partition: int
    answer: bool
    forgotten: bool


class Spill:
    """Records in files of a folder, which is the caller's to remove. To be used in a ``with`` statement."""

    def __init__(self, folder: Path, name: str, dtype: np.dtype[Any] = PLACED, by: str = "high") -> None:
        """folder: takes the files; name: of this set of them; dtype: of a record; by: its member that decides."""
        self._paths = [folder / f"{name}-{number}" for number in range(FILES)]
        self._dtype = dtype
        self._by = by
        self._open = ExitStack()
        self._files = [self._open.enter_context(open(path, "wb", _BUFFER)) for path in self._paths]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.close()

    def add(self, records: Sequence[tuple[Any, ...]] | Records) -> None:
        """Takes records, tuples of the type's members or an array of it."""
        array = np.array(records, self._dtype)
        files = (array[self._by] >> _SHIFT).astype(np.intp)
        order = np.argsort(files, kind="stable")
        array, cuts = array[order], np.searchsorted(files[order], np.arange(FILES + 1))
        for file, start, end in zip(self._files, cuts[:-1], cuts[1:], strict=True):
            if start < end:
                file.write(array[start:end].tobytes())

    def read(self) -> Iterator[Records]:
        """Yields the records of file after file; nothing may be added from then on."""
        self._open.close()
        for path in self._paths:
            yield np.fromfile(path, self._dtype)


def id_digest(text: str) -> tuple[int, int]:
    """Returns 128 bits of an id: of 50 million no two are alike by chance, but once in 10^23 logs."""
    digest = blake2b(text.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8]), int.from_bytes(digest[8:])


def digest(content: bytes) -> int:
    """Returns 64 bits of bytes that are compared with those under the same id only, or of a request's id."""
    return int.from_bytes(blake2b(content, digest_size=8).digest())
