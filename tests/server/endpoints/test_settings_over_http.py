"""What the settings change for a client, and what it is told when a part of the server has died."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.app import build_app, build_service
from server.contract.events import Prediction, Shadow
from server.eventlog.outbox import Outbox
from server.service import Service
from server.settings import EventSettings, Settings
from tests.server.eventlog.full_disk import limit_pages
from tests.server.live_server import Running, read_events, tensors, wait_for

INFER = "/v2/models/flight/infer"


def test_the_clients_time_is_the_events_time_where_it_is_asked_for(serve: Callable[..., Running], packed: Path) -> None:
    """Replays set their own clock, shadow included; a time that is none is the client's fault."""
    running = serve(packed, TILTYARD_EVENTS__CLIENT_TIME="true")
    then = {"parameters": {"time": "2013-03-01T08:00:00-05:00"}}
    running.client.post(INFER, json=tensors(id="a", **then)).raise_for_status()
    wrong = [
        running.client.post(INFER, json=tensors(parameters={"time": time}))
        for time in ("2013-03-01T08:00:00", "noon", 17)
    ]

    wait_for(
        lambda: running.metric('tiltyard_requests_total{code="200",model="flight",role="shadow",version="2"}'), "shadow"
    )
    times = {event.time.astimezone(UTC) for event in running.events() if event.subject == "a"}
    assert times == {datetime(2013, 3, 1, 13, tzinfo=UTC)}
    assert {type(event) for event in running.events()} == {Prediction, Shadow}
    assert [answer.status_code for answer in wrong] == [400, 400, 400]
    assert "parameters.time: expected a time with an offset" in wrong[0].json()["error"]
    assert running.metric('tiltyard_requests_total{code="400",model="flight",role="none",version=""}') == 3


def test_the_clients_time_is_ignored_otherwise(server: Running) -> None:
    """A client cannot move events by accident."""
    server.client.post(INFER, json=tensors(id="now", parameters={"time": "2013-03-01T08:00:00Z"})).raise_for_status()

    event = next(event for event in server.events() if event.subject == "now")
    assert abs((datetime.now(UTC) - event.time).total_seconds()) < 60


def test_limits_are_settings(serve: Callable[..., Running], packed: Path) -> None:
    """Elements of tensors and of rows, and labels of one request: at the limit yes, beyond it 400."""
    running = serve(packed, TILTYARD_LIMITS__ELEMENTS="8", TILTYARD_LIMITS__FEEDBACK_ITEMS="2")
    row = {"carrier": "UA", "hour": 17, "distance": 900}
    label = {"id": "r", "label": 1}

    def statuses(path: str, *bodies: object) -> list[int]:
        return [running.client.post(path, json=body).status_code for body in bodies]

    assert statuses("/v1/models/flight/predict", {"rows": [row] * 2}, {"rows": [row] * 3}) == [200, 400]
    two, three = (
        {"inputs": [{"name": "input", "shape": [rows, 2], "datatype": "FP32", "data": [1] * 2 * rows}]}
        for rows in (4, 5)
    )
    assert statuses("/v2/models/grid/infer", two, three) == [200, 400]
    assert statuses("/v1/feedback", {"feedback": [label] * 2}, {"feedback": [label] * 3}) == [202, 400]


def test_a_version_the_client_chooses_answers_and_nothing_shadows_it(
    serve: Callable[..., Running], packed: Path
) -> None:
    """The event says who chose, so that no comparison counts it as the route's doing."""
    running = serve(packed)

    first, second = (
        running.client.post(f"/v2/models/flight/versions/{version}/infer", json=tensors(id=version)).json()
        for version in "12"
    )

    assert (first["model_version"], second["model_version"]) == ("1", "2")
    said = {(event.subject, event.data.role, event.data.rule, event.data.propensity) for event in running.events()}
    assert said == {("1", "champion", "client", 1.0), ("2", "challenger", "client", 1.0)}


