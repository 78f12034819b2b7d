"""Loading and unloading over HTTP, and in a watched repository by folders, under load."""

import asyncio
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from server.app import build_app, build_service
from server.bundles.remote_store import DOCUMENT_BYTES
from server.contract.events import Audited, Prediction
from server.eventlog.outbox import Outbox
from server.settings import Settings
from tests.server.bundles.places import Memory, put_bundle
from tests.server.live_server import Running, tensors, wait_for

INFER = "/v2/models/flight/infer"
INDEX = "/v2/repository/index"


@pytest.fixture
def models(packed: Path, tmp_path: Path) -> Path:
    """A store of its own: `flight` 1 without a route document."""
    shutil.copytree(packed / "flight" / "1", tmp_path / "models" / "flight" / "1")
    return tmp_path / "models"


def change(client: httpx.Client, action: str, version: str | None = None, model: str = "flight") -> httpx.Response:
    body = {} if version is None else {"parameters": {"version": version}}
    return client.post(f"/v2/repository/models/{model}/{action}", json=body)


def states(client: httpx.Client, content: bytes = b"") -> dict[str, tuple[str, str]]:
    """Returns state and reason by version of `flight`, as the index has them."""
    entries = client.post(INDEX, content=content).raise_for_status().json()
    return {entry["version"]: (entry["state"], entry["reason"]) for entry in entries if entry["name"] == "flight"}


def test_the_index_tells_what_is_there_and_why_it_does_not_serve(
    serve: Callable[..., Running], models: Path, packed: Path
) -> None:
    """Serving, not loaded, and refused with its reason; `ready` leaves the others out; an empty string is a body."""
    running = serve(models)
    shutil.copytree(packed / "flight" / "2", models / "flight" / "2")
    broken = shutil.copytree(packed / "flight" / "2", models / "flight" / "3")
    refused = change(running.client, "load", "3")

    found = states(running.client, b'""')
    assert (found["1"], found["2"]) == (("READY", ""), ("UNAVAILABLE", "not loaded"))
    assert (found["3"][0], str(broken) in found["3"][1]) == ("UNAVAILABLE", True)
    assert (refused.status_code, "expected version '3' as its folder, got '2'" in refused.json()["error"]) == (
        400,
        True,
    )
    assert states(running.client, b'{"ready": true}') == {"1": ("READY", "")}
    assert running.client.post(INDEX, content=b"[").status_code == 400


def test_a_version_is_loaded_answers_and_is_unloaded(serve: Callable[..., Running], models: Path, packed: Path) -> None:
    """By the API alone; each change is an event of its own, and the metrics know the arm from the start."""
    running = serve(models)
    shutil.copytree(packed / "flight" / "2", models / "flight" / "2")

    def version() -> str:
        return str(running.client.post(INFER, json=tensors()).raise_for_status().json()["model_version"])

    answered = [version()]
    loaded = change(running.client, "load", "2")
    assert running.metric('tiltyard_route_share{model="flight",role="champion",version="2"}') == 1
    answered.append(version())
    unloaded = change(running.client, "unload", "2")
    answered.append(version())

    assert (loaded.status_code, loaded.json(), unloaded.status_code) == (200, {}, 200)
    assert answered == ["1", "2", "1"]
    assert running.client.post("/v2/models/flight/versions/2/infer", json=tensors()).status_code == 404
    assert running.metric('tiltyard_route_share{model="flight",role="champion",version="2"}') == 0
    audits = [event.data for event in running.events() if isinstance(event, Audited)]
    assert [(audit.action, json.loads(bytes(audit.after))["serving"]) for audit in audits] == [
        ("load", ["1", "2"]),
        ("unload", ["1"]),
    ]


def test_what_cannot_be_changed_is_said_with_its_status(serve: Callable[..., Running], packed: Path) -> None:
    """Unknown: 404. Named by a route document: 409. A bundle in the request, or a version that is no string: 400."""
    running = serve(packed)

    def refusal(action: str, body: object, model: str = "flight") -> tuple[int, str]:
        answer = running.client.post(f"/v2/repository/models/{model}/{action}", json=body)
        return answer.status_code, answer.json()["error"]

    assert refusal("load", {}, "nobody")[0] == 404
    assert refusal("load", {"parameters": {"version": "9"}})[0] == 404
    assert refusal("unload", {}, "nobody")[0] == 404
    assert refusal("load", {}, "..%2fflight")[0] == 404
    assert refusal("unload", {}) == (
        409,
        "model 'flight': expected versions that its route document does not name, got 1, 2: change the route first",
    )
    assert refusal("load", {"parameters": {"config": "{}"}})[0] == 400
    assert refusal("load", {"parameters": {"file:1/model.onnx": "AAAA"}})[0] == 400
    assert refusal("load", {"parameters": {"version": 2}})[0] == 400
    assert refusal("load", [])[0] == 400
    assert running.client.post(INFER, json=tensors()).status_code == 200


