"""What a client sees, over a real server with real bundles and a real log."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from starlette.routing import Route

from server.app import build_app, build_service
from server.contract.events import Labelled, Prediction, Shadow
from server.endpoints.inference import Inference, Reply, Tensors
from server.eventlog.outbox import Outbox
from server.routing.assignment import shadow_bucket_of
from server.scoring import Scored
from server.settings import LimitSettings, Settings
from tests.server.live_server import Running, body, read_events, tensors, wait_for


def replaced(which: str, **changes: object) -> dict[str, object]:
    """Returns the valid request with members of one input changed."""
    request = tensors()
    inputs: Any = request["inputs"]
    return {"inputs": [{**tensor, **changes} if tensor["name"] == which else tensor for tensor in inputs]}


def test_tensors_and_rows_give_the_same_answer(server: Running) -> None:
    """The two endpoints are two forms of one pipeline."""
    row = {"carrier": "UA", "temp": 12.5, "hour": 17, "distance": 900}

    v2 = server.client.post("/v2/models/flight/infer", json=tensors(id="mine")).json()
    rows = server.client.post("/v1/models/flight/predict", json={"rows": [row, row]}).json()

    assert (v2["model_name"], v2["model_version"], v2["id"]) == ("flight", "1", "mine")
    by_name = {output["name"]: output for output in v2["outputs"]}
    assert rows["predictions"] == by_name["label"]["data"] * 2
    assert rows["probabilities"] == [pytest.approx(by_name["probabilities"]["data"], abs=1e-5)] * 2


def test_the_regression_answers_values(server: Running) -> None:
    """A regression has predictions and no probabilities."""
    answer = server.client.post("/v1/models/delay/predict", json={"rows": [{"hour": 10, "distance": 1000}]}).json()

    assert answer["predictions"] == [pytest.approx(20, abs=1.0)]
    assert answer["probabilities"] is None


def test_outputs_are_selected_and_ordered(server: Running) -> None:
    """`outputs` chooses, in its order."""
    wanted = [{"name": "probabilities"}, {"name": "label"}]

    answer = server.client.post("/v2/models/flight/infer", json=tensors(outputs=wanted)).json()

    assert [output["name"] for output in answer["outputs"]] == ["probabilities", "label"]


def test_null_members_count_as_absent_and_unknown_ones_are_skipped(server: Running) -> None:
    """Plain dumps of other clients send nulls, and parameters that mean nothing here."""
    request = tensors(id=None, outputs=None, parameters={"x": {"y": 1}}, extra=[1])

    answer = server.client.post("/v2/models/flight/infer", json=request)

    assert answer.status_code == 200
    assert len(answer.json()["id"]) == 36


def test_zero_rows_give_zero_rows(server: Running) -> None:
    """An empty batch is valid."""
    request = {"inputs": [{"name": "input", "shape": [0, 2], "datatype": "FP32", "data": []}]}

    answer = server.client.post("/v2/models/grid/infer", json=request).json()

    assert [output["shape"][0] for output in answer["outputs"]] == [0, 0]


@pytest.mark.parametrize(
    ("request_body", "sentence"),
    [
        (b"{", "expected JSON"),
        (b"", "expected JSON"),
        (b'{"inputs": [}', "expected JSON"),
        (b'\xff{"inputs": []}', "expected JSON"),
        (b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b"{}", "inputs"),
        (body({"inputs": []}), "input 'carrier' is missing"),
        (body(replaced("hour", name="zz")), "input 'hour' is missing"),
        (body({"inputs": tensors()["inputs"] * 2}), "given twice"),
        (body(tensors(outputs=[{"name": "nope"}])), "output 'nope'"),
        (body(tensors(outputs=[{"name": "label"}, {"name": "label"}])), "output 'label'"),
        (body(replaced("hour", datatype="FP32")), "expected datatype INT64, got 'FP32'"),
        (body(replaced("hour", datatype="FP99")), "expected datatype INT64, got 'FP99'"),
        (body(replaced("hour", data=[1.5])), "expected INT64 at element 0, got float 1.5"),
        (body(replaced("hour", data=[2**63])), "expected INT64 at element 0"),
        (body(replaced("hour", data=[True])), "got bool True"),
        (body(replaced("hour", data=["7"])), "got a string"),
        (body(replaced("hour", data=[None])), "had no missing values in training"),
        (body(replaced("hour", data=[1, 2])), "expected 1 elements"),
        (body(replaced("hour", data=7)), "expected data as an array"),
        (body(replaced("hour", shape=[-1])), "expected shape [-1, 1], got [-1]"),
        (body(replaced("hour", shape=[1, 2])), "expected shape"),
        (body(replaced("hour", shape=[2], data=[1, 2])), "expected 1 rows like the inputs before it, got 2"),
        (body(replaced("carrier", shape=[10**18])), "elements"),
        (body(replaced("carrier", data=[7])), "expected BYTES at element 0, got int 7"),
        (body(replaced("carrier", data=[[["UA"]]])), "expected data nested 1 deep, got deeper"),
        (body(replaced("distance", data=[1e39])), "expected a value within FP32"),
        (body(replaced("distance", data=[900])).replace(b"900", b"Infinity"), "expected finite numbers, got Infinity"),
        (body(replaced("distance", data=[900])).replace(b"900", b"NaN"), "had no missing values in training"),
        (body(replaced("distance", data=[900])).replace(b"900", b"1e999"), "out of range"),
    ],
)  # fmt: skip
def test_a_malformed_request_is_answered_400_with_a_sentence(
    server: Running, request_body: bytes, sentence: str
) -> None:
    """The sentence names what was expected and what came; the server lives and counts the error."""
    answer = server.client.post("/v2/models/flight/infer", content=request_body)

    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
    assert sentence in answer.json()["error"]
    assert server.client.get("/v2/health/live").json() == {"live": True}


@pytest.mark.parametrize("value", [b"NaN", b"null"])
def test_a_missing_value_is_taken_where_training_had_some(server: Running, value: bytes) -> None:
    """`temp` had gaps: null and the bare NaN of some clients are both read as missing."""
    request = body(tensors()).replace(b"12.5", value)

    assert server.client.post("/v2/models/flight/infer", content=request).status_code == 200


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"carrier": "UA", "hour": 1, "distance": 3, "zz": 1}, "got unknown 'zz'"),
        ({"carrier": "UA", "temp": 1.0, "distance": 3}, "column 'hour'"),
        ({"carrier": 5, "hour": 1, "distance": 3}, "column 'carrier': expected BYTES at element 0, got int 5"),
        ({"carrier": "UA", "hour": "x", "distance": 3}, "column 'hour': expected INT64 at element 0, got a string"),
    ],
)
def test_a_row_that_does_not_fit_is_named(server: Running, row: dict[str, object], sentence: str) -> None:
    """Unknown, missing and mistyped columns of rows."""
    answer = server.client.post("/v1/models/flight/predict", json={"rows": [row]})

    assert answer.status_code == 400
    assert sentence in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "sentence"),
    [
        ("POST", "/v2/models/nope/infer", 404, "model 'nope' is unknown: expected one of"),
        ("POST", "/v2/models/flight/versions/9/infer", 404, "no version '9'"),
        ("GET", "/v2/models/nope", 404, "model 'nope' is unknown"),
        ("GET", "/v2/models/nope/ready", 404, "model 'nope' is unknown"),
        ("GET", "/v2/models/flight/versions/9", 404, "no version '9'"),
        ("GET", "/nothing/here", 404, "got /nothing/here"),
        ("GET", "/v2/models/flight/infer", 405, "expected another method, got GET"),
        ("DELETE", "/v2", 405, "expected another method, got DELETE"),
    ],
)
def test_other_refusals(server: Running, method: str, path: str, status: int, sentence: str) -> None:
    """Errors are JSON with exactly the protocol's content type, whatever refused them."""
    answer = server.client.request(method, path, content=body(tensors()) if method == "POST" else None)

    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert sentence in answer.json()["error"]
    assert ("allow" in answer.headers) == (status == 405)


