"""Every store gives the same bundles and the same refusals, and nothing gets out of it or around its digests."""

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from server.bundles.folder_store import FolderStore
from server.bundles.store import open_store
from server.errors import BundleError, SettingsError, UnknownModelError
from server.execution.session import load_version
from tests.server.bundles.places import Folder, Memory, Place, Web, put_bundle, routes_beside

ESCAPES = ["..", ".", "", "../grid", "a/b", "a\\b", "a\0b", ".hidden", "/etc", "a\nb", "\ud800"]


@pytest.fixture
def bundle(packed: Path) -> Path:
    """`grid` version 1 as it was packed."""
    return packed / "grid" / "1"


def test_versions_are_the_folders_of_folders(place: Place, bundle: Path) -> None:
    """Complete or not; files, hidden folders and models without versions are none."""
    put_bundle(place, bundle)
    for name in ("grid/2 b/x", "grid/.new/x", ".git/1/x", "grid/route.json", "README", "50%/ü#?/x", "empty/x"):
        place.put(name, b"{}")

    assert {model: sorted(found) for model, found in place.store.versions().items()} == {
        "grid": ["1", "2 b"],
        "50%": ["ü#?"],
    }
    assert place.store.fingerprint("50%", "ü#?") is not None


def test_a_fetched_bundle_is_the_packed_one(place: Place, bundle: Path) -> None:
    """In a folder named by model and version, loaded with digests verified and examples replayed."""
    put_bundle(place, bundle)

    folder = place.store.fetch("grid", "1")

    assert (folder.parent.name, folder.name) == ("grid", "1")
    assert load_version(folder).manifest.model == "grid"
    assert place.store.missing("grid", "1") is None


def test_a_bundle_that_is_not_there_is_refused(place: Place, bundle: Path) -> None:
    """An unknown model, an unknown version, a folder without a manifest."""
    put_bundle(place, bundle)
    place.put("grid/3/x", b"")

    for model, version in (("grid", "2"), ("other", "1")):
        assert place.store.fingerprint(model, version) is None
        with pytest.raises(BundleError, match=f"{model}/{version}.*: expected a"):
            place.store.fetch(model, version)
    assert "3/bundle.json: expected a" in str(place.store.missing("grid", "3"))


@pytest.mark.parametrize("name", ESCAPES)
def test_a_name_that_could_leave_the_store_is_unknown(place: Place, bundle: Path, name: str) -> None:
    """As model and as version, for every question that takes names."""
    put_bundle(place, bundle)

    for ask in (place.store.fetch, place.store.fingerprint, place.store.missing):
        with pytest.raises(UnknownModelError):
            ask(name, "1")
        with pytest.raises(UnknownModelError):
            ask("grid", name)
    with pytest.raises(UnknownModelError):
        place.routes.read(name)


def test_what_is_missing_is_told_by_file_and_size(place: Place, bundle: Path) -> None:
    """A file that is not there, and one byte less of it; more than enough is for the digests to find."""
    put_bundle(place, bundle)
    graph = (bundle / "model.onnx").read_bytes()
    place.remove("grid/1/model.onnx")
    absent = place.store.missing("grid", "1")
    place.put("grid/1/model.onnx", graph[:-1])
    short = place.store.missing("grid", "1")
    place.put("grid/1/model.onnx", graph + b"x")

    assert str(absent).endswith(f"grid/1/model.onnx: expected {len(graph)} bytes, found no such file yet")
    assert str(short).endswith(f"grid/1/model.onnx: expected {len(graph)} bytes, got {len(graph) - 1} so far")
    assert place.store.missing("grid", "1") is None


def test_a_fingerprint_differs_when_a_file_does(place: Place, bundle: Path) -> None:
    """The same twice; another with a byte more, with a file more, with a file less."""
    put_bundle(place, bundle)
    marks = [place.store.fingerprint("grid", "1")]
    place.put("grid/1/README.md", (bundle / "README.md").read_bytes() + b"x")
    marks.append(place.store.fingerprint("grid", "1"))
    place.put("grid/1/NEW", b"")
    marks.append(place.store.fingerprint("grid", "1"))
    place.remove("grid/1/model.onnx")
    marks.append(place.store.fingerprint("grid", "1"))

    assert (len(set(marks)), marks[-1]) == (4, place.store.fingerprint("grid", "1"))


def test_a_route_document_is_read_as_it_is(place: Place, bundle: Path) -> None:
    """None where there is none, also of a model that is not there; as new as the store has it."""
    put_bundle(place, bundle)
    assert (place.routes.read("grid"), place.routes.read("other")) == ((None, None), (None, None))
    for document in (b'{"champion": "1"}', b'{"champion": "22"}'):
        place.put("grid/route.json", document)

        assert (document, None) == place.routes.read("grid")


