"""What a log holds on a request, found and removed for good, while offsets and ids stay.

An event that is to be forgotten keeps its place, its own id, its time and what counts need: model, version, role,
status, latency, rows. What was asked and answered goes, and so do the label, the bucket (which repeats the unit) and
the request's id, in whose place another is put that all events of the request share and nobody can derive.
"""

import os
import sqlite3
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from server.contract.events import AUDIT_TYPE, Answer, Event, Label, decode_event, encode_event
from server.contract.log_schema import SELECT_CHUNKS
from server.errors import OutboxError
from server.eventlog.log_reader import open_log
from server.eventlog.set_aside import SetAside, set_aside_file
from server.eventlog.shipped import read_shipped

FORGOTTEN: Final = "forgotten"
# In place of a line that is of the request, but no event that this version knows.
_NO_EVENT: Final = b'{"forgotten":true}'
_CHUNKS: Final = 8
# A reader is in the way of emptying the journal for as long as one of its reads takes.
_TRIES: Final = 10
_AGAIN_S: Final = 0.5
_AUDIT: Final = AUDIT_TYPE.decode().strip('"')
_FLOATS: Final = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64}


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose events are to be forgotten: those of requests by their ids, and of all requests with a value in a column.

    ``column`` is the name of an input tensor, ``value`` what one of its elements is, as text.
    """

    ids: list[str] = []
    column: str | None = None
    value: str | None = None

    @property
    def fault(self) -> str | None:
        """What is wrong with it, None where nothing is."""
        if (self.column is None) != (self.value is None):
            return "expected column and value together, got one of them"
        if not self.ids and self.column is None:
            return "expected ids of requests, or a column and a value, got neither"
        if "" in self.ids:
            return "expected ids of requests, got an empty one"
        return None


class Found(msgspec.Struct, kw_only=True):
    """What an order hits: requests, events, and the first offsets of the chunks that hold them.

    ``shipped`` is how many of the events a Kafka topic has as well; ``damaged`` how many chunks could not be searched.
    """

    requests: list[str] = []
    chunks: list[int] = []
    events: int = 0
    shipped: int = 0
    damaged: int = 0


class _Subject(msgspec.Struct):
    """As much of an event as tells whose it is."""

    type: str
    subject: str


_subject_decoder = msgspec.json.Decoder(_Subject)


def find(path: Path, order: Order) -> tuple[Found, Iterator[tuple[int, bytes]]]:
    """Returns what an order hits, and an iterator over the offsets and lines of the events.

    Reads the whole log, twice where a column is named: a label has its request's id, and no column.

    Raises:
        OutboxError: the log cannot be read.
    """
    found = Found()
    wanted = set(order.ids)
    if order.column is not None and order.value is not None:
        wanted |= _with_value(path, order.column, order.value)
    shipped = read_shipped(path)
    position = 0 if shipped is None else shipped.offset
    requests: set[str] = set()
    for first, lines in _chunks(path):
        if lines is None:
            found.damaged += 1
            continue
        mine = [(first + place, subject) for place, line in enumerate(lines) if (subject := _subject(line)) in wanted]
        if mine:
            found.chunks.append(first)
            found.events += len(mine)
            found.shipped += sum(offset < position for offset, _ in mine)
            requests.update(subject for _, subject in mine if subject is not None)
    found.requests = sorted(requests)
    return found, _lines(path, found)


def erase(connection: sqlite3.Connection, found: Found, *, compact: bool = False) -> None:
    """Puts into the place of every event found one that says it was forgotten, and removes the bytes of the former.

    Args:
        connection: of the log's writer, in autocommit mode.
        found: what to forget.
        compact: write the whole file anew, so that nothing is left of what was trimmed from it earlier either.

    Raises:
        sqlite3.Error: the disk refuses; what is done is done, and the rest can be found again.
        OutboxError: somebody reads the journal all the time, so that it cannot be emptied.
    """
    aliases = {request: f"{FORGOTTEN}-{uuid.uuid4()}" for request in found.requests}
    (usual,) = connection.execute("PRAGMA secure_delete").fetchone()
    connection.execute("PRAGMA secure_delete = ON")  # zeros in place of what is deleted, in the log's own pages
    try:
        for first in found.chunks:
            row = connection.execute("SELECT payload, crc32 FROM chunks WHERE first_offset = ?", (first,)).fetchone()
            if row is None or zlib.crc32(row[0]) != row[1]:  # trimmed, or damaged, since it was found
                continue
            payload = b"".join(_without(line, aliases) + b"\n" for line in row[0].split(b"\n")[:-1])
            connection.execute(
                "UPDATE chunks SET payload = ?, crc32 = ? WHERE first_offset = ?", (payload, zlib.crc32(payload), first)
            )
        if compact:
            connection.execute("VACUUM")
        _empty_journal(connection)
    finally:
        connection.execute(f"PRAGMA secure_delete = {usual}")


def erase_set_aside(path: Path, found: Found) -> int:
    """Removes what was set aside of the requests, as no broker takes it, from the file beside the log.

    The bytes are written over where they are: whoever appends meanwhile loses nothing.

    Args:
        path: of the log.
        found: the requests.

    Returns:
        How many entries there were.

    Raises:
        OutboxError: the disk refuses.
    """
    file = set_aside_file(path)
    requests = set(found.requests)
    count = 0
    try:
        with file.open("r+b") as entries:
            place = 0
            for entry in entries.read().splitlines(keepends=True):
                kept = msgspec.json.decode(entry, type=SetAside)
                held = kept.event.encode() if kept.event is not None else kept.raw or b""
                # A damaged chunk cannot be read as events: any sign of the request is enough.
                if _subject(held) in requests or (kept.raw and any(each.encode() in held for each in requests)):
                    rest = msgspec.json.encode(msgspec.structs.replace(kept, event=None, raw=None))
                    entries.seek(place)
                    entries.write(rest.ljust(len(entry) - 1))
                    count += 1
                place += len(entry)
            entries.flush()
            os.fsync(entries.fileno())
    except FileNotFoundError:
        return 0
    except (OSError, msgspec.DecodeError) as error:
        raise OutboxError(f"{file}: expected events that were set aside, to be changed, got: {error}") from error
    return count


def forgotten(event: Event, alias: str) -> Event:
    """Returns what stands in an event's place: the same id at the same time, of a request of another name."""
    data: Answer | Label
    if isinstance(event.data, Answer):
        fallback = event.data.fallback
        data = msgspec.structs.replace(
            event.data,
            inputs=msgspec.UNSET,
            outputs=msgspec.UNSET,
            bucket=None,
            error=None if event.data.error is None else FORGOTTEN,
            fallback=None if fallback is None else msgspec.structs.replace(fallback, error=FORGOTTEN),
            forgotten=True,
        )
    elif isinstance(event.data, Label):
        data = Label(model=event.data.model, forgotten=True)
    else:
        return event
    return msgspec.structs.replace(event, subject=alias, partitionkey=alias, data=data)


