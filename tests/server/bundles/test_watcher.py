"""A version is announced when it is whole and at rest, and ended when it is really gone."""

from pathlib import Path

import pytest

from server.bundles.watcher import Change, Fingerprint, Key, Watcher
from tests.server.bundles.places import Folder, Place, put_bundle

LOAD = Change("load", "grid", "1")
UNLOAD = Change("unload", "grid", "1")


@pytest.fixture
def bundle(packed: Path) -> Path:
    """`grid` version 1 as it was packed."""
    return packed / "grid" / "1"


@pytest.fixture
def serving(place: Place, bundle: Path) -> Watcher:
    """A watcher of a place whose one version serves."""
    put_bundle(place, bundle)
    loaded: dict[Key, Fingerprint] = {("grid", "1"): place.store.fingerprint("grid", "1")}
    return Watcher(place.store, loaded)


def test_a_new_version_is_announced_once_two_scans_saw_the_same(place: Place, bundle: Path) -> None:
    """Whole at once: not the first scan, the second, and then never again."""
    place.put("README", b"so that there is a store to list")
    watcher = Watcher(place.store, {})
    before = watcher.scan()
    put_bundle(place, bundle)

    first, second = watcher.scan(), watcher.scan()
    watcher.loaded("grid", "1")

    assert (before, first, second, watcher.scan()) == ([], [], [LOAD], [])
    assert watcher.fault is None


@pytest.mark.parametrize("last", ["bundle.json", "model.onnx"])
def test_a_version_whose_last_file_grows_waits(place: Place, bundle: Path, last: str) -> None:
    """Scanned twice at every length of its end: never announced before the last byte, then in one more scan."""
    put_bundle(place, bundle)
    data = (bundle / last).read_bytes()
    data = data.rstrip() if last == "bundle.json" else data  # without its newline it is whole
    place.remove(f"grid/1/{last}")
    watcher = Watcher(place.store, {})
    announced = [*watcher.scan(), *watcher.scan()]

    for length in (*range(0, len(data), 499), *range(len(data) - 5, len(data))):
        place.put(f"grid/1/{last}", data[:length])
        announced += [*watcher.scan(), *watcher.scan()]
    place.put(f"grid/1/{last}", data)
    scans = [watcher.scan(), watcher.scan()]

    assert (announced, scans) == ([], [[], [LOAD]])


def test_a_version_that_failed_is_tried_again_when_its_files_change(place: Place, bundle: Path) -> None:
    """Its bytes are wrong though its sizes are right: one attempt, and another after the repair."""
    put_bundle(place, bundle)
    card = (bundle / "README.md").read_bytes()
    place.put("grid/1/README.md", b"x" * len(card))
    watcher = Watcher(place.store, {})
    broken = [watcher.scan(), watcher.scan()]
    watcher.failed("grid", "1")
    broken += [watcher.scan(), watcher.scan()]

    place.put("grid/1/README.md", card + b" ")
    mended = [watcher.scan(), watcher.scan()]
    watcher.loaded("grid", "1")

    assert (broken, mended, watcher.scan()) == ([[], [LOAD], [], []], [[], [LOAD]], [])


def test_a_version_that_failed_and_went_is_forgotten(place: Place, bundle: Path) -> None:
    """Nothing serves that would have to be unloaded; copied again, it is announced again."""
    place.put("README", b"so that there is a store to list")
    put_bundle(place, bundle)
    watcher = Watcher(place.store, {})
    watcher.scan()
    watcher.scan()
    watcher.failed("grid", "1")
    place.remove("grid")
    gone = [watcher.scan(), watcher.scan()]

    put_bundle(place, bundle)

    assert (gone, watcher.scan(), watcher.scan()) == ([[], []], [], [LOAD])


def test_a_version_replaced_in_place_is_loaded_again(place: Place, bundle: Path, serving: Watcher) -> None:
    """Unchanged it is left alone; half replaced it waits and goes on serving; at rest it is announced."""
    unchanged = [serving.scan(), serving.scan()]
    place.put("grid/1/bundle.json", b"{")
    half = [serving.scan(), serving.scan()]

    place.put("grid/1/bundle.json", (bundle / "bundle.json").read_bytes() + b"\n")
    whole = [serving.scan(), serving.scan()]
    serving.loaded("grid", "1")

    assert (unchanged, half, whole, serving.scan()) == ([[], []], [[], []], [[], [LOAD]], [])


def test_a_version_whose_folder_vanished_is_unloaded(place: Place, serving: Watcher) -> None:
    """Gone in two scans; once it is unloaded nothing more is said of it, nor of a store that is empty then."""
    place.put("README", b"so that there is a store to list")
    place.put("other/1/README", b"so that it is not the last")
    serving.scan()
    place.remove("grid")

    scans = [serving.scan(), serving.scan()]
    serving.loaded("grid", "1")
    place.remove("other")

    assert (scans, serving.scan(), serving.scan(), serving.fault) == ([[], [UNLOAD]], [], [], None)