def test_a_folder_without_anything_does_not_say_that_a_model_has_no_route(tmp_path: Path) -> None:
    """Empty or gone, as where a volume is not mounted: whether there is a document nobody can tell."""
    place = Folder(tmp_path)
    for state in ("empty", "gone"):
        if state == "gone":
            place.folder.rmdir()
        said, _ = place.routes.read("grid")

        document = place.folder / "grid" / "route.json"
        assert str(said) == f"{document}: expected bundles in {place.folder}, found nothing there"


def test_an_unreachable_store_is_told_by_what_and_where(place: Place, bundle: Path) -> None:
    """Every question raises; none answers that there is nothing, but a folder's that has gone with its parent."""
    put_bundle(place, bundle)
    store = place.store
    with place.away():
        with pytest.raises(BundleError, match="models"):
            store.versions()
        with pytest.raises(BundleError, match="models"):
            store.fetch("grid", "1")
        if isinstance(place, Web):
            with pytest.raises(BundleError, match="grid/1: expected a store that answers, got: 500"):
                store.fingerprint("grid", "1")
            assert "route.json: expected a store that answers, got: 500" in str(place.routes.read("grid")[0])


def test_a_connection_refused_is_a_bundle_error(tmp_path: Path) -> None:
    """Nobody listens at port 1."""
    store = open_store("http://127.0.0.1:1/models", tmp_path)

    for ask in (store.versions, lambda: store.fetch("m", "1"), lambda: store.fingerprint("m", "1")):
        with pytest.raises(BundleError, match="expected a store that answers, got: Cannot connect"):
            ask()
    assert "Cannot connect" in str(routes_beside(store).read("m")[0])


def test_the_secret_of_a_url_is_in_no_message(tmp_path: Path) -> None:
    """User and password are for the store alone."""
    store = open_store("http://user:s3cret@127.0.0.1:1/models", tmp_path)

    assert store.where == "http://127.0.0.1:1/models"
    with pytest.raises(BundleError) as caught:
        store.versions()
    assert "s3cret" not in str(caught.value)
    with pytest.raises(SettingsError) as refused:
        open_store("http://user:s3cret@127.0.0.1:1/models?token=s3cret", tmp_path)
    assert str(refused.value) == "models http://127.0.0.1:1/models: expected a URL without ? and #"


