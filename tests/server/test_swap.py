"""Versions that come and go while the server answers: the process's own part, without HTTP."""

import asyncio
import gc
import shutil
import weakref
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from server.bundles.folder_store import FolderStore
from server.bundles.repository import Repository
from server.errors import BundleError, ConflictError, NotReadyError, UnknownModelError
from server.eventlog.outbox import Outbox
from server.execution.session import Version, load_version
from server.metrics import Metrics
from server.routes.folder import RouteFolder
from server.routing.wanted import Wanted, wanted_of
from server.settings import EventSettings
from server.swap import LocalControl, Swapper
from server.traffic import Traffic


class Parts:
    """A repository of two versions of `flight` without a route document, 1 loaded at the start."""

    def __init__(self, packed: Path, folder: Path, load: Callable[[Path], Version] = load_version) -> None:
        self.models = folder / "models"
        self.packed = packed
        shutil.copytree(packed / "flight" / "1", self.models / "flight" / "1")
        self.outbox = Outbox(folder / "outbox.db", EventSettings())
        self.repository: Repository[Version] = Repository()
        self.metrics = Metrics(self.outbox)
        self.traffic = Traffic(self.repository, self.metrics)
        self.swapper = Swapper(FolderStore(self.models), self.repository, self.traffic, load, self.wanted, 1.0)
        self.swapper.load_all()

    def wanted(self, model: str) -> Wanted:
        """Returns what the folder wants of a model."""
        return wanted_of(*RouteFolder(self.models, of_bundles=True).read(model))

    def add(self, version: str) -> Path:
        """Copies a version of `flight` into the store and returns its folder."""
        return shutil.copytree(self.packed / "flight" / version, self.models / "flight" / version)

    def champion(self, model: str = "flight") -> str | None:
        """Returns the version that answers now."""
        champion = self.traffic.routes[model].champion
        return None if champion is None else champion.version.manifest.version

    def run(self, work: Callable[[LocalControl], Coroutine[Any, Any, None]]) -> None:
        """Runs work with a control, bounded in time."""

        async def bounded() -> None:
            await asyncio.wait_for(work(LocalControl(self.swapper)), 20)

        asyncio.run(bounded())


@pytest.fixture
def parts(packed: Path, tmp_path: Path) -> Any:
    """The parts, closed with the test."""
    made = Parts(packed, tmp_path)
    yield made
    made.swapper.close()
    made.outbox.close()


def test_a_loaded_version_is_champion_where_no_document_says_otherwise_and_leaves_again(parts: Parts) -> None:
    """Load 2: it answers. Unload 2: 1 answers again, and 2 is as unknown as before."""
    parts.add("2")

    async def swap(control: LocalControl) -> None:
        await control.load("flight", "2")
        assert (parts.champion(), parts.repository.versions("flight")) == ("2", ["1", "2"])
        await control.unload("flight", "2")

    parts.run(swap)

    assert (parts.champion(), parts.repository.versions("flight")) == ("1", ["1"])
    with pytest.raises(UnknownModelError, match="no version '2'"):
        parts.traffic.route("flight", "2")


def test_a_model_whose_versions_are_all_unloaded_is_unknown(parts: Parts) -> None:
    """And its metrics say that no arm has a share."""

    async def swap(control: LocalControl) -> None:
        await control.unload("flight", None)

    parts.run(swap)

    assert (parts.repository.models(), dict(parts.traffic.routes)) == ([], {})
    with pytest.raises(UnknownModelError, match="'flight' is unknown"):
        parts.traffic.route("flight", None)
    assert parts.metrics.route_share.labels("flight", "1", "champion")._value.get() == 0


def test_who_began_with_a_version_ends_with_it_and_then_its_memory_is_free(parts: Parts) -> None:
    """The old version lives as long as a request uses it; `drained` returns when the last one is done."""
    route = parts.traffic.routes["flight"]
    alive = weakref.ref(route.by_version["1"].version)
    parts.add("2")
    order: list[str] = []

    async def swap(control: LocalControl) -> None:
        nonlocal route
        await control.load("flight", "2")
        change = parts.swapper.plan_unload("flight", "1")
        await parts.swapper.prepare(change)
        parts.swapper.commit(change)
        waiting = asyncio.create_task(parts.swapper.drained(change))
        waiting.add_done_callback(lambda task: order.append("drained"))
        await asyncio.wait([waiting], timeout=0.05)
        assert (waiting.done(), alive() is not None) == (False, True)
        order.append("released")
        route = parts.traffic.routes["flight"]
        await waiting

    gc.disable()  # nothing but the last reference may be needed
    try:
        parts.run(swap)
    finally:
        gc.enable()

    assert (order, alive()) == (["released", "drained"], None)


def test_a_bundle_that_fails_changes_nothing_and_its_reason_is_kept(parts: Parts) -> None:
    """What serves goes on; the index has the reason; a mended bundle loads."""
    folder = parts.add("2")
    model = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(b"damaged")

    async def swap(control: LocalControl) -> None:
        with pytest.raises(BundleError, match=r"model\.onnx: expected SHA-256"):
            await control.load("flight", "2")
        status = parts.repository.status("flight", "2")
        assert status is not None
        assert (status.state, "damaged or changed" in status.reason) == ("UNAVAILABLE", True)
        assert (parts.champion(), parts.repository.known("flight")) == ("1", ["1"])
        (folder / "model.onnx").write_bytes(model)
        await control.load("flight", "2")

    parts.run(swap)

    assert parts.champion() == "2"