def test_metadata(server: Running) -> None:
    """What clients read before they score."""
    get = server.client.get

    assert get("/v2").json()["name"] == "tiltyard"
    assert get("/v2/models").json() == {"models": ["delay", "flight", "grid"]}
    flight = get("/v2/models/flight").json()
    assert (flight["versions"], flight["platform"]) == (["1", "2"], "onnx_onnxv1")
    assert flight["inputs"][0] == {"name": "carrier", "datatype": "BYTES", "shape": [-1, 1]}
    for path in ("/v2/health/ready", "/v2/models/flight/ready", "/v2/models/flight/versions/2/ready"):
        assert (get(path).status_code, get(path).json()) == (200, {"ready": True})
        assert server.client.head(path).status_code == 200


def test_every_answer_is_an_event_with_the_clients_own_bytes(serve: Callable[..., Running], packed: Path) -> None:
    """A prediction, its shadow, and a refused request stand in the log; inputs are spliced, not encoded again."""
    running = serve(packed)
    spaced = b'[ {"name":"input",  "shape":[1,2], "datatype":"FP32","data":[[17.0,  9e2]]} ]'
    running.client.post("/v2/models/grid/infer", content=b'{"id":"a","inputs":' + spaced + b"}").raise_for_status()
    running.client.post("/v2/models/flight/infer", json=tensors(id="b")).raise_for_status()
    assert running.client.post("/v2/models/flight/infer", json=replaced("hour", data=[1.5])).status_code == 400
    wait_for(
        lambda: running.metric('tiltyard_requests_total{code="200",model="flight",role="shadow",version="2"}'), "shadow"
    )

    events = running.events()

    first, *rest = events
    assert isinstance(first, Prediction)
    assert bytes(first.data.inputs) == spaced  # type: ignore[arg-type]
    assert (first.subject, first.partitionkey, first.source) == ("a", "a", "/models/grid/versions/1")
    answered = [event for event in rest if event.subject == "b"]
    assert {(type(event), event.data.version, event.data.role, event.data.revision) for event in answered} == {
        (Prediction, "1", "champion", 4),
        (Shadow, "2", "shadow", 4),
    }
    refused = next(event for event in rest if isinstance(event, Prediction) and event.data.status == 400)
    assert "got float 1.5" in str(refused.data.error)
    assert len({event.id for event in events}) == len(events)
    assert running.metric('tiltyard_requests_total{code="400",model="flight",role="champion",version="1"}') == 1


