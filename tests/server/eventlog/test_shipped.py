"""The position of a shipped log is there whole, or the fault is named."""

from pathlib import Path

import pytest

from server.errors import OutboxError
from server.eventlog.shipped import Shipped, read_shipped, shipped_file, write_shipped

POSITION = Shipped(log_id="6f0c", offset=1234, topic="tiltyard.events", partitions=12, cluster="MkU3")


def test_a_position_is_read_as_it_was_written(tmp_path: Path) -> None:
    """The newest one counts, and nothing else is left in the folder."""
    outbox = tmp_path / "outbox.db"
    write_shipped(outbox, Shipped(log_id="6f0c", offset=7, topic="tiltyard.events", partitions=12, cluster="MkU3"))

    write_shipped(outbox, POSITION)

    assert read_shipped(outbox) == POSITION
    assert [each.name for each in tmp_path.iterdir()] == ["outbox.db.shipped"]


def test_a_log_that_was_never_shipped_has_no_position(tmp_path: Path) -> None:
    """Shipping then starts at the log's first event."""
    assert read_shipped(tmp_path / "outbox.db") is None


@pytest.mark.parametrize("content", [b"", b'{"log_id": "6f0c"', b'{"log_id": "6f0c", "offset": 7}', b"\x00" * 100])
def test_a_damaged_position_is_not_taken_for_none(tmp_path: Path, content: bytes) -> None:
    """All of the log would be shipped a second time."""
    shipped_file(tmp_path / "outbox.db").write_bytes(content)

    with pytest.raises(OutboxError, match="expected the position of a shipped log, got a damaged file"):
        read_shipped(tmp_path / "outbox.db")


def test_a_position_of_a_later_version_can_be_read(tmp_path: Path) -> None:
    """Members that this version does not know are passed over."""
    content = (
        b'{"log_id": "6f0c", "offset": 1234, "topic": "tiltyard.events", "partitions": 12, "cluster": "MkU3", "new": 1}'
    )
    shipped_file(tmp_path / "outbox.db").write_bytes(content)

    assert read_shipped(tmp_path / "outbox.db") == POSITION


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    """The position before stays what it was."""
    with pytest.raises(OutboxError, match="expected a disk that takes the position, got: No such file"):
        write_shipped(tmp_path / "gone" / "outbox.db", POSITION)
