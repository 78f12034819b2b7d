"""Who is let in, how much at once, and until when: over HTTP."""

import asyncio
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from server.admission import Admission
from server.app import build_app, build_service
from server.contract.events import Prediction
from server.errors import OverloadedError
from server.eventlog.outbox import Outbox
from server.protection.guard import Guard
from server.settings import LimitSettings, Settings
from tests.server.live_server import Running, read_events, tensors, wait_for

INFER = "/v2/models/flight/infer"
LABEL = {"id": "r", "label": 1}


def entry(name: str, *scopes: str, rest: str = "") -> str:
    """Returns a token file's entry for the token `secret-NAME`."""
    digest = hashlib.sha256(f"secret-{name}".encode()).hexdigest()
    return f'[[token]]\nname = "{name}"\nsha256 = "{digest}"\nscopes = [{", ".join(map(repr, scopes))}]\n{rest}\n'


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer secret-{name}"}


ASKED = {
    "infer": ("POST", INFER, tensors()),
    "rows": ("POST", "/v1/models/grid/predict", {"rows": [{"hour": 1, "distance": 2.0}]}),
    "instances": ("POST", "/v1/models/grid:predict", {"instances": [[1, 2.0]]}),
    "feedback": ("POST", "/v1/feedback", LABEL),
    "metrics": ("GET", "/metrics", None),
    "index": ("POST", "/v2/repository/index", {}),
    "load": ("POST", "/v2/repository/models/grid/load", {}),
    "unload": ("POST", "/v2/repository/models/nobody/unload", {}),
    "metadata": ("GET", "/v2/models/flight", None),
    "health": ("GET", "/v2/health/ready", None),
}


def test_each_scope_opens_its_routes_and_no_others(serve: Callable[..., Running], packed: Path, tmp_path: Path) -> None:
    """Every route asked with every token: 401 without one, 403 with one for something else."""
    file = tmp_path / "tokens.toml"
    file.write_text("".join(entry(scope, scope) for scope in ("infer", "feedback", "admin", "metrics")))
    running = serve(packed, TILTYARD_TOKENS=str(file))

    def status(what: str, name: str | None) -> int:
        method, path, body = ASKED[what]
        headers = {} if name is None else bearer(name)
        return running.client.request(method, path, json=body, headers=headers).status_code

    opened = {
        name: {what for what in ASKED if status(what, name) not in (401, 403)}
        for name in ("infer", "feedback", "admin", "metrics")
    }
    anyone = {"metadata", "health"}
    assert opened == {
        "infer": {"infer", "rows", "instances"} | anyone,
        "feedback": {"feedback"} | anyone,
        "admin": {"index", "load", "unload"} | anyone,
        "metrics": {"metrics"} | anyone,
    }
    assert {what: status(what, None) for what in ASKED} == {**dict.fromkeys(ASKED, 401), "health": 200}
    assert {what: status(what, "nobody") for what in ASKED} == {**dict.fromkeys(ASKED, 401), "health": 200}
    refused = running.client.post(INFER, json=tensors())
    assert (refused.headers["www-authenticate"], refused.headers["content-type"]) == ("Bearer", "application/json")
    assert "secret" not in refused.text


def test_the_token_file_is_obeyed_without_a_restart(
    serve: Callable[..., Running], packed: Path, tmp_path: Path
) -> None:
    """A revoked token is refused within a moment, a new one let in, and who was in before stays."""
    file = tmp_path / "tokens.toml"
    file.write_text(entry("a", "infer") + entry("b", "infer"))
    running = serve(packed, TILTYARD_TOKENS=str(file), TILTYARD_WATCH_S="0.05")

    def status(name: str) -> int:
        return running.client.post(INFER, json=tensors(), headers=bearer(name)).status_code

    assert (status("a"), status("b"), status("c")) == (200, 200, 401)
    file.write_text(entry("b", "infer") + entry("c", "infer"))
    wait_for(lambda: status("a") == 401, "the token to be revoked")
    assert (status("b"), status("c")) == (200, 200)