def test_head_is_answered_where_get_is(server: Running) -> None:
    """The same status, type and length, and no body."""
    for path in (
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models",
        "/v2/models/flight",
        "/v2/models/flight/versions/1",
        "/v2/models/flight/ready",
        "/v2/models/flight/versions/1/ready",
        "/v2/models/nope",
        "/metrics",
    ):
        get, head = server.client.get(path), server.client.head(path)
        assert (head.status_code, head.content) == (get.status_code, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
        if path != "/metrics":
            assert get.headers["content-type"] == "application/json"
            assert head.headers["content-length"] == str(len(get.content))


def test_metrics_are_prometheus_text(server: Running) -> None:
    """Prometheus's own parser reads them, every family has its help, and counters end in _total."""
    text = server.client.get("/metrics").text

    families = {family.name: family for family in text_string_to_metric_families(text)}

    assert {name.removeprefix("tiltyard_") for name in families} == {
        "requests",
        "request_seconds",
        "execution_seconds",
        "route_share",
        "queue_seconds",
        "batch_rows",
        "failed_request_seconds",
        "last_answer_timestamp_seconds",
        "feedback",
        "feedback_refused",
        "events",
        "event_backlog",
        "route_revision",
        "fallbacks",
        "audits",
    }
    assert all(family.documentation for family in families.values())
    labels = {tuple(sorted(sample.labels)) for sample in families["tiltyard_requests"].samples}
    assert labels == {("code", "model", "role", "version")}


def test_no_outputs_selected_means_all(server: Running) -> None:
    """An empty array is what some clients send for none."""
    answer = server.client.post(INFER, json=tensors(outputs=[])).json()

    assert [output["name"] for output in answer["outputs"]] == ["label", "probabilities"]


def test_a_label_no_number_type_holds_is_refused(server: Running) -> None:
    """Beyond 64 bits, alone and among others; whoever reads the log computes with 64."""
    for label in (2**64, -(2**64), 10**400, [1, 10**400]):
        answer = server.client.post("/v1/feedback", json={"id": "r", "label": label})
        assert (answer.status_code, "at most 64 bits" in answer.json()["error"]) == (400, True)
    assert server.client.post("/v1/feedback", json={"id": "big", "label": 2**63}).status_code == 202


async def over(service: Service, ask: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    """Runs the application from its start to its end in this process, and asks in between."""
    app = build_app(service)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://s") as client:
        await ask(client)


def in_process(packed: Path, folder: Path, **events: object) -> Service:
    settings = Settings(models=str(packed), outbox=folder / "outbox.db", events=EventSettings.model_validate(events))
    return build_service(settings, Outbox(settings.outbox, settings.events))


def test_an_answer_that_must_be_durable_and_is_not_is_503_and_counted_so(packed: Path, tmp_path: Path) -> None:
    """With `durability = "commit"` and a full disk nothing is promised; with room again the answer is in the log."""
    service = in_process(packed, tmp_path, durability="commit")

    async def ask(client: httpx.AsyncClient) -> None:
        good = await client.post(INFER, json=tensors(id="a"))
        assert {event.subject for event in read_events(tmp_path / "outbox.db")} == {"a"}
        limit_pages(service.log, 1)
        rows = {"rows": [{"hour": 1, "distance": 2.0}] * 2000}
        bad = await client.post("/v1/models/grid/predict", json=rows)
        label = await client.post("/v1/feedback", json={"id": "r", "label": 1})
        ready = await client.get("/v2/health/ready")
        text = (await client.get("/metrics")).text

        assert [answer.status_code for answer in (good, bad, label, ready)] == [200, 503, 503, 503]
        assert (bad.headers["retry-after"], label.headers["retry-after"]) == ("1", "1")
        assert 'requests_total{code="200",model="grid",role="champion",version="1"} 0.0' in text
        assert 'requests_total{code="503",model="grid",role="champion",version="1"} 1.0' in text
        limit_pages(service.log, 1000000)

    asyncio.run(over(service, ask))

    assert len(read_events(tmp_path / "outbox.db")) == 4  # two answers, a shadow, a label


def test_a_dead_shadow_runner_is_told_and_answers_go_on(
    packed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug while shadowing: readiness says so, clients are served, and the log is closed in order."""
    service = in_process(packed, tmp_path)

    died = asyncio.Event()

    def broken(works: object) -> Iterator[None]:
        died.set()
        yield
        raise RuntimeError("a bug")

    service.shadows._worker.run = broken

    async def ask(client: httpx.AsyncClient) -> None:
        (await client.post(INFER, json=tensors(id="a"))).raise_for_status()
        await died.wait()
        ready = await client.get("/v2/health/ready")
        while ready.status_code != 503:  # the task's end is told in a later turn of the loop
            await asyncio.to_thread(died.is_set)
            ready = await client.get("/v2/health/ready")
        assert "the shadow runner has died" in ready.json()["error"]
        service.shadows._worker.run = iter
        (await client.post(INFER, json=tensors(id="b"))).raise_for_status()

    asyncio.run(asyncio.wait_for(over(service, ask), 20))

    assert [event.subject for event in read_events(tmp_path / "outbox.db")] == ["a", "b"]
    assert "a bug" in caplog.text
    assert not service.log.alive


def test_shadows_still_waiting_are_scored_before_the_log_closes(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop that leaves the runner no turn: each answer has its shadow in the log all the same."""
    service = in_process(packed, tmp_path)

    async def ask(client: httpx.AsyncClient) -> None:
        monkeypatch.setattr(service.shadows._wake, "set", lambda: None)
        for name in "abc":
            (await client.post(INFER, json=tensors(id=name))).raise_for_status()

    asyncio.run(over(service, ask))

    events = read_events(tmp_path / "outbox.db")
    assert [event.subject for event in events if isinstance(event, Shadow)] == ["a", "b", "c"]


def test_a_dead_outbox_writer_is_told(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readiness and labels answer 503, and no caller hangs."""
    service = in_process(packed, tmp_path)

    def broken(*arguments: object, **members: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(service.log, "_insert", broken)

    async def ask(client: httpx.AsyncClient) -> None:
        label = await client.post("/v1/feedback", json={"id": "r", "label": 1})
        ready = await client.get("/v2/health/ready")
        again = await client.post("/v1/feedback", json={"id": "r", "label": 1})
        assert [answer.status_code for answer in (label, ready, again)] == [503, 503, 503]
        assert "the outbox writer has died" in ready.json()["error"]

    asyncio.run(asyncio.wait_for(over(service, ask), 20))