def test_versions_are_swapped_under_load_without_a_failed_request(
    serve: Callable[..., Running], models: Path, packed: Path
) -> None:
    """Eight clients ask without a pause while two versions replace each other twenty times."""
    running = serve(models)
    shutil.copytree(packed / "flight" / "2", models / "flight" / "2")
    change(running.client, "load", "2").raise_for_status()
    done = threading.Event()
    statuses: list[int] = []
    versions: list[str] = []

    def ask() -> None:
        with httpx.Client(base_url=running.client.base_url, timeout=30) as client:
            while not done.is_set():
                answer = client.post(INFER, json=tensors())
                statuses.append(answer.status_code)
                versions.append(answer.json().get("model_version"))

    clients = [threading.Thread(target=ask) for _ in range(8)]
    for client in clients:
        client.start()
    swaps = [
        change(running.client, action, version).status_code
        for newcomer, former in [("2", "1"), ("1", "2")] * 10
        for action, version in (("load", newcomer), ("unload", former))
    ]
    done.set()
    for client in clients:
        client.join()

    assert set(swaps) == {200}
    assert (set(statuses), set(versions)) == ({200}, {"1", "2"})
    predictions = [event for event in running.events() if isinstance(event, Prediction)]
    assert len(predictions) == len(statuses)


def test_a_changed_route_document_is_obeyed_within_a_second(
    serve: Callable[..., Running], packed: Path, tmp_path: Path
) -> None:
    """And a faulty one changes nothing; /health tells of it."""
    models = shutil.copytree(packed, tmp_path / "models")
    running = serve(models, TILTYARD_WATCH_S="0.05")
    document = models / "flight" / "route.json"

    def version() -> str:
        return str(running.client.post(INFER, json=tensors()).raise_for_status().json()["model_version"])

    def put(text: str) -> None:
        (models / "new").write_text(text)
        (models / "new").rename(document)

    assert version() == "1"
    put('{"champion": "2", "revision": 5}')
    wait_for(lambda: version() == "2", "the new champion")
    put('{"champion": "8"}')
    wait_for(lambda: running.client.get("/health").json()["warnings"], "the warning")

    assert version() == "2"
    assert "got '8'" in running.client.get("/health").json()["warnings"][0]
    assert running.client.get("/v2/health/ready").status_code == 200


def test_a_watched_repository_follows_its_folders(serve: Callable[..., Running], models: Path, packed: Path) -> None:
    """A version that is copied slowly is loaded once it is whole; one whose folder goes is unloaded; no API."""
    running = serve(models, TILTYARD_REPOSITORY="watched", TILTYARD_WATCH_S="0.05")
    target = models / "flight" / "2"
    target.mkdir()
    for name in ("bundle.json", "examples.json", "baseline.json", "README.md"):
        shutil.copy(packed / "flight" / "2" / name, target / name)
    graph = (packed / "flight" / "2" / "model.onnx").read_bytes()
    (target / "model.onnx").write_bytes(graph[: len(graph) // 2])

    def serving() -> list[str]:
        return list(running.client.get("/v2/models/flight").json()["versions"])

    refused = change(running.client, "load", "2")
    assert (refused.status_code, "explicit" in refused.json()["error"]) == (409, True)
    assert serving() == ["1"]
    (target / "model.onnx").write_bytes(graph)
    wait_for(lambda: serving() == ["1", "2"], "the new version")
    shutil.rmtree(target)
    wait_for(lambda: serving() == ["1"], "the version to go")

    audits = [event.data for event in running.events() if isinstance(event, Audited)]
    assert [(audit.action, audit.by) for audit in audits] == [("load", "watcher"), ("unload", "watcher")]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_index_of_a_watched_repository_tells_what_a_version_lacks(
    serve: Callable[..., Running], models: Path, packed: Path, workers: str
) -> None:
    """Every worker does, and as it is now: an earlier refusal is past, and what is being replaced still serves."""
    running = serve(models, TILTYARD_REPOSITORY="watched", TILTYARD_WATCH_S="0.05", TILTYARD_WORKERS=workers)
    shutil.copytree(packed / "flight" / "2", models / "flight" / "2")
    wait_for(lambda: states(running.client).get("2") == ("READY", ""), "version 2")
    shutil.copytree(packed / "flight" / "2", models / "flight" / "3")
    wait_for(lambda: states(running.client)["3"][1].endswith("got '2'"), "the refusal of version 3")

    for version in ("2", "3"):
        graph = models / "flight" / version / "model.onnx"
        size_bytes = len(graph.read_bytes())
        graph.write_bytes(b"half of it")
    found = []
    for _ in range(12):  # a new connection each time, so that every worker takes some
        with httpx.Client(base_url=running.client.base_url, timeout=30) as client:
            found.append(states(client))

    lacking = f"{graph}: expected {size_bytes} bytes, got 10 so far"
    assert found == [{"1": ("READY", ""), "2": ("READY", ""), "3": ("UNAVAILABLE", lacking)}] * 12
    assert states(running.client, b'{"ready": true}') == {"1": ("READY", ""), "2": ("READY", "")}


def test_a_version_that_cannot_be_looked_at_hides_no_other(packed: Path, tmp_path: Path) -> None:
    """What the store says of it is its reason in the index of a watched repository."""
    place = Memory(tmp_path)
    put_bundle(place, packed / "grid" / "1")
    settings = Settings(
        models=f"memory:/{place.root}",
        repository="watched",
        cache=tmp_path / "cache",
        outbox=tmp_path / "outbox.db",
    )
    service = build_service(settings, Outbox(settings.outbox, settings.events))
    place.put("grid/2/bundle.json", b" " * (DOCUMENT_BYTES + 1))

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=build_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.post(INDEX)

    answer = asyncio.run(ask())
    service.log.close()

    first, second = answer.json()
    assert (first["state"], second["state"]) == ("READY", "UNAVAILABLE")
    assert second["reason"].endswith("grid/2/bundle.json: expected at most 16777216 bytes, got more")