def test_a_version_loaded_since_is_unloaded_too(place: Place, bundle: Path) -> None:
    """What the watcher announced and was told to be loaded is known like what served from the start."""
    place.put("other/1/README", b"so that it is not the last")
    put_bundle(place, bundle)
    watcher = Watcher(place.store, {})
    watcher.scan()
    watcher.scan()
    watcher.loaded("grid", "1")
    place.remove("grid")

    assert (watcher.scan(), watcher.scan()) == ([], [UNLOAD])


def test_a_version_gone_for_one_scan_only_stays(place: Place, bundle: Path, serving: Watcher) -> None:
    """Taken away and put back between two scans: no unload; what came back is loaded when it is at rest."""
    place.put("other/1/README", b"so that it is not the last")
    place.remove("grid")
    gone = serving.scan()
    put_bundle(place, bundle)
    place.put("grid/1/bundle.json", (bundle / "bundle.json").read_bytes() + b"\n")

    assert (gone, serving.scan(), serving.scan()) == ([], [], [LOAD])


def test_an_unload_that_failed_is_announced_until_it_succeeds(place: Place, serving: Watcher) -> None:
    """A route document that names the version keeps it; the document may change at any time."""
    place.put("other/1/README", b"so that it is not the last")
    place.remove("grid")
    scans = [serving.scan(), serving.scan()]
    serving.failed("grid", "1")
    scans.append(serving.scan())
    serving.loaded("grid", "1")

    assert (scans, serving.scan()) == ([[], [UNLOAD], [UNLOAD]], [])


def test_a_store_that_cannot_be_listed_changes_nothing(place: Place, serving: Watcher) -> None:
    """However long it lasts: no unload, the fault is told, and afterwards all is as before."""
    serving.scan()
    with place.away():
        scans = [serving.scan() for _ in range(3)]
        fault = serving.fault

    assert (scans, serving.scan(), serving.fault) == ([[], [], []], [], None)
    assert fault is not None
    assert "expected a" in fault


def test_a_store_without_any_bundle_unloads_nothing(place: Place, bundle: Path, serving: Watcher) -> None:
    """However long it lasts, as where a volume is not mounted; beside its successor, loaded first, it has gone."""
    place.put("README", b"so that there is a store to list")
    serving.scan()
    place.remove("grid")
    gone = [serving.scan() for _ in range(3)]
    fault = serving.fault

    put_bundle(place, bundle, "2")
    back = [serving.scan(), serving.scan()]

    assert gone == [[], [], []]
    assert fault == (
        f"models {place.store.where}: expected bundles, of which 1 serve, found none, as where a volume is not "
        "mounted: nothing is unloaded; to end the last of them, stop the server"
    )
    assert (back, serving.fault) == ([[], [Change("load", "grid", "2"), UNLOAD]], None)
    for version in ("1", "2"):
        serving.loaded("grid", version)
    place.remove("grid")
    assert ([serving.scan(), serving.scan()], serving.fault) == ([[], []], fault)


def test_a_store_without_any_bundle_is_no_fault_where_none_serves(place: Place) -> None:
    """What was refused at the start and then taken away is ended as ever."""
    place.put("README", b"so that there is a store to list")
    watcher = Watcher(place.store, {("grid", "1"): None})
    scans = [watcher.scan(), watcher.scan()]
    watcher.loaded("grid", "1")

    assert (scans, watcher.scan(), watcher.fault) == ([[], [UNLOAD]], [], None)


def test_what_was_refused_at_the_start_is_tried_when_it_is_whole(place: Place, bundle: Path) -> None:
    """A copy that ended while the server started is not missed."""
    put_bundle(place, bundle)
    watcher = Watcher(place.store, {("grid", "1"): None})

    assert (watcher.scan(), watcher.scan()) == ([], [LOAD])


def test_a_version_that_cannot_be_read_does_not_keep_the_others_back(tmp_path: Path, bundle: Path) -> None:
    """A link in a circle is told as a fault; its neighbour is announced."""
    place = Folder(tmp_path)
    put_bundle(place, bundle)
    put_bundle(place, bundle, "2")
    watcher = Watcher(place.store, {("grid", "1"): place.store.fingerprint("grid", "1")})
    place.remove("grid/1")
    (tmp_path / "models" / "grid" / "1").symlink_to("1")

    scans = [watcher.scan(), watcher.scan()]

    assert scans == [[], [Change("load", "grid", "2")]]
    assert watcher.fault is not None
    assert "grid/1: expected a readable file or folder" in watcher.fault
