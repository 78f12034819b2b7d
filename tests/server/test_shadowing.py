"""What a challenger would have said: an event for each request, whatever goes wrong, and nothing a client notices."""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server import shadowing
from server.app import build_app, build_service
from server.contract.events import Event, Prediction, Shadow, decode_event
from server.contract.manifest import Signature
from server.endpoints.inference import Tensors
from server.endpoints.wire import read_head
from server.errors import ExecutionError, InvalidRequestError
from server.eventlog.event_log import EventLog
from server.eventlog.outbox import Outbox
from server.execution.batcher import Lane
from server.execution.session import Version, load_version
from server.execution.shadow import BATCH_REQUESTS
from server.metrics import ArmMetrics, Metrics
from server.model_route import Arm, ModelRoute
from server.payload import Payload, Rows
from server.protocol.datatypes import Arrays
from server.routing.breaker import Breaker
from server.routing.document import Guard
from server.scoring import ShadowWork
from server.service import Service
from server.settings import EventSettings, LimitSettings, Settings
from server.shadowing import Shadowing
from tests.server.failing_graph import write_shadowed
from tests.server.live_server import Running, read_events, tensors, wait_for
from tests.server.turns import until

INFER = "/v2/models/flight/infer"
NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Lines:
    """A log in memory."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def append(self, line: bytes) -> bool:
        self.lines.append(line)
        return True

    def events(self) -> list[Event]:
        return [decode_event(line) for line in self.lines]


@dataclass
class Hours:
    """A request to `delay`: rows of hours, or the error that decoding it ends in."""

    hours: list[int]
    error: Exception | None = None
    size_bytes: int = 100
    decoded: int = field(default=0)

    def rows(self, signature: Signature) -> Rows:
        self.decoded += 1
        if self.error is not None:
            raise self.error
        arrays: Arrays = {
            "hour": np.array(self.hours, dtype=np.int64).reshape(-1, 1),
            "distance": np.ones((len(self.hours), 1), dtype=np.float32),
        }
        return Rows(arrays, len(self.hours), msgspec.Raw(b"[]"), [])


class Counted:
    """A version that remembers how many rows each of its runs had, failed ones too."""

    def __init__(self, version: Version) -> None:
        self._version = version
        self.manifest, self.signature, self.redactor = version.manifest, version.signature, version.redactor
        self.lane, self.form = version.lane, version.form
        self.runs: list[int] = []
        self.fault: Exception | None = None

    def run(self, arrays: Arrays) -> Arrays:
        self.runs.append(len(arrays["hour"]))
        if self.fault is not None:
            raise self.fault
        return self._version.run(arrays)


@pytest.fixture(scope="module")
def table(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Version:
    """Version 2 of `delay`: its answer is the hour, and any hour but 0 to 23 fails its run."""
    return load_version(write_shadowed(packed, tmp_path_factory.mktemp("by_hour") / "models") / "delay" / "2")


class Bench:
    """A Shadowing over a log in memory, and what it scores."""

    def __init__(self, version: Version) -> None:
        self.log = Lines()
        self.metrics = Metrics(cast(EventLog, self.log))
        self.version = Counted(version)
        self.tripped: list[tuple[str, str, str]] = []
        events = EventSettings()
        self.shadowing = Shadowing(cast(EventLog, self.log), events, lambda *told: self.tripped.append(told))
        metrics = ArmMetrics(self.metrics, "delay", "2", "shadow")
        self.arm = Arm(cast(Version, self.version), metrics, "shadow", 0.5)
        self.route = ModelRoute(
            model="delay", salt="s", revision=4, champion=None, reason="", shadows=(self.arm,), by_version={}
        )

    def work(self, name: str, hours: list[int], error: Exception | None = None) -> ShadowWork:
        return ShadowWork(self.route, self.arm, cast(Payload, Hours(hours, error)), name, 0.25, NOW)

    def warm(self) -> None:
        """Scores until a run of several requests is known to be short enough."""
        while self.shadowing._run_rows.get(self.arm.version, 1) < BATCH_REQUESTS:
            list(self.shadowing.run([self.work("warm", [1] * n) for n in (1, 2, 4, 8, 16, 32)]))
        self.log.lines.clear()
        self.version.runs.clear()

    def score(self, *works: ShadowWork) -> list[Any]:
        """Returns the events that the works become: status, error, and outputs' values."""
        list(self.shadowing.run(works))
        assert [event.subject for event in self.log.events()] == [work.request_id for work in works]
        return [self.said(event) for event in self.log.events()]

    def said(self, event: Event) -> Any:
        assert isinstance(event, Shadow)
        data = event.data
        if isinstance(data.outputs, msgspec.UnsetType):
            assert (data.rows, data.inputs) == (0, msgspec.UNSET)
            return data.status, data.error
        assert data.error is None
        return data.status, msgspec.json.decode(data.outputs)[0]["data"]

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"model": "delay", "version": "2", **labels})


