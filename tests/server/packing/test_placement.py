from pathlib import Path

import pytest

from server.packing.errors import PlacementError
from server.packing.placement import check_name, next_version, write_bundle


@pytest.mark.parametrize("name", ["flight-delay", "1", "v1.2_b", "_x", "A" * 128])
def test_names_that_a_url_can_hold_are_taken(name: str) -> None:
    """Letters, digits, dashes, underscores and dots inside."""
    check_name("model", name)


@pytest.mark.parametrize("name", ["", ".hidden", "..", "a/b", "a b", "é", "a\n", "A" * 129])
def test_other_names_are_refused(name: str) -> None:
    """Above all those that would lead out of the repository, or hide in it."""
    with pytest.raises(PlacementError, match=r"the model .*expected 1 to 128 letters"):
        check_name("model", name)


@pytest.mark.parametrize(
    ("present", "expected"), [([], "1"), (["1", "2"], "3"), (["9", "10", "beta"], "11"), (["beta", ".7"], "1")]
)
def test_the_next_version_is_one_more_than_the_highest_number(
    tmp_path: Path, present: list[str], expected: str
) -> None:
    """Numbers count as numbers, and other names do not count."""
    for name in present:
        (tmp_path / name).mkdir()

    assert next_version(tmp_path) == expected


def test_the_first_version_of_a_new_model_is_one(tmp_path: Path) -> None:
    """The folder need not exist."""
    assert next_version(tmp_path / "new") == "1"


def test_a_bundle_appears_whole(tmp_path: Path) -> None:
    """The folder holds exactly the files, others may read it, and nothing is left beside it."""
    write_bundle(tmp_path / "m" / "1", {"a": b"1", "b": b"2"})

    assert {path.name: path.read_bytes() for path in (tmp_path / "m" / "1").iterdir()} == {"a": b"1", "b": b"2"}
    assert (tmp_path / "m" / "1").stat().st_mode & 0o777 == 0o755
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["1"]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """A bundle half written must never be seen by a server."""
    with pytest.raises(PlacementError, match="cannot write"):
        write_bundle(tmp_path / "m" / "1", {"a": b"1", "no/such/folder": b"2"})

    assert list((tmp_path / "m").iterdir()) == []


def test_an_existing_version_is_refused_and_kept(tmp_path: Path) -> None:
    """Bundles never change."""
    write_bundle(tmp_path / "1", {"a": b"old"})

    with pytest.raises(PlacementError, match="exists already"):
        write_bundle(tmp_path / "1", {"a": b"new"})

    assert (tmp_path / "1" / "a").read_bytes() == b"old"


def test_a_place_that_is_no_folder_is_named(tmp_path: Path) -> None:
    """MODELS given as a file is one sentence."""
    (tmp_path / "models").write_text("")

    with pytest.raises(PlacementError, match=r"models/m/1: Not a directory"):
        write_bundle(tmp_path / "models" / "m" / "1", {"a": b""})
