"""What monitors tell each other of a partition: its state, or what changed in it, as keyed records. Pure.

Each publication of a partition is a transaction on one partition of a compacted topic: whole panes as they stand at
an offset of the log, and last a ``Snapshot`` that names the offset. So whoever has read the topic to its end has
the partition's state exactly as it was at that offset, and publishing twice changes nothing.

The open requests are too many to be told with every change. A *checkpoint* of them is published now and then; with it
and the events since, the requests that are open at the offset of the newest snapshot are found again, exactly.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from monitor.comparison.paired import PairedCells
from monitor.fold import ComparisonKey, PaneKey
from monitor.pane import Pane
from monitor.version_profile import VersionKey

SNAPSHOT: Final = "snapshot"

# Most bytes of open requests in one record of a checkpoint, far below what brokers take.
_CHUNK_BYTES: Final = 256 * 1024


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Where a partition stands: the record that ends a publication.

    ``group`` is the monitors', ``log_id`` and ``of`` name the log and its number of partitions, ``pane_us`` is the
    panes' length, ``offset`` is the next event to fold, ``url`` that of the monitor that folds the partition.
    ``joined`` is the offset of the checkpoint, which has ``chunks`` records, and ``joined_watermark_us`` the watermark
    there.
    """

    group: str
    log_id: str
    of: int
    pane_us: int
    offset: int
    watermark_us: int | None
    at_end: bool
    mark: tuple[int, int] | None
    counters: dict[str, int]
    url: str | None
    joined: int
    joined_watermark_us: int | None
    chunks: int


class Publication(NamedTuple):
    """Records by key, and the snapshot that they lead to. A record without a value is gone."""

    partition: int
    records: dict[str, bytes | None]
    snapshot: Snapshot


_encode = msgspec.json.Encoder().encode
_decode_key = msgspec.json.Decoder(list[Any]).decode
_decode_snapshot = msgspec.json.Decoder(Snapshot).decode
_decode_version = msgspec.msgpack.Decoder(tuple[str, bytes]).decode
_decode_chunk = msgspec.msgpack.Decoder(list[tuple[str, bytes]]).decode


def pane_key(key: PaneKey) -> str:
    """Returns the key of a pane's record.

    >>> pane_key(PaneKey("delay", "1", 60))
    '["pane","delay","1",60]'
    """
    return _encode(["pane", *key]).decode()


def pairs_key(key: ComparisonKey) -> str:
    """Returns the key of the record of a pane of pairs."""
    return _encode(["pairs", *key]).decode()


def version_key(key: VersionKey) -> str:
    """Returns the key of the record of a version's baseline and total."""
    return _encode(["version", *key]).decode()


def chunk_key(number: int) -> str:
    """Returns the key of a part of the checkpoint."""
    return _encode(["open", number]).decode()


def letter_key(offset: int) -> str:
    """Returns the key by which a refused entry of the log is remembered until others are told."""
    return _encode(["letter", offset]).decode()


def parse_key(key: str) -> tuple[str, list[Any]]:
    """Returns kind and members of a record's key.

    >>> parse_key('["pane","delay","1",60]')
    ('pane', ['delay', '1', 60])
    """
    kind, *members = _decode_key(key)
    return kind, members


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Returns a snapshot as the value of its record."""
    return _encode(snapshot)


def decode_snapshot(value: bytes) -> Snapshot:
    """Returns the snapshot of a record. Raises msgspec.DecodeError: it is none."""
    return _decode_snapshot(value)


def encode_version(digest: str, total: bytes) -> bytes:
    """Returns a baseline's digest and an encoded pane as one value."""
    return msgspec.msgpack.encode((digest, total))


def decode_version(value: bytes) -> tuple[str, bytes]:
    """Returns a baseline's digest and the encoded sum of all panes."""
    return _decode_version(value)


def encode_chunks(requests: Iterable[tuple[str, bytes]], before: int) -> dict[str, bytes | None]:
    """Returns open requests as the records of a checkpoint; those of the one before that are too many are gone.

    Args:
        requests: all of them.
        before: records of the checkpoint before.
    """
    chunks: list[list[tuple[str, bytes]]] = []
    room = 0
    for request in requests:
        if room <= 0:
            chunks.append([])
            room = _CHUNK_BYTES
        chunks[-1].append(request)
        room -= len(request[0]) + len(request[1])
    records: dict[str, bytes | None] = {chunk_key(number): None for number in range(len(chunks), before)}
    records |= {chunk_key(number): msgspec.msgpack.encode(chunk) for number, chunk in enumerate(chunks)}
    return records


def decode_chunk(value: bytes) -> list[tuple[str, bytes]]:
    """Returns the open requests of a part of the checkpoint."""
    return _decode_chunk(value)


class Parts(NamedTuple):
    """A publication's records by what they are of; panes and versions as they are stored, pairs decoded."""

    panes: dict[PaneKey, bytes]
    versions: dict[VersionKey, tuple[str, Pane]]
    pairs: dict[ComparisonKey, PairedCells]
    chunks: dict[int, bytes | None]


def parts_of(publication: Publication) -> Parts:
    """Returns a publication's records, sorted out; kinds that a newer monitor may know are passed over.

    Raises:
        ValueError: a record that cannot be understood.
    """
    parts = Parts({}, {}, {}, {})
    for key, value in publication.records.items():
        kind, members = parse_key(key)
        if kind == "open":
            parts.chunks[members[0]] = value
        elif value is None:
            continue
        elif kind == "pane":
            parts.panes[PaneKey(*members)] = value
        elif kind == "version":
            digest, total = decode_version(value)
            parts.versions[VersionKey(*members)] = (digest, Pane.from_bytes(total))
        elif kind == "pairs":
            parts.pairs[ComparisonKey(*members)] = PairedCells.from_record(msgspec.msgpack.decode(value))
    return parts
