import msgspec
import numpy as np

from monitor.comparison.paired import PairedCells
from monitor.fold import ComparisonKey, PaneKey
from monitor.pane import Pane
from monitor.publication import (
    Publication,
    Snapshot,
    chunk_key,
    decode_chunk,
    decode_snapshot,
    encode_chunks,
    encode_snapshot,
    encode_version,
    pairs_key,
    pane_key,
    parts_of,
    version_key,
)
from monitor.version_profile import VersionKey

_SNAPSHOT = Snapshot(
    group="monitors",
    log_id="kafka:events",
    of=6,
    pane_us=60,
    offset=9,
    watermark_us=None,
    at_end=True,
    mark=(8, 77),
    counters={"late": 1},
    url="http://here",
    joined=4,
    joined_watermark_us=-5,
    chunks=1,
)


def test_a_publication_is_read_as_it_was_written() -> None:
    """Each kind of record comes back by its key; a kind of a later version is passed over."""
    pane = Pane(requests=3, counts=np.array([3, 0]), classes=np.array([1, 2]))
    cells = PairedCells.empty()
    cells.add(np.array([True]), np.array([False]), np.array([False]), np.array([-0.5]))
    key, pair, version = PaneKey('m"1', "ü", -60), ComparisonKey("m", "1", "2", 0), VersionKey("m", "1")
    records = {
        pane_key(key): pane.to_bytes(),
        pairs_key(pair): msgspec.msgpack.encode(cells.to_record()),
        version_key(version): encode_version("digest", pane.to_bytes()),
        chunk_key(0): b"chunk",
        chunk_key(1): None,
        '["of a later version"]': b"x",
    }

    parts = parts_of(Publication(3, records, _SNAPSHOT))

    assert {key: pane} == {each: Pane.from_bytes(body) for each, body in parts.panes.items()}
    assert ({version: ("digest", pane)}, {pair: cells}) == (parts.versions, parts.pairs)
    assert {0: b"chunk", 1: None} == parts.chunks


def test_a_snapshot_is_read_as_it_was_written_and_by_older_monitors() -> None:
    """Every member comes back, and one that a later version adds is passed over."""
    later = encode_snapshot(_SNAPSHOT).replace(b'{"group"', b'{"new":1,"group"')

    assert [_SNAPSHOT] * 2 == [decode_snapshot(encode_snapshot(_SNAPSHOT)), decode_snapshot(later)]


def test_a_checkpoint_is_cut_into_records_and_replaces_the_one_before() -> None:
    """No record is large, all requests are in one, and the records that are too many are gone."""
    requests = [(f"r{number}", bytes(1000)) for number in range(1000)]

    records = encode_chunks(requests, 7)

    bodies = [body for body in records.values() if body is not None]
    assert requests == [request for body in bodies for request in decode_chunk(body)]
    assert max(map(len, bodies)) < 300_000
    assert {chunk_key(number) for number in range(7)} == set(records)
    assert [chunk_key(number) for number in range(len(bodies), 7)] == [
        key for key, body in records.items() if body is None
    ]
    assert {} == encode_chunks([], 0)