@pytest.fixture
def bench(table: Version, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(shadowing, "RUN_S", 10.0)  # however slow the machine, a run may have many rows
    return Bench(table)


def test_several_requests_are_one_run_and_an_event_each(bench: Bench) -> None:
    """Requests of one, no and three rows: each event has its own rows and outputs, and who was asked."""
    bench.warm()

    said = bench.score(bench.work("a", [5]), bench.work("b", []), bench.work("c", [23, 0, 7]))

    assert said == [(200, [5.0]), (200, []), (200, [23.0, 0.0, 7.0])]
    assert bench.version.runs == [4]
    event = bench.log.events()[2]
    assert isinstance(event, Shadow)
    data = event.data
    assert (event.source, event.time, event.partitionkey) == ("/models/delay/versions/2", NOW, "c")
    assert (data.model, data.version, data.role, data.rule) == ("delay", "2", "shadow", "shadow")
    assert (data.share, data.bucket, data.propensity, data.revision, data.rows) == (0.5, 0.25, 0.5, 4, 3)
    assert bytes(cast(msgspec.Raw, data.inputs)) == b"[]"


def test_metrics_count_each_run_and_each_answer(bench: Bench) -> None:
    """A run's rows and seconds once; a request's answer by its status, in the role of a shadow."""
    bench.warm()
    before = bench.metric("tiltyard_execution_seconds_count"), bench.metric("tiltyard_batch_rows_sum")

    bench.score(bench.work("a", [5]), bench.work("b", [1, 2]), bench.work("c", [1], InvalidRequestError("no")))

    after = bench.metric("tiltyard_execution_seconds_count"), bench.metric("tiltyard_batch_rows_sum")
    assert after == ((before[0] or 0) + 1, (before[1] or 0) + 3)
    assert bench.metric("tiltyard_requests_total", role="shadow", code="400") == 1


def test_one_request_that_fails_the_run_costs_the_others_nothing(bench: Bench) -> None:
    """The run of three fails, each is run alone, and only the one with an hour beyond the table has no answer."""
    bench.warm()

    said = bench.score(bench.work("a", [5]), bench.work("poison", [24]), bench.work("c", [7, 8]))

    failed = "model 'delay' version '2' failed while scoring"
    assert said == [(200, [5.0]), (500, failed), (200, [7.0, 8.0])]
    assert bench.version.runs == [4, 1, 1, 2]


def test_a_request_the_challenger_cannot_take_is_an_event_of_its_own(bench: Bench) -> None:
    """Refused while decoding: status 400 with the reason, and no part of the run."""
    bench.warm()

    said = bench.score(bench.work("a", [5]), bench.work("b", [6], InvalidRequestError("no such input")))

    assert said == [(200, [5.0]), (400, "no such input")]
    assert bench.version.runs == [1]


def test_what_nobody_foresaw_is_an_event_of_status_500(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A bug in decoding or in running: the event says no more than that, the server's log has the rest."""
    bench.warm()
    bench.version.fault = ZeroDivisionError("inside")

    said = bench.score(bench.work("a", [5]), bench.work("b", [6], KeyError("secret")))

    sentence = "the server failed on this shadow; its log says more"
    assert said == [(500, sentence), (500, sentence)]
    assert "ZeroDivisionError: inside" in caplog.text
    assert "KeyError: 'secret'" in caplog.text


def test_outputs_that_cannot_be_cut_are_asked_for_one_by_one(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that answers fewer rows than it was given when they are many: nobody gets another's answer."""
    bench.warm()
    run = bench.version.run
    monkeypatch.setattr(bench.version, "run", lambda arrays: {name: array[:1] for name, array in run(arrays).items()})

    said = bench.score(bench.work("a", [5]), bench.work("b", [6]))

    assert said == [(200, [5.0]), (200, [6.0])]
    assert bench.version.runs == [2, 1, 1]


def test_a_graph_of_tensors_is_run_for_each_request(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may mix what it is given, so nothing is stacked."""
    bench.warm()
    bench.version.lane = Lane(bench.version.run, together=False)

    said = bench.score(bench.work("a", [5]), bench.work("b", [6]))

    assert (said, bench.version.runs) == ([(200, [5.0]), (200, [6.0])], [1, 1])


def test_a_run_has_as_many_rows_as_the_time_allows(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first has one request; a slow graph stays there, since nothing interrupts a run."""
    monkeypatch.setattr(shadowing, "RUN_S", 1e-9)

    bench.score(*(bench.work(str(n), [n]) for n in range(4)), bench.work("large", [1] * 50))

    assert bench.version.runs == [1, 1, 1, 1, 50]


def test_a_run_has_twice_the_rows_of_the_one_before_and_then_no_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How long a row takes is learned from runs that were short."""
    monkeypatch.setattr(shadowing, "RUN_ROWS", 8)

    bench.score(*(bench.work(str(n), [1]) for n in range(31)))

    assert bench.version.runs == [1, 2, 4, 8, 8, 8]


def test_latency_is_the_time_spent_and_not_the_waiting(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding 3 ms, the shared run 2 ms, encoding 1 ms, however long the steps were apart; a shed one took none."""
    bench.warm()
    now_ns = 0

    def spend(ms: int, work: Callable[..., Any]) -> Callable[..., Any]:
        def spent(*arguments: Any) -> Any:
            nonlocal now_ns
            now_ns += ms * 1_000_000
            return work(*arguments)

        return spent

    monkeypatch.setattr(shadowing.time, "perf_counter_ns", lambda: now_ns)
    monkeypatch.setattr(Hours, "rows", spend(3, Hours.rows))
    monkeypatch.setattr(bench.version, "run", spend(2, bench.version.run))
    monkeypatch.setattr(shadowing, "encoded", spend(1, shadowing.encoded))
    for _ in bench.shadowing.run([bench.work("a", [5]), bench.work("b", [6])]):
        now_ns += 1_000_000_000
    bench.shadowing.shed(bench.work("c", [7]), "shed: no room")

    found = [cast(Shadow, event).data for event in bench.log.events()]
    assert [(6000, 200), (6000, 200), (0, 503)] == [(data.latency_us, data.status) for data in found]


def test_a_guard_sees_how_a_shadow_does(bench: Bench) -> None:
    """Two of four fail, and no more than a quarter may: the guard opens with the fourth, and a shed one counts not."""
    guard = Guard(error_rate=0.25, min_requests=4, window_s=60.0)
    bench.arm = replace(bench.arm, breaker=Breaker(guard))
    bench.shadowing.shed(bench.work("shed", [1]), "shed: no room")
    works = [bench.work(name, [hour]) for name, hour in (("a", 1), ("b", 24), ("c", 2))]
    list(bench.shadowing.run(works))
    assert bench.tripped == []

    list(bench.shadowing.run([bench.work("d", [24])]))

    assert [("delay", "2")] == [told[:2] for told in bench.tripped]
    assert "2 of 4 requests" in bench.tripped[0][2]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    requests=st.lists(
        st.tuples(
            st.lists(st.integers(-30, 30), max_size=3), st.sampled_from([None, None, InvalidRequestError, OSError])
        ),
        min_size=1,
        max_size=BATCH_REQUESTS,
    ),
    steps=st.integers(1, 100),
)
def test_each_request_is_one_event_with_its_own_answer(
    table: Version, requests: list[tuple[list[int], type[Exception] | None]], steps: int
) -> None:
    """Poison, refusals, bugs and a stop, wherever they fall: offered is logged, in order, and right."""
    bench = Bench(table)
    works = [bench.work(str(n), hours, error and error("x")) for n, (hours, error) in enumerate(requests)]
    running = bench.shadowing.run(works)
    for _ in range(steps):
        next(running, None)
    running.close()

    events = bench.log.events()
    assert [work.request_id for work in works] == [event.subject for event in events]
    statuses = [cast(Shadow, event).data.status for event in events]
    complete = sum(status != 503 for status in statuses)
    assert set(statuses[complete:]) <= {503}
    for (hours, error), event in zip(requests[:complete], events, strict=False):
        said = bench.said(event)
        if error is not None:
            assert said[0] == (400 if error is InvalidRequestError else 500)
        elif all(-24 <= hour < 24 for hour in hours):
            assert said == (200, [float(hour % 24) for hour in hours])
        else:
            assert said[0] == 500


# A whole server


def service_of(models: Path, folder: Path, **limits: int) -> Service:
    config = Settings(models=str(models), outbox=folder / "outbox.db", limits=LimitSettings(**limits))
    return build_service(config, Outbox(config.outbox, config.events))


def shadows_of(folder: Path) -> list[Shadow]:
    return [event for event in read_events(folder / "outbox.db") if isinstance(event, Shadow)]


async def asked(service: Service, name: str, send: Callable[[Any], Any]) -> None:
    """Sends one request to the application itself."""
    body = msgspec.json.encode(tensors(id=name))

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {"type": "http", "method": "POST", "path": INFER, "headers": [], "query_string": b""}
    await build_app(service)(scope, receive, send)


@pytest.mark.parametrize("durability", ["async", "commit"])
def test_nothing_of_a_shadow_happens_before_its_answer_is_written(
    packed: Path, tmp_path: Path, durability: str
) -> None:
    """The queue is empty until the last byte of the answer has been handed over, also where that takes its time."""
    config = Settings(
        models=str(packed),
        outbox=tmp_path / "outbox.db",
        events=EventSettings.model_validate({"durability": durability}),
    )
    service = build_service(config, Outbox(config.outbox, config.events))
    seen: list[tuple[str, int]] = []

    async def send(message: Any) -> None:
        await asyncio.sleep(0)
        seen.append((message["type"], service.shadows._requests))

    asyncio.run(asked(service, "a", send))
    waiting = service.shadows._requests
    service.shadows.drain()
    service.log.close()

    assert seen == [("http.response.start", 0), ("http.response.body", 0)]
    assert waiting == 1
    assert [(event.subject, event.data.status) for event in shadows_of(tmp_path)] == [("a", 200)]


def test_a_client_that_leaves_before_its_answer_has_its_shadow_all_the_same(packed: Path, tmp_path: Path) -> None:
    """The champion's answer is in the log, and the challenger's is compared with it."""
    service = service_of(packed, tmp_path)

    async def send(message: Any) -> None:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        asyncio.run(asked(service, "a", send))
    service.shadows.drain()
    service.log.close()

    assert [(event.subject, event.data.status) for event in shadows_of(tmp_path)] == [("a", 200)]


def test_answers_are_the_same_whatever_the_shadows_do(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without shadows and with shadows that fail in every way, a client reads the same bytes."""
    fault: list[BaseException] = []
    run = Shadowing._run_together

    def failing(self: Shadowing, batch: list[Any]) -> None:
        if fault:
            raise fault[0]
        run(self, batch)

    monkeypatch.setattr(Shadowing, "_run_together", failing)
    service = service_of(packed, tmp_path)

    def logged() -> int:
        return service.log.committed_events + service.log.backlog

    async def ask() -> list[tuple[int, bytes]]:
        app = build_app(service)
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://s") as client:
                answers = []
                for error in (None, ExecutionError("x"), RuntimeError("y"), MemoryError()):
                    fault[:] = [] if error is None else [error]
                    before = logged()
                    for _ in range(3):
                        answer = await client.post(INFER, json=tensors(id="same"))
                        answers.append((answer.status_code, answer.content))
                    await until(lambda due=before + 6: logged() >= due)
                return answers

    answers = asyncio.run(asyncio.wait_for(ask(), 20))

    assert len(set(answers)) == 1
    assert answers[0][0] == 200
    assert [event.data.status for event in shadows_of(tmp_path)] == [200] * 3 + [500] * 9


@pytest.fixture
def three_versions(packed: Path, tmp_path: Path) -> Iterator[Path]:
    """`flight` with champion 1 and two shadows, 2 and 3, which takes other inputs and refuses each request."""
    models = tmp_path / "models"
    shutil.copytree(packed / "flight", models / "flight")
    shutil.copytree(packed / "grid" / "1", models / "flight" / "3")
    manifest = msgspec.json.decode((models / "flight" / "3" / "bundle.json").read_bytes())
    manifest |= {"model": "flight", "version": "3"}
    (models / "flight" / "3" / "bundle.json").write_bytes(msgspec.json.encode(manifest))
    (models / "flight" / "route.json").write_text(
        '{"champion": "1", "challengers": [{"version": "2"}, {"version": "3"}], "revision": 1}'
    )
    yield models


def test_several_shadows_each_see_every_request(serve: Callable[..., Running], three_versions: Path) -> None:
    """Over a real server: two events beside each answer, one of each challenger, one of which always refuses."""
    running = serve(three_versions)
    names = {f"r{n}" for n in range(40)}
    for name in names:
        running.client.post(INFER, json=tensors(id=name)).raise_for_status()

    wait_for(lambda: len(running.events()) == 120, "the shadows")
    events = running.events()
    found = {version: [e for e in events if isinstance(e, Shadow) and e.data.version == version] for version in "23"}
    assert {e.subject for e in events if isinstance(e, Prediction)} == names
    assert {version: {e.subject for e in each} for version, each in found.items()} == {"2": names, "3": names}
    assert {version: {e.data.status for e in each} for version, each in found.items()} == {"2": {200}, "3": {400}}


def test_what_waits_is_bounded_in_bytes_and_each_offer_is_an_event(three_versions: Path, tmp_path: Path) -> None:
    """Memory for a few requests and no turn to run them: the rest is shed, all of it is told."""
    service = service_of(three_versions, tmp_path, shadow_bytes=2048)

    async def ask() -> None:
        transport = httpx.ASGITransport(app=build_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://s") as client:
            for n in range(20):
                (await client.post(INFER, json=tensors(id=f"r{n}"))).raise_for_status()
                assert service.shadows._bytes <= 2048

    asyncio.run(ask())
    service.shadows.drain()
    service.log.close()

    shadows = shadows_of(tmp_path)
    shed = [event for event in shadows if event.data.status == 503]
    assert sorted((e.subject, e.data.version) for e in shadows) == sorted(
        (f"r{n}", version) for n in range(20) for version in "23"
    )
    assert 20 < len(shed) < 40
    assert {event.data.error for event in shed} == {"shed: the shadow queue is full"}


def test_a_challenger_of_the_same_inputs_takes_the_champions_rows(packed: Path, tmp_path: Path) -> None:
    """The rows are decoded once; another signature's are decoded for themselves, and refused each time anew."""
    service = service_of(packed, tmp_path)
    first, second = (load_version(packed / "flight" / version) for version in "12")
    grid = load_version(packed / "grid" / "1")
    payload = Tensors(msgspec.json.encode(tensors()), read_head({"headers": []}), service)
    before = payload.size_bytes

    rows = payload.rows(first.form)

    assert payload.rows(second.form) is rows
    assert payload.size_bytes > before
    with pytest.raises(InvalidRequestError):
        payload.rows(grid.form)
    assert payload.rows(first.form) is rows
    service.log.close()