def test_answered_is_logged_plus_dropped(server: Running) -> None:
    """Conservation, as /metrics counts it, over everything this module's tests have asked; no sample is asked for."""
    server.events()
    text = server.client.get("/metrics").text
    rows = [line for line in text.splitlines() if line.startswith("tiltyard_requests_total{")]
    answered = sum(float(row.rsplit(" ", 1)[1]) for row in rows if 'role="none"' not in row)

    logged = server.metric('tiltyard_events_total{outcome="logged"}')
    labels = server.metric("tiltyard_feedback_total")
    audits = server.metric("tiltyard_audits_total")

    assert answered > 30
    assert server.metric('tiltyard_events_total{outcome="sampled_out"}') == 0
    assert logged + server.metric('tiltyard_events_total{outcome="dropped"}') == answered + labels + audits


def test_metrics_exist_before_the_first_request(serve: Callable[..., Running], packed: Path) -> None:
    """Rollout tools fail on absent series; an unknown model's name never becomes a label."""
    running = serve(packed)
    running.client.post("/v2/models/evil-name/infer", content=b"{}")

    text = running.client.get("/metrics").text

    for code in (200, 400, 500, 503):
        assert f'tiltyard_requests_total{{code="{code}",model="flight",role="shadow",version="2"}} 0.0' in text
    assert 'tiltyard_requests_total{code="404",model="",role="none",version=""} 1.0' in text
    assert "evil-name" not in text
    assert 'tiltyard_route_share{model="flight",role="champion",version="1"} 1.0' in text