def test_a_url_that_cannot_be_used_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder, an unknown scheme, a host in a file's URL, drivers that are not installed."""
    for models, sentence in (
        (str(tmp_path / "none"), "none: expected a folder of bundles, found none"),
        (f"file://{tmp_path}/none", "none: expected a folder of bundles, found none"),
        ("file://models", "expected file:///FOLDER"),
        ("gopher://x", "models gopher://x: expected a URL that fsspec knows, got: Protocol not known: gopher"),
    ):
        with pytest.raises(SettingsError, match=sentence):
            open_store(models, tmp_path)
    for module, url in (
        ("s3fs", "s3://b/m"),
        ("gcsfs", "gs://b/m"),
        ("aiohttp", "http://h/m"),
        ("fsspec", "memory://m"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(SettingsError, match=r"run: pip install 'tiltyard\[remote\]'"):
            open_store(url, tmp_path)


def test_a_file_url_is_a_folder(tmp_path: Path, packed: Path) -> None:
    """With its percent signs read."""
    (tmp_path / "my models").symlink_to(packed)

    store = open_store(f"file://{tmp_path}/my%20models", tmp_path)

    assert isinstance(store, FolderStore)
    assert sorted(store.versions()) == ["delay", "flight", "grid"]


# Symbolic links in a folder.


def test_links_that_stay_in_the_store_are_followed(tmp_path: Path, packed: Path) -> None:
    """The root may be a link, and so may a version's folder or a file, as long as they lead below the root."""
    (tmp_path / "models").symlink_to(packed)
    assert load_version(FolderStore(tmp_path / "models").fetch("grid", "1")).manifest.version == "1"

    place = Folder(tmp_path / "other")
    for path in (packed / "grid" / "1").iterdir():
        place.put(f".blobs/{path.name}", path.read_bytes())
    (place.folder / "grid").mkdir()
    (place.folder / "grid" / "1").symlink_to("../.blobs")
    assert place.store.versions() == {"grid": ["1"]}
    assert load_version(place.store.fetch("grid", "1")).manifest.version == "1"


@pytest.mark.parametrize("linked", ["grid", "grid/1", "grid/1/model.onnx", "grid/1/bundle.json", "grid/1/extra"])
def test_a_link_out_of_the_store_is_refused(tmp_path: Path, bundle: Path, linked: str) -> None:
    """A model, a version, a file of it: not read, though what it leads to is a sound bundle."""
    place = Folder(tmp_path)
    put_bundle(place, bundle)
    outside = (tmp_path / "models" / linked).rename(tmp_path / "outside") if linked != "grid/1/extra" else bundle
    (tmp_path / "models" / linked).symlink_to(outside)

    refused = "grid/1" if linked == "grid" else linked  # and no name of what lies outside
    with pytest.raises(BundleError, match=f"{refused}: expected a file below .*, got a symbolic link that leads out"):
        place.store.fetch("grid", "1")
    assert f"{refused}: expected a file below" in str(place.store.missing("grid", "1"))


def test_a_route_document_that_is_a_link_out_of_the_store_is_refused(tmp_path: Path, bundle: Path) -> None:
    """It could show a file's beginning in the sentence that refuses it."""
    place = Folder(tmp_path)
    put_bundle(place, bundle)
    (tmp_path / "secret").write_text("{}")
    (tmp_path / "models" / "grid" / "route.json").symlink_to(tmp_path / "secret")

    assert "got a symbolic link that leads out of it" in str(place.routes.read("grid")[0])


@pytest.mark.parametrize("kind", ["circle", "nowhere", "pipe"])
def test_what_is_no_file_is_refused(tmp_path: Path, bundle: Path, kind: str) -> None:
    """Links in a circle or to nowhere, and a pipe, whose reader would wait for ever."""
    place = Folder(tmp_path)
    put_bundle(place, bundle)
    path = tmp_path / "models" / "grid" / "1" / "model.onnx"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("model.onnx" if kind == "circle" else "none")

    with pytest.raises(BundleError, match="grid/1"):
        place.store.fetch("grid", "1")
    assert "grid/1" in str(place.store.missing("grid", "1"))
    assert place.store.fingerprint("grid", "1") is not None


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """The rights of nobody, where the tests run with all."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_model_whose_folder_may_not_be_read_hides_no_other(bundle: Path) -> None:
    """A volume's `lost+found` is no reason not to start; what served from such a folder is not taken for gone."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        place = Folder(Path(name))
        put_bundle(place, bundle)
        place.put("closed/1/bundle.json", b"{}")
        (place.folder / "closed").chmod(0o000)
        with unprivileged():
            assert place.store.versions() == {"grid": ["1"]}
            with pytest.raises(BundleError, match="closed/1: expected a readable file or folder, got: Permission"):
                place.store.fingerprint("closed", "1")
        (place.folder / "closed").chmod(0o755)


# What a remote store may send.


def test_a_bundle_is_downloaded_once(web: Web, bundle: Path, tmp_path: Path) -> None:
    """The second fetch, and that of another store object, read the manifest and nothing else."""
    put_bundle(web, bundle)
    first = web.store.fetch("grid", "1")
    again = open_store(web.url, tmp_path / "cache").fetch("grid", "1")

    digest = hashlib.sha256((bundle / "bundle.json").read_bytes()).hexdigest()
    assert first == again == tmp_path / "cache" / digest / "grid" / "1"
    assert (web.count("grid/1/model.onnx"), web.count("grid/1/bundle.json")) == (1, 2)


def test_a_folder_without_files_is_gone(web: Web) -> None:
    """An object store may keep a marker of a folder whose last object was deleted."""
    web.put("grid/1/x", b"")
    web.remove("grid/1/x")

    assert web.store.fingerprint("grid", "1") is None


@pytest.mark.parametrize("damage", ["changed", "shorter", "gone", "partial"])
def test_a_damaged_cache_is_mended(web: Web, bundle: Path, damage: str) -> None:
    """A flipped bit, a cut or missing file, and what a killed download left behind."""
    put_bundle(web, bundle)
    folder = web.store.fetch("grid", "1")
    path = folder / "model.onnx"
    data = path.read_bytes()
    if damage == "changed":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "shorter":
        path.write_bytes(data[:-1])
    elif damage == "gone":
        path.unlink()
    else:
        folder.rename(folder.with_name(".1.partial"))

    assert load_version(web.store.fetch("grid", "1")).manifest.version == "1"
    assert web.count("grid/1/model.onnx") == 2
    assert sorted(each.name for each in folder.parent.iterdir()) == ["1"]


def spoil(web: Web, name: str, data: bytes, length: int | None = None) -> None:
    """Makes the server send other bytes for a file, and lie about their number where one is given."""
    web.handler.spoiled[f"/models/grid/1/{name}"] = (200, len(data) if length is None else length, data)


def test_a_download_that_is_not_what_the_manifest_says_is_refused(web: Web, bundle: Path, tmp_path: Path) -> None:
    """Short, cut off, damaged, longer, endless: named, and nothing of it is kept; then the sound one loads."""
    put_bundle(web, bundle)
    data = (bundle / "model.onnx").read_bytes()
    for sent, length, sentence in (
        (data[:-1], None, rf"model\.onnx: expected {len(data)} bytes, got {len(data) - 1}"),
        (data[:-1], len(data), r"model\.onnx: expected a store that answers, got: .*payload"),
        (data[:-1] + bytes([data[-1] ^ 1]), None, r"model\.onnx: expected SHA-256"),
        (data + b"x", None, rf"model\.onnx: expected at most {len(data)} bytes, got more"),
        (data + bytes(4_000_000), 10**12, rf"model\.onnx: expected at most {len(data)} bytes, got more"),
    ):
        spoil(web, "model.onnx", sent, length)
        with pytest.raises(BundleError, match=sentence):
            web.store.fetch("grid", "1")
        assert [path.name for path in (tmp_path / "cache").rglob("*") if path.name not in (".lock", "grid")] == [
            hashlib.sha256((bundle / "bundle.json").read_bytes()).hexdigest()
        ]
    web.handler.spoiled.clear()

    assert load_version(web.store.fetch("grid", "1")).manifest.version == "1"


@pytest.mark.parametrize("name", ["../../evil", "..", "/etc/evil", "a\0b", "a\\b", "bundle.json", "", "a/b"])
def test_a_manifest_cannot_write_beside_the_bundle(tmp_path: Path, bundle: Path, name: str) -> None:
    """A name in `files` that is not plain is refused before anything is downloaded."""
    place = Memory(tmp_path)
    put_bundle(place, bundle)
    manifest = msgspec.json.decode((bundle / "bundle.json").read_bytes())
    manifest["files"][name] = {"sha256": hashlib.sha256(b"").hexdigest(), "size_bytes": 0}
    place.put("grid/1/bundle.json", msgspec.json.encode(manifest))

    with pytest.raises(BundleError, match="expected a plain file name in files, got"):
        place.store.fetch("grid", "1")
    assert not (tmp_path / "cache").exists()


def test_a_manifest_that_names_another_model_is_refused_and_leads_nowhere(web: Web, bundle: Path) -> None:
    """The folder's names count: nothing outside it is asked for, and loading refuses the contradiction."""
    put_bundle(web, bundle)
    manifest = msgspec.json.decode((bundle / "bundle.json").read_bytes()) | {"model": "../../secret"}
    web.put("grid/1/bundle.json", msgspec.json.encode(manifest))

    folder = web.store.fetch("grid", "1")

    with pytest.raises(BundleError, match=r"expected model 'grid' as its folder, got '\.\./\.\./secret'"):
        load_version(folder)
    assert {path.rpartition("/")[0] for path in web.handler.requests} == {"/models/grid/1"}


def test_a_manifest_without_end_is_refused(web: Web, bundle: Path) -> None:
    """16 MiB of it are read and no more."""
    put_bundle(web, bundle)
    spoil(web, "bundle.json", bytes(17 * 1024 * 1024), 10**12)

    with pytest.raises(BundleError, match=r"bundle\.json: expected at most 16777216 bytes, got more"):
        web.store.fetch("grid", "1")


def test_an_empty_file_of_a_bundle_is_fetched(web: Web, bundle: Path) -> None:
    """Zero bytes are a file too."""
    put_bundle(web, bundle)
    manifest = msgspec.json.decode((bundle / "bundle.json").read_bytes())
    manifest["files"]["EMPTY"] = {"sha256": hashlib.sha256(b"").hexdigest(), "size_bytes": 0}
    web.put("grid/1/bundle.json", msgspec.json.encode(manifest))
    web.put("grid/1/EMPTY", b"")

    assert (web.store.fetch("grid", "1") / "EMPTY").read_bytes() == b""


def test_a_cache_that_cannot_be_written_is_told(web: Web, bundle: Path, tmp_path: Path) -> None:
    """A file stands where the cache should be."""
    put_bundle(web, bundle)
    (tmp_path / "cache").write_text("")

    with pytest.raises(BundleError, match="expected a cache that can be written, got: "):
        web.store.fetch("grid", "1")


FETCH = """
import sys
from pathlib import Path
from server.bundles.store import open_store
from server.bundles.bundle import read_bundle
store = open_store(sys.argv[1], Path(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
print(read_bundle(store.fetch("grid", "1")).manifest.version, flush=True)
"""


def test_two_processes_that_fetch_at_once_both_have_it(web: Web, bundle: Path, tmp_path: Path) -> None:
    """One downloads, the other waits for it."""
    put_bundle(web, bundle)
    command = [sys.executable, "-c", FETCH, web.url, str(tmp_path / "cache")]
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
            )
            for _ in range(2)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        said = [process.communicate(timeout=30)[0] for process in processes]

    assert (said, [process.returncode for process in processes]) == (["1\n", "1\n"], [0, 0])
    assert web.count("grid/1/model.onnx") == 1
