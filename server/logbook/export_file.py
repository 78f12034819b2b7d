"""Files that events are exported to: Parquet for tables, NDJSON for everything else.

A file is written under another name and renamed when it is whole: what is there under its own name is complete.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from server.contract.events import Event
from server.logbook.errors import LogbookError
from server.logbook.event_row import EventRow, event_row

GROUP_ROWS: Final = 50_000
"""Events of one row group of Parquet at most: what is held in memory at a time."""

GROUP_BYTES: Final = 32 * 1024 * 1024
"""Their lines' bytes at most, so that large inputs do not fill it either."""


class ExportFile(Protocol):
    """A file that takes events."""

    def add(self, line: bytes, event: Event) -> None:
        """Takes one event, as its line and decoded."""
        ...

    def close(self) -> None:
        """Writes what it still holds and ends."""
        ...


@contextmanager
def export_file(path: Path) -> Iterator[ExportFile]:
    """Gives a file of the kind that its name ends in; it is there under its name once the context ends well.

    Raises:
        LogbookError: another ending, pyarrow is missing, or the disk refuses it.
    """
    kind = path.suffix.lower()
    if kind not in (".parquet", ".ndjson"):
        raise LogbookError(f"expected a file named *.parquet or *.ndjson, got {path}")
    if kind == ".parquet" and not _has_pyarrow():
        raise LogbookError(
            f"{path}: expected pyarrow to write Parquet, got none; run: pip install 'tiltyard[log]', or export *.ndjson"
        )
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with open(unfinished, "xb") as stream:
            file: ExportFile = _Parquet(stream) if kind == ".parquet" else _Ndjson(stream)
            try:
                yield file
            finally:
                file.close()  # pyarrow must not do so by itself once the stream is gone
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise LogbookError(f"{path}: expected a file that can be written, got: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)


class _Ndjson:
    """The events' own bytes, one a line."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def add(self, line: bytes, event: Event) -> None:
        self._stream.write(line + b"\n")

    def close(self) -> None:
        return


class _Parquet:
    """A table of ``EventRow``, in row groups."""

    def __init__(self, stream: Any) -> None:
        import pyarrow.parquet  # optional extra `log`

        self._schema = _schema()
        self._columns: list[list[Any]] = [[] for _ in self._schema]
        self._bytes = 0
        self._writer = pyarrow.parquet.ParquetWriter(stream, self._schema, compression="zstd")

    def add(self, line: bytes, event: Event) -> None:
        for column, value in zip(self._columns, msgspec.structs.astuple(event_row(event)), strict=True):
            column.append(value)
        self._bytes += len(line)
        if self._bytes >= GROUP_BYTES or len(self._columns[0]) >= GROUP_ROWS:
            self._write()

    def close(self) -> None:
        if self._columns[0]:
            self._write()
        self._writer.close()

    def _write(self) -> None:
        import pyarrow  # optional extra `log`

        arrays = [
            pyarrow.array(column, type=field.type) for column, field in zip(self._columns, self._schema, strict=True)
        ]
        self._writer.write_table(pyarrow.Table.from_arrays(arrays, schema=self._schema))
        self._columns = [[] for _ in self._schema]
        self._bytes = 0


def _schema() -> Any:
    """Returns the table's schema: integers are int64, times microseconds in UTC, the rest text, float64 or bool."""
    import pyarrow  # optional extra `log`

    types = {
        "time": pyarrow.timestamp("us", tz="UTC"),
        **dict.fromkeys(("revision", "status", "latency_us", "rows", "row", "weight"), pyarrow.int64()),
        **dict.fromkeys(("share", "bucket", "propensity", "reward"), pyarrow.float64()),
        "forgotten": pyarrow.bool_(),
    }
    always = ("event_id", "request_id", "type", "time")
    return pyarrow.schema(
        [
            pyarrow.field(name, types.get(name, pyarrow.string()), nullable=name not in always)
            for name in EventRow.__struct_fields__
        ]
    )


def _has_pyarrow() -> bool:
    try:
        import pyarrow.parquet  # noqa: F401  # optional extra `log`
    except ImportError:
        return False
    return True
