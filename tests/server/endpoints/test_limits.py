"""Every limit of a request over HTTP: just below it, at it, and beyond it. Those of time, headers and
connections are in test_http_protocol.py, requests at once in test_protection.py."""

import asyncio
import base64
import gzip
import json
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from server.app import build_app, build_service
from server.contract.events import Event, Prediction
from server.eventlog.outbox import Outbox
from server.settings import EventSettings, LimitSettings, Settings
from tests.server.live_server import read_events, tensors

INFER = "/v2/models/grid/infer"
ROWS = "/v1/models/grid/predict"


def grid(rows: int, **members: object) -> dict[str, object]:
    """Returns a request of some rows to `grid`, two elements each."""
    tensor = {"name": "input", "shape": [rows, 2], "datatype": "FP32", "data": [[1.0, 2.0]] * rows}
    return {"inputs": [tensor], **members}


def named(rows: int) -> dict[str, object]:
    return {"rows": [{"hour": 1, "distance": 2.0}] * rows}


def nested(depth: int) -> dict[str, Any]:
    """Returns an object of arrays and objects that are so deep in each other."""
    value: Any = 0
    for _ in range(depth - 1):
        value = [value]
    return {"deep": value}


def ask(
    packed: Path,
    folder: Path,
    work: Callable[[httpx.AsyncClient], Awaitable[Any]],
    limits: dict[str, object] | None = None,
    events: dict[str, object] | None = None,
) -> tuple[Any, list[Event]]:
    """Returns what the work returns with a server of these settings, and the events it logged."""
    settings = Settings(
        models=str(packed),
        outbox=folder / "outbox.db",
        limits=LimitSettings.model_validate(limits or {}),
        events=EventSettings.model_validate(events or {}),
    )
    service = build_service(settings, Outbox(settings.outbox, settings.events))

    async def run() -> Any:
        transport = httpx.ASGITransport(app=build_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://s") as client:
            return await work(client)

    found = asyncio.run(asyncio.wait_for(run(), 20))
    service.shadows.drain()
    service.log.close()
    return found, read_events(settings.outbox)


@pytest.mark.parametrize(
    ("limit", "at", "path", "request_of"),
    [
        ("elements", 8, INFER, lambda size: grid(size // 2)),
        ("elements", 8, ROWS, lambda size: named(size // 2)),
        ("rows", 4, INFER, grid),
        ("rows", 4, ROWS, named),
        ("nesting", 5, INFER, lambda size: grid(1, parameters=nested(size))),
        ("feedback_items", 3, "/v1/feedback", lambda size: {"feedback": [{"id": "r", "label": 1}] * size}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_limit(
    packed: Path, tmp_path: Path, limit: str, at: int, path: str, request_of: Callable[[int], object]
) -> None:
    """Below and at it the request is answered, beyond it 400 names the limit."""
    step = 2 if limit == "elements" else 1

    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [await client.post(path, json=request_of(size)) for size in (at - step, at, at + step)]

    below, exact, beyond = ask(packed, tmp_path, work, {limit: at})[0]

    assert (below.is_success, exact.is_success, beyond.status_code) == (True, True, 400)
    assert str(at) in beyond.json()["error"]


@pytest.mark.parametrize("encoding", [None, "gzip", "deflate"])
def test_a_bodys_size(packed: Path, tmp_path: Path, encoding: str | None) -> None:
    """As sent and as decompressed: below and at the limit answered, one byte more is 413; a bomb is too."""
    content = json.dumps(grid(1)).encode()
    pad = {None: lambda data: data, "gzip": gzip.compress, "deflate": zlib.compress}[encoding]
    limit = 2048
    limits = {"body_bytes": limit} if encoding is None else {"decompressed_bytes": limit}
    headers = {} if encoding is None else {"content-encoding": encoding}

    async def work(client: httpx.AsyncClient) -> list[int]:
        bodies = [content.ljust(size) for size in (limit - 1, limit, limit + 1, 50_000_000)]
        return [(await client.post(INFER, content=pad(body), headers=headers)).status_code for body in bodies]

    statuses, _ = ask(packed, tmp_path, work, limits)

    assert statuses == [200, 200, 413, 413]


def test_a_body_without_a_length_is_cut_off_at_the_limit(packed: Path, tmp_path: Path) -> None:
    """Chunks are counted as they come; what would come after the limit is not asked for."""
    sent: list[int] = []

    async def chunks() -> Any:
        for number in range(1000):
            sent.append(number)
            yield b" " * 512

    async def work(client: httpx.AsyncClient) -> int:
        return (await client.post(INFER, content=chunks())).status_code

    status, _ = ask(packed, tmp_path, work, {"body_bytes": 2048})

    assert (status, len(sent) < 10) == (413, True)


def test_an_unknown_encoding_is_415(packed: Path, tmp_path: Path) -> None:
    """And one that is not what it says is 400."""

    async def work(client: httpx.AsyncClient) -> list[int]:
        return [
            (await client.post(INFER, content=b"x", headers={"content-encoding": name})).status_code
            for name in ("br", "gzip", "deflate")
        ]

    assert ask(packed, tmp_path, work)[0] == [415, 400, 400]


def test_inputs_beyond_their_limit_are_left_out_of_the_event(packed: Path, tmp_path: Path) -> None:
    """At the limit they are kept, beyond it the event says `cut`; the answer is the same, and the outputs are there."""
    size = len(json.dumps(grid(2)["inputs"], separators=(",", ":")))

    async def work(client: httpx.AsyncClient) -> list[int]:
        bodies = [json.dumps(grid(rows), separators=(",", ":")) for rows in (2, 3)]
        return [(await client.post(INFER, content=body)).status_code for body in bodies]

    statuses, events = ask(packed, tmp_path, work, events={"input_bytes": size})

    kept, cut = (event.data for event in events if isinstance(event, Prediction))
    assert statuses == [200, 200]
    assert (len(kept.inputs), kept.inputs_omitted, kept.rows) == (size, None, 2)  # type: ignore[arg-type]  # there
    assert (bool(cut.inputs), cut.inputs_omitted, cut.rows) == (False, "cut", 3)
    assert cut.outputs


def test_binary_tensors_are_logged_as_they_came(packed: Path, tmp_path: Path) -> None:
    """Inputs and the outputs that left in binary are packed; outputs in JSON stay JSON."""
    values = np.array([[1.5, 2.5]], dtype="<f4")
    tensor = {"name": "input", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": values.nbytes}}
    wanted = [{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "label"}]
    head = json.dumps({"id": "b", "inputs": [tensor], "outputs": wanted}).encode()

    async def work(client: httpx.AsyncClient) -> tuple[httpx.Response, httpx.Response]:
        length = {"Inference-Header-Content-Length": str(len(head))}
        binary = await client.post(INFER, content=head + values.tobytes(), headers=length)
        nothing = {"Inference-Header-Content-Length": "0"}
        return binary, await client.post(INFER, content=values.tobytes(), headers=nothing)

    (binary, raw), events = ask(packed, tmp_path, work)

    cut = int(binary.headers["inference-header-content-length"])
    answer = json.loads(binary.content[:cut])
    probabilities = np.frombuffer(binary.content[cut:], "<f4")
    logged = next(event.data for event in events if event.subject == "b" and isinstance(event, Prediction))
    inputs, outputs = (json.loads(bytes(part)) for part in (logged.inputs, logged.outputs))  # type: ignore[arg-type]
    assert [output["name"] for output in answer["outputs"]] == ["probabilities", "label"]
    assert binary.headers["content-type"] == "application/octet-stream"
    assert base64.b64decode(inputs[0]["base64"]) == values.tobytes()
    assert {output["name"]: "base64" in output for output in outputs} == {"label": False, "probabilities": True}
    by_name = {output["name"]: output["data"] for output in raw.json()["outputs"]}
    np.testing.assert_allclose(by_name["probabilities"], probabilities, atol=1e-6)


def test_answers_are_compressed_where_the_client_takes_it_and_it_is_worth_it(packed: Path, tmp_path: Path) -> None:
    """A large answer is, a small one is not, and one to a client that says nothing is not."""

    async def work(client: httpx.AsyncClient) -> list[tuple[str | None, int]]:
        found = []
        for rows, accepted in ((200, "gzip"), (200, "deflate"), (200, "identity"), (1, "gzip")):
            answer = await client.post(INFER, json=grid(rows), headers={"accept-encoding": accepted})
            found.append((answer.headers.get("content-encoding"), len(answer.json()["outputs"][0]["data"])))
        return found

    found, _ = ask(packed, tmp_path, work)

    assert found == [("gzip", 200), ("deflate", 200), (None, 200), (None, 1)]


def test_the_chosen_version_and_the_route_answer_alike(packed: Path, tmp_path: Path) -> None:
    """Instances as objects and as lists, over KServe's V1 path, are the rows of the other endpoint."""

    async def work(client: httpx.AsyncClient) -> list[Any]:
        rows = [{"hour": 1, "distance": 2.0}, {"hour": 20, "distance": 900.0}]
        lists = [list(row.values()) for row in rows]
        answers = [
            await client.post(ROWS, json={"rows": rows}),
            await client.post("/v1/models/grid:predict", json={"instances": rows}),
            await client.post("/v1/models/grid:predict", json={"instances": lists}),
        ]
        answers[0].raise_for_status()
        wrong = await client.post("/v1/models/grid:predict", json={"instances": [[1]]})
        assert (wrong.status_code, (await client.post(INFER, json=tensors())).status_code) == (400, 400)
        assert (await client.post("/v1/models/grid:explain", json={})).status_code == 404
        return [answer.json()["predictions"] for answer in answers]

    found, _ = ask(packed, tmp_path, work)

    assert found[0] == found[1] == found[2]