@pytest.mark.parametrize(
    ("content", "accepted"),
    [
        (body({"id": "r", "label": 1}), 1),
        (body({"id": "r", "reward": 2.5}), 1),
        (body({"feedback": [{"id": "r", "label": 0}, {"id": "s", "label": [0, 1]}]}), 2),
        (b'{"id": "r", "label": 1}\n\n{"id": "s", "label": "x", "row": 0}\n', 2),
    ],
)
def test_feedback_is_in_the_log_when_it_is_accepted(
    serve: Callable[..., Running], packed: Path, content: bytes, accepted: int
) -> None:
    """202 comes after the commit: the file read at once has the labels."""
    running = serve(packed)
    answer = running.client.post("/v1/feedback", content=content)
    found = read_events(running.outbox)

    assert (answer.status_code, answer.json()) == (202, {"accepted": accepted})
    assert [type(event) for event in found] == [Labelled] * accepted
    assert found[0].subject == "r"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "empty body"),
        (b"{]", "feedback 0: expected JSON"),
        (body({"feedback": 3}), "expected an array"),
        (body({"id": "r"}), "expected a label or a reward"),
        (body({"id": "", "label": 1}), "feedback 0: expected the id"),
        (body({"feedback": [{"id": "r", "label": 1}, {"label": 1}]}), "feedback 1:"),
        (body({"id": "r", "label": 1, "time": "yesterday"}), "feedback 0: time: expected a time as RFC 3339"),
        (body({"id": "r", "label": 1, "time": "2026-01-01T00:00:00"}), "with an offset"),
        (body({"id": "r", "label": [1, 0], "row": 1}), "expected a row of 0 or more and a single label"),
    ],
)
def test_a_malformed_label_is_named_and_nothing_of_the_request_is_kept(
    server: Running, content: bytes, sentence: str
) -> None:
    """One bad label refuses them all, by its index."""
    before = server.metric("tiltyard_feedback_total")
    refused = server.metric('tiltyard_feedback_refused_total{code="400"}')

    answer = server.client.post("/v1/feedback", content=content)

    assert answer.status_code == 400
    assert sentence in answer.json()["error"]
    assert not [event for event in server.events() if isinstance(event, Labelled)]
    assert server.metric("tiltyard_feedback_total") == before
    assert server.metric('tiltyard_feedback_refused_total{code="400"}') == refused + 1


def test_a_body_beyond_the_limit_is_answered_413(serve: Callable[..., Running], packed: Path) -> None:
    """At the limit it is read, one byte beyond it is refused, declared or not."""
    running = serve(packed, TILTYARD_LIMITS__BODY_BYTES="2048")
    exact = body(tensors()).ljust(2048)

    assert running.client.post("/v2/models/flight/infer", content=exact).status_code == 200
    assert running.client.post("/v2/models/flight/infer", content=exact + b" ").status_code == 413
    assert running.client.post("/v1/feedback", content=exact + b" ").status_code == 413
    assert running.metric('tiltyard_feedback_refused_total{code="413"}') == 1
    assert running.client.post("/v2/models/flight/infer", content=iter([exact, b" "])).status_code == 413


