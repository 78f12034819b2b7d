import sqlite3
from pathlib import Path
from typing import Any

import pytest

from monitor.errors import SourceBusyError, SourceError
from monitor.sources.outbox import OutboxSource, open_outbox
from monitor.sources.source import Bounds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out#box?.db"  # a name that must be quoted in a URI


def _offsets(source: OutboxSource, offset: int, limit: int = 100) -> list[int]:
    return [place for place, _ in source.read(offset, limit).lines]


def test_lines_are_read_with_their_offsets_while_the_log_grows(path: Path, outbox_writer: Any) -> None:
    """Every event is read once, in order, from any offset, also what is written after opening."""
    writer = outbox_writer(path, "log-7")
    writer.write([b"zero", b"one"])
    source = OutboxSource(path)
    first = source.read(0, 100)
    writer.write([b"two"])

    assert source.log_id == "log-7"
    assert ([(0, b"zero"), (1, b"one")], [], 0, 2) == first
    assert ([(2, b"two")], [], 0, 3) == source.read(first.next_offset, 100)
    assert ([], [], 0, 3) == source.read(3, 100)
    assert ([(1, b"one"), (2, b"two")], [], 0, 3) == source.read(1, 100)
    assert Bounds(0, 3) == source.bounds()
    source.close()


def test_a_batch_ends_at_the_chunk_that_fills_it(path: Path, outbox_writer: Any) -> None:
    """About ``limit`` events are read at a time, however many chunks there are."""
    writer = outbox_writer(path)
    for number in range(40):
        writer.write([b"%d" % number] * 3)
    source = OutboxSource(path)

    assert list(range(6)) == _offsets(source, 0, 5)
    assert list(range(120)) == _offsets(source, 0, 1000)
    source.close()


def test_trimmed_events_are_said_to_be_missing(path: Path, outbox_writer: Any) -> None:
    """A reader that the trimming overtook goes on behind the gap and is told how many events it lost."""
    writer = outbox_writer(path)
    for number in range(4):
        writer.write([b"%d" % number] * 2)
    source = OutboxSource(path)
    writer.trim(4)

    assert (3, 8) == (source.read(1, 100).gap_events, source.read(1, 100).next_offset)
    assert [4, 5, 6, 7] == _offsets(source, 1)
    writer.trim(8)
    assert ([], [], 7, 8) == source.read(1, 100)
    assert Bounds(8, 8) == source.bounds()
    assert ([], [], 0, 8) == source.read(8, 100)
    source.close()


@pytest.mark.parametrize(
    ("damage", "detail"),
    [({"crc32": 1}, "CRC-32"), ({"count": 3}, "expected 3 lines, got 2"), ({"count": 1}, "expected 1 lines, got 2")],
)
def test_a_corrupt_chunk_is_refused_whole(path: Path, outbox_writer: Any, damage: dict[str, int], detail: str) -> None:
    """A chunk whose digest or count is wrong is handed over as it is, and its neighbours are read."""
    writer = outbox_writer(path)
    writer.write([b"before"])
    writer.write([b"x", b"y"], **damage)
    writer.write([b"after"])
    source = OutboxSource(path)

    batch = source.read(0, 100)

    assert [b"before", b"after"] == [line for _, line in batch.lines]
    (refused,) = batch.refused
    assert (1, "corrupt", b"x\ny\n") == (refused.offset, refused.reason, refused.payload)
    assert detail in refused.detail
    assert batch.next_offset == writer.end
    source.close()


def test_a_log_that_ends_before_what_was_read_is_an_older_copy(path: Path, outbox_writer: Any) -> None:
    """A log restored from a backup lacks events that were folded: going on would skip the new ones."""
    outbox_writer(path).write([b"x"])
    source = OutboxSource(path)

    with pytest.raises(SourceError, match="ends at offset 1, but 5 events"):
        source.read(5, 100)
    source.close()


@pytest.mark.parametrize("replace", [True, False])
def test_a_replaced_log_is_noticed(path: Path, outbox_writer: Any, replace: bool) -> None:
    """A file removed, or another put in its place, is an error and not an idle log."""
    outbox_writer(path).write([b"x"])
    source = OutboxSource(path)
    path.rename(path.with_suffix(".old"))
    if replace:
        outbox_writer(path, "log-2")

    with pytest.raises(SourceError, match="removed or replaced"):
        source.read(1, 100)
    source.close()


def _text(path: Path, _: Any) -> None:
    path.write_text("not a database, but long enough to have a header\n" * 20)


def _foreign(path: Path, _: Any) -> None:
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE t (x)")
    database.close()


def _newer(path: Path, outbox_writer: Any) -> None:
    outbox_writer(path).execute("PRAGMA user_version=99")


def _torn(path: Path, outbox_writer: Any) -> None:
    writer = outbox_writer(path)
    writer.write([b"x" * 100] * 500)
    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    writer.close()
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\x00garbage" * 512 + data[8192:])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (_text, "not an SQLite file"),
        (_foreign, "database of another application"),
        (_newer, "newer Tiltyard: expected schema 1, got 99"),
        (_torn, "cannot be read"),
        (lambda path, _: path.mkdir(), "cannot be read"),
    ],
    ids=["text", "foreign", "newer", "torn", "folder"],
)
def test_what_is_not_an_outbox_is_refused_by_name(path: Path, outbox_writer: Any, make: Any, sentence: str) -> None:
    """A file that cannot be read as an outbox is an error that names it."""
    make(path, outbox_writer)

    with pytest.raises(SourceError, match=sentence) as caught:
        open_outbox(path)
    assert str(path) in str(caught.value)
    assert not isinstance(caught.value, SourceBusyError)


def test_a_log_that_is_only_being_made_is_waited_for(path: Path) -> None:
    """No file, an empty file and a file without its meta table are not errors: the server may start later."""
    assert open_outbox(path) is None
    path.touch()
    assert open_outbox(path) is None