def test_a_tokens_rate_is_held(serve: Callable[..., Running], packed: Path, tmp_path: Path) -> None:
    """The burst passes, the next is 429 with the time to wait; another token is not held up."""
    file = tmp_path / "tokens.toml"
    slow = entry("slow", "infer", rest="requests_per_s = 0.001\nburst = 3")
    file.write_text(slow + entry("free", "infer") + entry("watch", "metrics"))
    running = serve(packed, TILTYARD_TOKENS=str(file))
    running.client.headers.update(bearer("watch"))  # the other requests bring their own

    answers = [running.client.post(INFER, json=tensors(), headers=bearer("slow")) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert int(answers[3].headers["retry-after"]) > 1
    assert running.client.post(INFER, json=tensors(), headers=bearer("free")).status_code == 200
    assert running.metric('tiltyard_requests_total{code="429",model="flight",role="none",version=""}') == 1


def test_without_tokens_a_server_beyond_loopback_refuses_admin_routes(
    serve: Callable[..., Running], packed: Path
) -> None:
    """Bound to all addresses it answers predictions to anyone and changes for nobody, and says why."""
    running = serve(packed, TILTYARD_HOST="0.0.0.0")
    with httpx.Client(base_url=str(running.client.base_url).replace("0.0.0.0", "127.0.0.1")) as client:
        refused = client.post("/v2/repository/models/grid/load", json={})
        answered = client.post(INFER, json=tensors())

    assert answered.status_code == 200
    assert (refused.status_code, "no token" in refused.json()["error"]) == (403, True)


def test_a_request_too_many_is_refused_before_its_body_is_read(packed: Path, tmp_path: Path) -> None:
    """With room for two, a third is answered 503 with Retry-After while its body is still to come."""
    settings = Settings(models=str(packed), outbox=tmp_path / "outbox.db", limits=LimitSettings(concurrent_requests=2))
    service = build_service(settings, Outbox(settings.outbox, settings.events))
    app = build_app(service)

    async def ask() -> tuple[list[int], httpx.Response]:
        held = asyncio.Event()

        async def slow_body() -> object:
            yield b"{"
            await held.wait()
            yield b"}"

        async def never() -> object:
            raise AssertionError("the body was read")
            yield b""

        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://s") as client:
            waiting = [asyncio.create_task(client.post(INFER, content=slow_body())) for _ in range(2)]
            while service.admission.present < 2:
                await asyncio.wait(waiting, timeout=0.001)
            third = await client.post(INFER, content=never())
            held.set()
            first = [answer.status_code for answer in await asyncio.gather(*waiting)]
            assert service.admission.present == 0
            return first, third

    first, third = asyncio.run(asyncio.wait_for(ask(), 20))
    service.log.close()

    assert (first, third.status_code, third.headers["retry-after"]) == ([400, 400], 503, "1")
    assert "at most 2 requests at once" in third.json()["error"]


@pytest.mark.parametrize("present", [0, 1, 2, 3])
def test_the_limit_of_requests_at_once(present: int) -> None:
    """Below it and one below it: let in; at it: refused, and not counted."""
    admission = Admission(Guard(None, exposed=False), 2)
    let_in = 0
    for _ in range(present):
        try:
            admission.enter(None, "infer")
        except OverloadedError:
            continue
        let_in += 1

    assert (let_in, admission.present) == (min(present, 2), min(present, 2))


def test_a_deadline_that_has_passed_costs_no_run(packed: Path, tmp_path: Path) -> None:
    """By header or parameter, the earlier counts: 504 and an event with no rows; the graph did not run."""
    settings = Settings(models=str(packed), outbox=tmp_path / "outbox.db")
    service = build_service(settings, Outbox(settings.outbox, settings.events))
    app = build_app(service)
    short, long = {"parameters": {"timeout": 1_000}}, {"parameters": {"timeout": 60_000_000}}
    sent: list[tuple[dict[str, object], dict[str, str]]] = [
        (short, {}),
        (long, {}),
        ({}, {"x-request-timeout-ms": "1"}),
        (long, {"x-request-timeout-ms": "1"}),
        ({}, {"x-request-timeout-ms": "60000"}),
    ]

    async def arrived_5_ms_ago(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "tiltyard.arrived_ns": time.perf_counter_ns() - 5_000_000}, receive, send)

    async def ask() -> list[int]:
        transport = httpx.ASGITransport(app=arrived_5_ms_ago)
        async with httpx.AsyncClient(transport=transport, base_url="http://s") as client:
            return [
                (await client.post(INFER, json=tensors(**members), headers=headers)).status_code
                for members, headers in sent
            ]

    statuses = asyncio.run(asyncio.wait_for(ask(), 20))
    runs = service.metrics.totals()["flight", "1"].executions
    service.log.close()

    answers = [event.data for event in read_events(settings.outbox) if isinstance(event, Prediction)]
    assert statuses == [504, 200, 504, 504, 200]
    assert [(answer.status, answer.rows) for answer in answers] == [(504, 0), (200, 1), (504, 0), (504, 0), (200, 1)]
    assert runs == 2


@pytest.mark.parametrize("timeout", [0, -1, 1.5, True, "1", None])
def test_a_timeout_that_is_none(server: Running, timeout: object) -> None:
    """Zero, negative, not an integer: 400; null is absent."""
    answer = server.client.post(INFER, json=tensors(parameters={"timeout": timeout}))

    assert answer.status_code == (200 if timeout is None else 400)


@pytest.mark.parametrize("value", ["0", "-1", "soon", "1.5", "9" * 30])
def test_a_timeout_header_that_is_none(server: Running, value: str) -> None:
    """Zero and what is no number: 400 that names the header."""
    answer = server.client.post(INFER, json=tensors(), headers={"x-request-timeout-ms": value})

    assert (answer.status_code, "x-request-timeout-ms" in answer.json()["error"]) == (400, True)


def test_a_client_that_has_gone_costs_no_run(packed: Path, tmp_path: Path) -> None:
    """Its request is counted 499, nothing is executed, and there is no event of an answer that nobody got."""
    settings = Settings(models=str(packed), outbox=tmp_path / "outbox.db")
    service = build_service(settings, Outbox(settings.outbox, settings.events))
    app = build_app(service)

    async def leaving(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "tiltyard.gone": lambda: True}, receive, send)

    async def ask() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=leaving), base_url="http://s") as client:
            with pytest.raises(AssertionError):  # httpx expects an answer, and there is none
                await client.post(INFER, json=tensors())

    asyncio.run(ask())
    totals = service.metrics.totals()["flight", "1"]
    service.log.close()

    assert (totals.executions, totals.failed, service.log.committed_events) == (0, 1, 0)
