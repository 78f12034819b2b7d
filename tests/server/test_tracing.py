"""Spans: what they say, what has none, and that they arrive."""

import asyncio
import sys
import threading
import timeit
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message

from server import tracing
from server.errors import SettingsError
from server.tracing import note_request, traced


def application() -> ASGIApp:
    """Returns an application with the paths of the real one that matter here."""

    async def infer(request: Request) -> PlainTextResponse:
        note_request("r-1", request.path_params["model"], "3")
        if request.path_params["model"] == "failing":
            raise RuntimeError("failed")
        return PlainTextResponse("answer")

    async def fine(request: Request) -> PlainTextResponse:
        return PlainTextResponse("fine")

    paths = ["/metrics", "/v2/health/live", "/v2/health/ready", "/v2/models/metrics", "/v2"]
    return Starlette(
        routes=[Route("/v2/models/{model}/infer", infer, methods=["POST"]), *(Route(p, fine) for p in paths)]
    )


def serve(
    app: ASGIApp, *requests: tuple[str, str], trace: str = "", before_end: Callable[[], None] = lambda: None
) -> None:
    """Starts an application, sends requests (method and path), and ends it."""

    async def live() -> None:
        given: asyncio.Queue[Message] = asyncio.Queue()
        said: asyncio.Queue[Message] = asyncio.Queue()
        life = asyncio.create_task(app({"type": "lifespan"}, given.get, said.put))  # type: ignore[arg-type]
        await given.put({"type": "lifespan.startup"})
        assert (await said.get())["type"] == "lifespan.startup.complete"
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        headers = {"traceparent": trace} if trace else {}
        async with httpx.AsyncClient(transport=transport, base_url="http://h", headers=headers) as client:
            for method, path in requests:
                await client.request(method, path)
        before_end()
        await given.put({"type": "lifespan.shutdown"})
        assert (await said.get())["type"] == "lifespan.shutdown.complete"
        await life

    asyncio.run(live())


@pytest.fixture(autouse=True)
def off_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing is on for the process: the other tests run without."""
    monkeypatch.setattr(tracing, "_current_span", None)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")  # only the end sends


def test_a_request_is_a_span_with_its_ids() -> None:
    """Continuing the trace of its client; all spans are sent before the shutdown is complete."""
    spans = InMemorySpanExporter()
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    def nothing_yet() -> None:
        assert () == spans.get_finished_spans()

    app = traced(application(), "1.2", spans)
    serve(app, ("POST", "/v2/models/flight/infer"), trace=parent, before_end=nothing_yet)

    (span,) = spans.get_finished_spans()
    assert "POST /v2/models/{model}/infer" == span.name
    attributes = dict(span.attributes or {})
    assert ("r-1", "flight", "3") == tuple(
        attributes[f"tiltyard.{name}"] for name in ("request_id", "model", "version")
    )
    assert 200 == attributes["http.response.status_code"]
    assert 0x0AF7651916CD43DD8448EB211C80319C == span.context.trace_id
    assert ("tiltyard", "1.2") == tuple(span.resource.attributes[f"service.{name}"] for name in ("name", "version"))


def test_a_failure_is_a_span_too() -> None:
    """With its status and the kind of error."""
    spans = InMemorySpanExporter()

    serve(traced(application(), "1", spans), ("POST", "/v2/models/failing/infer"))

    (span,) = spans.get_finished_spans()
    assert (500, "RuntimeError") == tuple(
        (span.attributes or {})[name] for name in ("http.response.status_code", "error.type")
    )


def test_what_machines_ask_every_few_seconds_is_no_span() -> None:
    """Health and metrics; a model that is called so is none of them."""
    spans = InMemorySpanExporter()

    machines = ("/metrics", "/metrics?x=1", "/v2/health/live", "/v2/health/ready")
    paths = (*machines, "/v2/models/metrics", "/v2?a=/metrics")
    serve(traced(application(), "1", spans), *(("GET", path) for path in paths))

    assert ["GET /v2/models/metrics", "GET /v2"] == [span.name for span in spans.get_finished_spans()]


def test_the_standard_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's name and the sampler among them."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "champion")
    spans, none = InMemorySpanExporter(), InMemorySpanExporter()
    serve(traced(application(), "1", spans), ("GET", "/v2"))
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    serve(traced(application(), "1", none), ("GET", "/v2"))

    assert ["champion"] == [span.resource.attributes["service.name"] for span in spans.get_finished_spans()]
    assert () == none.get_finished_spans()


def test_spans_arrive_at_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over OTLP/HTTP, as the variables say."""
    arrived: list[tuple[str, ExportTraceServiceRequest]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            arrived.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *given: Any) -> None:
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        serve(traced(application(), "1"), ("POST", "/v2/models/flight/infer"))
        collector.shutdown()
        thread.join()

    ((path, request),) = arrived
    assert "/v1/traces" == path
    (span,) = request.resource_spans[0].scope_spans[0].spans
    assert {"tiltyard.request_id": "r-1", "tiltyard.model": "flight", "tiltyard.version": "3"} == {
        a.key: a.value.string_value for a in span.attributes if a.key.startswith("tiltyard.")
    }


def test_a_collector_that_hangs_does_not_hold_the_end_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The spans are lost, and a record says so."""
    answered = threading.Event()

    class Hanging(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            answered.wait(20)
            return SpanExportResult.FAILURE

    monkeypatch.setattr(tracing, "FLUSH_S", 0.05)

    serve(traced(application(), "1", Hanging()), ("GET", "/v2"))

    assert ["the last spans could not be sent within 0.05 s"] == [
        record.getMessage() for record in caplog.records if record.name == "server.tracing"
    ]
    answered.set()


def test_a_missing_extra_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the extra."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    with pytest.raises(SettingsError, match="expected the extra otel"):
        traced(application(), "1")


def test_without_tracing_a_note_costs_nothing() -> None:
    """No more than a call: a span's attributes cost a hundred times that."""

    def nothing(request_id: str, model: str, version: str) -> None:
        return

    def fastest(call: Callable[[str, str, str], None]) -> float:
        return min(timeit.repeat(lambda: call("r", "m", "1"), number=10_000, repeat=20))

    assert fastest(note_request) < 5 * fastest(nothing)