def _without(line: bytes, aliases: Mapping[str, str]) -> bytes:
    """Returns a line, or what stands in its place when it is of a request that is to be forgotten."""
    alias = aliases.get(_subject(line) or "")
    if alias is None:
        return line
    try:
        return encode_event(forgotten(decode_event(line), alias))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _NO_EVENT


def _empty_journal(connection: sqlite3.Connection) -> None:
    """Copies the journal into the log and cuts it to nothing: former versions of pages are in it."""
    for _ in range(_TRIES):
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if not busy:
            return
        time.sleep(_AGAIN_S)
    raise OutboxError(
        "the events are forgotten, but their bytes are still in the log's journal, which somebody reads all the time: "
        "end that, and the journal goes with the server's end"
    )


def _subject(line: bytes) -> str | None:
    """Returns the request that a line is about; None for a change, which names a model, and for what is no event."""
    try:
        found = _subject_decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if found.type == _AUDIT else found.subject


def _with_value(path: Path, column: str, value: str) -> set[str]:
    """Returns the requests that had a value in a column."""
    requests: set[str] = set()
    name = msgspec.json.encode(column)
    for _, lines in _chunks(path):
        for line in lines or ():
            if name not in line and b"\\" not in line:  # a client may write any character as an escape
                continue
            try:
                event = decode_event(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            if isinstance(event.data, Answer) and _has(event.data.inputs, column, value):
                requests.add(event.subject)
    return requests


def _has(inputs: msgspec.Raw | msgspec.UnsetType, column: str, value: str) -> bool:
    if not isinstance(inputs, msgspec.Raw):
        return False
    try:
        tensors = msgspec.json.decode(inputs, type=list[dict[str, Any]])
    except msgspec.DecodeError:
        return False
    return any(
        tensor.get("name") == column and _is_among(tensor.get("data"), value, tensor.get("datatype"))
        for tensor in tensors
    )


def _is_among(data: Any, value: str, datatype: Any) -> bool:
    """Says whether a value, as text, is among a tensor's elements, however they are nested."""
    if isinstance(data, list):
        return any(_is_among(each, value, datatype) for each in data)
    if data is None:
        return False
    if isinstance(data, str):
        return data == value
    if isinstance(data, bool):
        return value.lower() == str(data).lower()
    try:
        if isinstance(data, int) and datatype not in _FLOATS:
            return int(value) == data
        kind = _FLOATS.get(datatype, np.float64)
        with np.errstate(over="ignore"):
            return bool(kind(value) == kind(data))
    except (ValueError, OverflowError):
        return False


def _chunks(path: Path) -> Iterator[tuple[int, list[bytes] | None]]:
    """Yields the first offset and the lines of every chunk, None for one that is damaged."""
    try:
        with closing(open_log(path)) as connection:
            offset = 0
            while rows := connection.execute(SELECT_CHUNKS, {"offset": offset, "chunks": _CHUNKS}).fetchall():
                for first, count, _, crc32, payload in rows:
                    yield first, payload.split(b"\n")[:-1] if zlib.crc32(payload) == crc32 else None
                    offset = first + max(count, 1)
    except sqlite3.Error as error:
        raise OutboxError(f"outbox {path}: expected an event log that can be read, got: {error}") from error


def _lines(path: Path, found: Found) -> Iterator[tuple[int, bytes]]:
    chunks, requests = set(found.chunks), set(found.requests)
    for first, lines in _chunks(path):
        if first in chunks:
            yield from ((first + place, line) for place, line in enumerate(lines or ()) if _subject(line) in requests)