def test_a_damaged_bundle_is_refused_while_the_others_serve(
    serve: Callable[..., Running], packed: Path, tmp_path: Path
) -> None:
    """Its model answers 503 with the reason and readiness says so; no other model notices."""
    models = tmp_path / "models"
    shutil.copytree(packed, models)
    with (models / "flight" / "1" / "model.onnx").open("ab") as file:
        file.write(b"!")
    (models / "delay" / "1" / "baseline.json").unlink()

    running = serve(models)

    refused = running.client.post("/v2/models/flight/infer", json=tensors())
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert "its champion, version 1, was refused" in refused.json()["error"]
    assert running.client.get("/v2/health/ready").status_code == 503
    assert running.client.get("/v2/models/flight/ready").status_code == 503
    assert running.client.get("/v2/models/flight/versions/2/ready").status_code == 200
    request = {"inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
    assert running.client.post("/v2/models/grid/infer", json=request).status_code == 200


def test_a_shadow_that_fails_touches_no_answer(serve: Callable[..., Running], packed: Path, tmp_path: Path) -> None:
    """A challenger of another shape: each of its answers is an event with the error, the client's is good."""
    models = tmp_path / "models"
    shutil.copytree(packed / "grid", models / "grid")
    shutil.copytree(packed / "flight" / "1", models / "grid" / "2")
    manifest = msgspec.json.decode((models / "grid" / "2" / "bundle.json").read_bytes())
    manifest |= {"model": "grid", "version": "2"}
    (models / "grid" / "2" / "bundle.json").write_bytes(body(manifest))
    (models / "grid" / "route.json").write_text('{"champion": "1", "challengers": [{"version": "2"}]}')
    running = serve(models)
    request = {"inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}

    answers = [running.client.post("/v2/models/grid/infer", json=request).status_code for _ in range(5)]

    series = 'tiltyard_requests_total{code="400",model="grid",role="shadow",version="2"}'
    wait_for(lambda: running.metric(series) == 5, "the shadows")
    shadows = [event for event in running.events() if isinstance(event, Shadow)]
    assert answers == [200] * 5
    assert [event.data.status for event in shadows] == [400] * 5


def test_a_share_of_shadows_is_the_share_of_buckets(
    serve: Callable[..., Running], packed: Path, tmp_path: Path
) -> None:
    """At share 0.5 exactly the requests whose bucket is below it are shadowed."""
    models = tmp_path / "models"
    shutil.copytree(packed, models)
    (models / "flight" / "route.json").write_text(
        '{"champion": "1", "challengers": [{"version": "2", "share": 0.5}], "salt": "s"}'
    )
    running = serve(models)
    for i in range(200):
        running.client.post("/v2/models/flight/infer", json=tensors(id=f"r{i}")).raise_for_status()

    events = running.events()
    predicted = {event.subject for event in events if isinstance(event, Prediction)}
    expected = {subject for subject in predicted if shadow_bucket_of("s", "2", subject) < 0.5}
    wait_for(lambda: len([e for e in running.events() if isinstance(e, Shadow)]) >= len(expected), "the shadows")

    assert {event.subject for event in running.events() if isinstance(event, Shadow)} == expected
    assert 70 < len(expected) < 130


def test_a_fault_of_ours_is_answered_500_without_its_inside_and_counted(packed: Path, tmp_path: Path) -> None:
    """A bug in the pipeline gives the client one sentence; the count and the log have the rest."""
    settings = Settings(models=str(packed), outbox=tmp_path / "outbox.db")
    service = build_service(settings, Outbox(settings.outbox, settings.events))

    class Broken(Tensors):
        def reply(self, scored: Scored) -> Reply:
            raise RuntimeError("secret inside")

    app = build_app(service)
    app.router.routes.insert(0, Route("/broken/{model}", Inference(service, Broken), methods=["POST"]))

    async def ask() -> tuple[httpx.Response, str]:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.post("/broken/flight", json=tensors()), (await client.get("/metrics")).text

    answer, text = asyncio.run(ask())
    service.log.close()

    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/json")
    assert "secret" not in answer.text
    assert 'tiltyard_requests_total{code="500",model="flight",role="none",version=""} 1.0' in text


def test_a_shed_shadow_is_an_event_and_counted(packed: Path, tmp_path: Path) -> None:
    """With room for one and no turn to run it, three answers make one waiting shadow and two events of status 503."""
    settings = Settings(models=str(packed), outbox=tmp_path / "outbox.db", limits=LimitSettings(shadow_queue=1))
    service = build_service(settings, Outbox(settings.outbox, settings.events))

    async def ask() -> list[int]:
        transport = httpx.ASGITransport(app=build_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            answers = [await client.post("/v2/models/flight/infer", json=tensors(id=f"r{i}")) for i in range(3)]
        return [answer.status_code for answer in answers]

    answers = asyncio.run(ask())
    service.shadows.drain()
    service.log.close()

    shadows = {event.subject: event for event in read_events(settings.outbox) if isinstance(event, Shadow)}
    assert answers == [200, 200, 200]
    assert {name: event.data.status for name, event in shadows.items()} == {"r0": 200, "r1": 503, "r2": 503}
    assert "shed" in str(shadows["r1"].data.error)
