"""Routes on disk: kept whole whatever dies, whoever else writes, and whatever people do to the files."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import msgspec
import pytest

from server.errors import RouteError, RouteStoreError, StaleRouteError, UnknownModelError
from server.routes.folder import RouteFolder
from server.routing.document import Route, encode_route, format_route
from server.routing.revision import Revision, encode_revision
from server.routing.wanted import Wanted, digest_of, wanted_of
from tests.server.routes.writers import DIED, REFUSED, WON, revision

ONE, TWO, THREE = revision(1), revision(2), revision(3)
EDITED = b'{"champion": "2"}'


@pytest.fixture
def routes(tmp_path: Path) -> RouteFolder:
    """A folder where `flight` has had one change."""
    folder = RouteFolder(tmp_path)
    folder.append(ONE, None)
    return folder


@pytest.fixture
def flight(tmp_path: Path) -> Path:
    """The folder of `flight`'s files, not there yet without ``routes``."""
    return tmp_path / "flight"


def wanted(routes: RouteFolder) -> Wanted:
    return wanted_of(*routes.read("flight"))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def written(how: str, number: int, folder: Path) -> tuple[int, str]:
    """Returns how a writer in a process of its own ended, and what it said."""
    command = [sys.executable, "-m", "tests.server.routes.writers", how, str(number), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_a_change_is_read_back_as_document_and_history(routes: RouteFolder, flight: Path) -> None:
    """The document is the newest route as people read it; the history has all of them, oldest first."""
    routes.append(TWO, routes.read("flight")[0])

    assert routes.read("flight") == (format_route(TWO.route), TWO)
    assert (flight / "route.json").read_bytes() == format_route(TWO.route)
    history = routes.history("flight")
    assert (history.revisions, history.newest, history.audited) == ([ONE, TWO], TWO, set())
    assert wanted(routes) == Wanted(TWO.route, TWO.route)


def test_marks_are_no_revisions(routes: RouteFolder) -> None:
    """What the log knows of is noted beside the revisions and read apart from them."""
    routes.mark_audited(ONE)
    routes.append(TWO, routes.read("flight")[0])

    history = routes.history("flight")
    assert (history.revisions, history.audited) == ([ONE, TWO], {"change-1"})


def test_nothing_is_made_again_of_a_model_that_was_taken_away(routes: RouteFolder, tmp_path: Path) -> None:
    """A mark that comes late leaves no folder behind."""
    (tmp_path / "flight").rename(tmp_path / "gone")

    routes.mark_audited(ONE)

    assert not (tmp_path / "flight").exists()


def test_a_change_of_another_revision_is_stale(routes: RouteFolder, flight: Path) -> None:
    """One that came too late and one of a revision yet to come: the answer has what holds, the files are the same."""
    before = files(flight)
    seen = routes.read("flight")[0]

    for late in (ONE, THREE):
        with pytest.raises(StaleRouteError, match="expected a change of revision 1, which holds") as caught:
            routes.append(late, seen)
        assert caught.value.revision == 1

    assert files(flight) == before


@pytest.mark.parametrize("found", [b'{"champion": "1"}', None])
def test_a_change_that_did_not_see_an_edit_is_stale(tmp_path: Path, found: bytes | None) -> None:
    """Also where there was no document when the change was made: it would be lost."""
    routes, path = RouteFolder(tmp_path), tmp_path / "flight" / "route.json"
    path.parent.mkdir()
    if found is not None:
        path.write_bytes(found)
    seen = routes.read("flight")[0]
    path.write_bytes(EDITED)

    with pytest.raises(StaleRouteError, match="got one that was edited meanwhile"):
        routes.append(ONE, seen)

    assert (path.read_bytes(), routes.history("flight").revisions) == (EDITED, [])


def test_an_edit_in_the_last_moment_is_the_next_change(
    routes: RouteFolder, flight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written while the revision's line was on its way to the disk: the revision holds, and the edit is not lost."""
    seen = routes.read("flight")[0]
    append = RouteFolder._write

    def edited_meanwhile(*arguments: object, **named: object) -> None:
        (flight / "route.json").write_bytes(EDITED)
        append(*arguments, **named)  # type: ignore[arg-type]  # handed on as they came

    monkeypatch.setattr(RouteFolder, "_write", edited_meanwhile)
    routes.append(TWO, seen)

    assert routes.history("flight").newest == TWO
    assert wanted(routes) == Wanted(Route(champion="2", revision=3), TWO.route, edited=True)
    assert not (flight / ".route.json.new").exists()


def test_the_adoption_of_a_document_leaves_it_as_it_is(routes: RouteFolder, flight: Path) -> None:
    """Its spaces are its author's; read again it is what was adopted and no edit, until somebody edits it again."""
    (flight / "route.json").write_bytes(EDITED)
    found = wanted(routes)
    assert found.route is not None
    digest = digest_of(EDITED)
    adopted = msgspec.structs.replace(revision(2, action="file"), route=found.route, document=digest)

    routes.append(adopted, EDITED)

    assert (flight / "route.json").read_bytes() == EDITED
    assert wanted(routes) == Wanted(found.route, found.route)
    (flight / "route.json").write_bytes(b'{"champion": "1"}')
    assert wanted(routes).edited


@pytest.mark.parametrize("torn", [*range(0, 200, 23), None], ids=str)
def test_a_writer_that_died_before_its_line_has_changed_nothing(
    routes: RouteFolder, flight: Path, torn: int | None
) -> None:
    """The new document lies ready, whole or in part: it goes, and the next change works."""
    before = files(flight)
    (flight / ".route.json.new").write_bytes(format_route(TWO.route)[:torn])

    assert routes.read("flight") == (format_route(ONE.route), ONE)
    assert files(flight) == before
    routes.append(revision(2, "-next"), routes.read("flight")[0])
    assert routes.history("flight").revisions == [ONE, revision(2, "-next")]


def test_a_writer_that_died_in_its_line_has_changed_nothing(
    routes: RouteFolder, flight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every byte of the line: backwards until its end is there too, forwards from then on; the next works."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a thousand of them take a while
    line = encode_revision(TWO) + b"\n"
    history = (flight / "route-history.ndjson").read_bytes()
    for size in range(len(line) + 1):
        (flight / "route-history.ndjson").write_bytes(history + line[:size])
        (flight / "route.json").write_bytes(format_route(ONE.route))
        (flight / ".route.json.new").write_bytes(format_route(TWO.route))
        holds = TWO if size == len(line) else ONE

        assert routes.read("flight") == (format_route(holds.route), holds)
        assert not (flight / ".route.json.new").exists()
        following = revision(holds.number + 1, "-next")
        routes.append(following, routes.read("flight")[0])
        assert routes.history("flight").revisions == [ONE, *[TWO] * (holds is TWO), following]
        assert routes.read("flight") == (format_route(following.route), following)


def test_a_torn_line_is_no_part_of_the_next_mark(routes: RouteFolder, flight: Path) -> None:
    """Marks are appended as revisions are."""
    with (flight / "route-history.ndjson").open("ab") as file:
        file.write(b'{"id":"change-2","mod')

    routes.mark_audited(ONE)

    history = routes.history("flight")
    assert (history.revisions, history.audited) == ([ONE], {ONE.id})


@pytest.mark.parametrize("step", range(1, 6))
def test_a_process_that_dies_at_any_step_leaves_one_of_two_states(routes: RouteFolder, flight: Path, step: int) -> None:
    """Killed before each thing it brings to the disk; from its line's writing on the change holds."""
    ended, said = written("die", step, flight.parent)

    assert (ended, said) == (DIED if step < 5 else WON, "")
    holds = ONE if step == 1 else TWO
    assert routes.read("flight") == (format_route(holds.route), holds)
    assert wanted(routes) == Wanted(holds.route, holds.route)
    routes.append(revision(holds.number + 1), routes.read("flight")[0])
    assert sorted(files(flight)) == [".route.lock", "route-history.ndjson", "route.json"]


@pytest.mark.parametrize("lines", [[ONE], [ONE, TWO]])
def test_an_edit_after_a_writer_died_is_not_overwritten(tmp_path: Path, flight: Path, lines: list[Revision]) -> None:
    """Whoever finds the unfinished change finds an edited document too: the change holds, the edit comes next.

    Not beside the first revision ever: what is there then may be as old as the machine's image.
    """
    routes, last = RouteFolder(tmp_path), lines[-1]
    flight.mkdir()
    (flight / "route-history.ndjson").write_bytes(b"".join(encode_revision(each) + b"\n" for each in lines))
    (flight / ".route.json.new").write_bytes(format_route(last.route))
    (flight / "route.json").write_bytes(EDITED)

    found = wanted(routes)

    if last is ONE:
        assert found == Wanted(ONE.route, ONE.route)
        assert (flight / "route.json").read_bytes() == format_route(ONE.route)
    else:
        assert found == Wanted(Route(champion="2", revision=3), TWO.route, edited=True)
        assert (flight / "route.json").read_bytes() == EDITED


@pytest.mark.parametrize("document", [b"", b'{"champion": "1"', b"\xff\xfe", b'{"queen": "1"}', b"[]"])
def test_a_document_that_is_none_leaves_the_last_revision(routes: RouteFolder, flight: Path, document: bytes) -> None:
    """Torn by an editor, or mistaken: the newest revision is obeyed and the fault told; the next change mends it."""
    (flight / "route.json").write_bytes(document)

    found = wanted(routes)

    assert (found.route, found.last, found.edited) == (ONE.route, ONE.route, False)
    assert found.fault is not None
    routes.append(TWO, document)
    assert routes.read("flight") == (format_route(TWO.route), TWO)


def test_a_document_that_has_gone_leaves_the_last_revision(routes: RouteFolder, flight: Path) -> None:
    """Whoever removes it does not mean the newest version to be champion by surprise; that it is gone is told."""
    (flight / "route.json").unlink()

    expected = Wanted(ONE.route, ONE.route, fault="the document has gone; its last revision is obeyed")
    assert wanted(routes) == expected
    routes.append(TWO, None)
    assert wanted(routes) == Wanted(TWO.route, TWO.route)


@pytest.mark.parametrize(
    "damage", [b'{"id": "x"}', b"\x00" * 40, b"", b'{"audited":7}', encode_revision(ONE).replace(b'"1"', b"1")]
)
def test_a_damaged_history_is_refused_by_file_and_line(routes: RouteFolder, flight: Path, damage: bytes) -> None:
    """In its middle, where no crash leaves anything: nothing is obeyed of it, and nothing added to it."""
    routes.append(TWO, routes.read("flight")[0])
    path = flight / "route-history.ndjson"
    one, two = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([one, damage, two, b""]))
    before = files(flight)

    sentence = r"route-history\.ndjson line 2: expected a revision"
    with pytest.raises(RouteStoreError, match=sentence):
        routes.history("flight")
    document, newest = routes.read("flight")
    assert isinstance(document, RouteError)
    assert (newest, "line 2" in str(document)) == (None, True)
    for change in (lambda: routes.append(THREE, document), lambda: routes.accept([THREE])):
        with pytest.raises(RouteStoreError, match=sentence):
            change()
    assert files(flight) == before


def test_one_of_twenty_threads_wins(routes: RouteFolder, flight: Path) -> None:
    """All saw revision 1: one change holds, the others are told so, and the files are whole."""
    gate = Barrier(20)

    def change(name: int) -> int:
        folder = RouteFolder(flight.parent)
        seen = folder.read("flight")[0]
        gate.wait()
        try:
            folder.append(revision(2, f"-{name}"), seen)
        except StaleRouteError as error:
            assert error.revision == 2
            return 0
        return 1

    with ThreadPoolExecutor(20) as threads:
        won = list(threads.map(change, range(20)))

    assert sum(won) == 1
    history = routes.history("flight")
    assert history.revisions == [ONE, revision(2, f"-{won.index(1)}")]
    assert routes.read("flight") == (format_route(TWO.route), history.newest)


def test_one_of_twenty_processes_wins(routes: RouteFolder, flight: Path) -> None:
    """As among threads: the lock is the system's."""
    assert written("race", 20, flight.parent) == (0, "1 19")
    assert [each.number for each in routes.history("flight").revisions] == [1, 2]
    assert wanted(routes) == Wanted(TWO.route, TWO.route)


def test_readers_beside_a_writer_see_one_revision_or_the_next(routes: RouteFolder, flight: Path) -> None:
    """Document and revision always belong together, and none goes back."""

    def read_many() -> list[int]:
        folder, numbers = RouteFolder(flight.parent), []
        for _ in range(60):
            document, newest = folder.read("flight")
            assert newest is not None
            assert document == format_route(newest.route)
            numbers.append(newest.number)
        return numbers

    with ThreadPoolExecutor(3) as threads:
        readers = [threads.submit(read_many) for _ in range(3)]
        for number in range(2, 12):
            routes.append(revision(number), routes.read("flight")[0])
        for reader in readers:
            numbers = reader.result()
            assert numbers == sorted(numbers)


@pytest.mark.parametrize("room", [0, 1, 17])
def test_a_full_disk_changes_nothing(routes: RouteFolder, flight: Path, room: int) -> None:
    """No byte more for the history, or a few: what was written of the line and of the document goes again."""
    for number in range(2, 5):
        routes.append(revision(number), routes.read("flight")[0])
    (flight / "route-history.ndjson").write_bytes(encode_revision(ONE) + b"\n" + b'{"audited":"padding"}\n' * 40)
    (flight / "route.json").write_bytes(format_route(ONE.route))
    before = files(flight)
    limit = 100 if room == 0 else len(before["route-history.ndjson"]) + room

    ended, said = written("full", limit, flight.parent)

    assert (ended, "nothing has changed" in said) == (REFUSED, True)
    assert files(flight) == before
    routes.append(TWO, routes.read("flight")[0])


def test_a_folder_that_cannot_be_written_is_obeyed_and_not_changed(routes: RouteFolder, flight: Path) -> None:
    """Its lock cannot be had; as the tests may run as root, a folder lies where the lock's file would."""
    (flight / ".route.lock").unlink()
    (flight / ".route.lock").mkdir()
    (flight / ".route.json.new").write_bytes(b"left behind")

    assert routes.read("flight") == (format_route(ONE.route), ONE)
    for change in (
        lambda: routes.append(TWO, format_route(ONE.route)),
        lambda: routes.accept([TWO]),
        lambda: routes.mark_audited(ONE),
    ):
        with pytest.raises(RouteStoreError, match=r"nothing has changed \(the setting `routes` names another folder\)"):
            change()
    assert routes.read("flight") == (format_route(ONE.route), ONE)


def test_where_there_can_be_no_folder_there_is_no_route(tmp_path: Path) -> None:
    """Below a regular file: reading finds nothing, changing is refused."""
    (tmp_path / "file").write_bytes(b"")
    routes = RouteFolder(tmp_path / "file")

    assert (routes.read("flight"), routes.history("flight").revisions) == ((None, None), [])
    assert routes.stamp("flight") == (None, None)
    with pytest.raises(RouteStoreError, match="expected a folder that can be written, got: Not a directory"):
        routes.append(ONE, None)


def test_a_document_that_cannot_be_replaced_counts_where_it_lies_ready(
    routes: RouteFolder, flight: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is mounted by itself: the revision holds for everyone, and there is no next one till it can be."""
    seen = routes.read("flight")[0]

    def busy(self: Path, target: Path) -> None:
        raise OSError(16, "Device or resource busy")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", busy)
        routes.append(TWO, seen)
        assert "expected a file that can be replaced, got: Device or resource busy" in caplog.text
        assert routes.read("flight") == (format_route(TWO.route), TWO)
        with pytest.raises(RouteStoreError, match=r"route\.json: expected a file that can be replaced; nothing has"):
            routes.append(THREE, routes.read("flight")[0])
        assert (flight / "route.json").read_bytes() == seen
        assert wanted(routes) == Wanted(TWO.route, TWO.route)
    assert wanted(routes) == Wanted(TWO.route, TWO.route)
    assert (flight / "route.json").read_bytes() == format_route(TWO.route)


def test_a_link_that_leads_out_is_not_read(
    routes: RouteFolder, flight: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Neither a file nor a folder of the model; within the folder links are read, as Kubernetes mounts them."""
    outside = tmp_path_factory.mktemp("outside") / "route.json"
    outside.write_bytes(EDITED)
    inside = flight / "..data.json"
    inside.write_bytes(EDITED)
    path = flight / "route.json"
    path.unlink()
    path.symlink_to(inside)
    read = routes.read("flight")[0]
    path.unlink()
    path.symlink_to(outside)
    refused = routes.read("flight")[0]
    (flight.parent / "grid").symlink_to(outside.parent)

    assert read == EDITED
    assert isinstance(refused, RouteError)
    assert "got a symbolic link that leads out of it" in str(refused)
    assert isinstance(routes.read("grid")[0], RouteError)


def test_links_in_a_circle_are_told(routes: RouteFolder, flight: Path) -> None:
    """As a document that cannot be read; the last revision is obeyed, and the next change puts a file there."""
    (flight / "route.json").unlink()
    (flight / "route.json").symlink_to(flight / "route.json")

    found = wanted(routes)
    routes.append(TWO, routes.read("flight")[0])

    assert (found.route, "expected" in (found.fault or "")) == (ONE.route, True)
    assert wanted(routes) == Wanted(TWO.route, TWO.route)


@pytest.mark.parametrize("model", ["", ".", "..", "../flight", "a/b", ".hidden", "a\\b", "a\x00b", "/etc"])
def test_names_that_could_leave_the_folder_are_unknown(tmp_path: Path, model: str) -> None:
    """Whatever is asked of them, and nothing is made."""
    routes = RouteFolder(tmp_path / "routes")
    named = msgspec.structs.replace(ONE, model=model)
    for ask in (
        lambda: routes.read(model),
        lambda: routes.stamp(model),
        lambda: routes.history(model),
        lambda: routes.append(named, None),
        lambda: routes.accept([named]),
        lambda: routes.mark_audited(named),
    ):
        with pytest.raises(UnknownModelError):
            ask()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("document", [None, EDITED])
def test_reading_leaves_nothing_behind(tmp_path: Path, flight: Path, document: bytes | None) -> None:
    """Neither a lock nor a history for a model whose route nobody changes."""
    flight.mkdir()
    if document is not None:
        (flight / "route.json").write_bytes(document)
    before = files(flight)

    found = RouteFolder(tmp_path).read("flight"), RouteFolder(tmp_path).read("unknown")

    assert found == ((document, None), (None, None))
    assert (files(flight), sorted(path.name for path in tmp_path.iterdir())) == (before, ["flight"])


def test_a_document_has_a_largest_size(routes: RouteFolder, flight: Path) -> None:
    """One of exactly a mebibyte is read; one that would be larger is refused before anything is written."""
    path = flight / "route.json"
    path.write_bytes(b" " * (1024 * 1024))
    assert routes.read("flight")[0] == path.read_bytes()
    path.write_bytes(b" " * (1024 * 1024 + 1))
    assert "expected at most 1048576 bytes" in str(routes.read("flight")[0])
    path.write_bytes(format_route(ONE.route))
    before = files(flight)
    huge = msgspec.structs.replace(TWO.route, salt="s" * 1024 * 1024)

    with pytest.raises(RouteError, match="expected a document of at most 1048576 bytes, got one of 1048"):
        routes.append(msgspec.structs.replace(TWO, route=huge), routes.read("flight")[0])

    assert files(flight) == before


def test_a_stamp_differs_when_document_or_history_do(routes: RouteFolder, flight: Path) -> None:
    """And is the same as long as nothing happens."""
    stamps = [routes.stamp("flight"), routes.stamp("flight")]
    routes.mark_audited(ONE)
    stamps.append(routes.stamp("flight"))
    (flight / "route.json").write_bytes(EDITED + b" ")
    stamps.append(routes.stamp("flight"))
    (flight / "route.json").unlink()
    stamps.append(routes.stamp("flight"))

    assert stamps[0] == stamps[1]
    assert len(set(stamps)) == 4


def test_what_holds_elsewhere_is_taken_over_once(routes: RouteFolder, flight: Path) -> None:
    """A revision that is known already is passed over; an edited document stays and is the next change."""
    assert routes.accept([ONE, TWO]) == [TWO]
    assert routes.accept([ONE, TWO]) == []
    assert wanted(routes) == Wanted(TWO.route, TWO.route)
    (flight / "route.json").write_bytes(EDITED)
    assert routes.accept([THREE]) == [THREE]

    assert wanted(routes) == Wanted(Route(champion="2", revision=4), THREE.route, edited=True)


def test_an_edit_that_holds_elsewhere_too_is_no_edit(routes: RouteFolder, flight: Path) -> None:
    """Two servers whose documents somebody edited alike: the one that comes second has nothing left to adopt."""
    (flight / "route.json").write_bytes(encode_route(TWO.route))

    assert routes.accept([TWO]) == [TWO]

    assert wanted(routes) == Wanted(TWO.route, TWO.route)
    assert (flight / "route.json").read_bytes() == format_route(TWO.route)