def test_loading_a_model_loads_what_is_new_or_changed_and_nothing_else(packed: Path, tmp_path: Path) -> None:
    """1 serves unchanged and is not read again; 2 is new; touched, 1 is loaded anew."""
    read: list[str] = []

    def load(folder: Path) -> Version:
        read.append(folder.name)
        return load_version(folder)

    parts = Parts(packed, tmp_path, load)
    parts.add("2")

    async def swap(control: LocalControl) -> None:
        await control.load("flight", None)
        await control.load("flight", None)
        manifest = parts.models / "flight" / "1" / "bundle.json"
        manifest.write_bytes(manifest.read_bytes() + b"\n")
        await control.load("flight", None)

    parts.run(swap)
    parts.swapper.close()
    parts.outbox.close()

    assert read == ["1", "2", "1"]


def test_what_a_route_document_names_is_not_unloaded(parts: Parts) -> None:
    """Champion and shadow of the document: 409 with both named; a version beside them goes."""
    for version in ("2", "3"):
        shutil.copytree(parts.packed / "flight" / "1", parts.models / "flight" / version)
        path = parts.models / "flight" / version / "bundle.json"
        path.write_bytes(path.read_bytes().replace(b'"version": "1"', f'"version": "{version}"'.encode()))
    document = b'{"champion": "1", "challengers": [{"version": "2"}]}'
    (parts.models / "flight" / "route.json").write_bytes(document)

    async def swap(control: LocalControl) -> None:
        await control.load("flight", None)
        assert parts.champion() == "1"
        with pytest.raises(ConflictError, match="got 1, 2: change the route first"):
            await control.unload("flight", None)
        await control.unload("flight", "3")

    parts.run(swap)

    assert parts.repository.versions("flight") == ["1", "2"]


def test_unknown_names_are_unknown(parts: Parts) -> None:
    """Models and versions that are not in the store, not loaded, or no names at all."""

    async def ask(control: LocalControl) -> None:
        for model, version in (("nobody", None), ("flight", "9"), ("../flight", None), ("flight", "../1")):
            with pytest.raises(UnknownModelError):
                await control.load(model, version)
            with pytest.raises(UnknownModelError):
                await control.unload(model, version)

    parts.run(ask)

    assert parts.repository.versions("flight") == ["1"]


def test_a_document_that_becomes_faulty_changes_nothing(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    """The last good one is obeyed, the fault told once; mended, it counts; taken away, the newest is champion."""
    parts.add("2")

    async def load(control: LocalControl) -> None:
        await control.load("flight", None)

    parts.run(load)
    parts.traffic.follow("flight", wanted_of(b'{"champion": "1", "revision": 3}', None))
    good = (parts.champion(), parts.traffic.routes["flight"].revision)
    faulty = []
    for document in (b"{", b'{"champion": "7"}', b'{"champion": "1", "x": 1}', b'{"champion": "1", "x": 1}'):
        parts.traffic.follow("flight", wanted_of(document, None))
        faulty.append((parts.champion(), parts.traffic.routes["flight"].revision))
    told = [record.getMessage() for record in caplog.records if "route refused" in record.getMessage()]
    fault = parts.traffic.faults["flight"]
    parts.traffic.follow("flight", Wanted())

    assert (good, set(faulty)) == (("1", 3), {("1", 3)})
    assert (len(told), "got 'x'" in fault) == (3, True)
    assert (parts.champion(), parts.traffic.faults) == ("2", {})


def test_a_folder_that_is_empty_changes_no_route(parts: Parts) -> None:
    """As where a volume is not mounted: the champion stays, though a newer version serves, and the fault is told."""
    parts.add("2")
    (parts.models / "flight" / "route.json").write_bytes(b'{"champion": "1"}')

    async def lose(control: LocalControl) -> None:
        await control.load("flight", None)
        shutil.rmtree(parts.models)
        parts.models.mkdir()
        parts.traffic.follow("flight", parts.wanted("flight"))

    parts.run(lose)

    assert (parts.champion(), "found nothing there" in parts.traffic.faults["flight"]) == ("1", True)


def test_a_document_is_obeyed_once_the_version_it_names_is_there(parts: Parts) -> None:
    """Whoever copies the document first and the bundle second gets what both say together."""
    (parts.models / "flight" / "route.json").write_bytes(b'{"champion": "2"}')

    async def swap(control: LocalControl) -> None:
        parts.traffic.follow("flight", parts.wanted("flight"))
        assert (parts.champion(), "got '2'" in parts.traffic.faults["flight"]) == ("1", True)
        parts.add("2")
        await control.load("flight", "2")

    parts.run(swap)

    assert (parts.champion(), parts.traffic.named("flight"), parts.traffic.faults) == ("2", {"2"}, {})


def test_a_refused_version_is_known_and_does_not_serve(packed: Path, tmp_path: Path) -> None:
    """A bundle that is damaged when the server starts: 503 with the reason, while the model's others serve."""
    shutil.copytree(packed / "flight" / "2", tmp_path / "models" / "flight" / "2")
    (tmp_path / "models" / "flight" / "2" / "examples.json").write_bytes(b"{}")
    parts = Parts(packed, tmp_path)
    parts.swapper.close()
    parts.outbox.close()

    assert (parts.repository.versions("flight"), parts.repository.known("flight")) == (["1"], ["1", "2"])
    assert parts.champion() == "1"
    with pytest.raises(NotReadyError, match="version '2' does not serve"):
        parts.traffic.route("flight", "2")
