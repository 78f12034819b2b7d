"""OpenTelemetry spans, one a request: Starlette's own middleware, and the ids that tie a span to the event log.

Needs the extra ``otel``. Where spans go, and how many, is said by the standard ``OTEL_*`` variables,
which the SDK reads itself.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

logger = logging.getLogger(__name__)

UNTRACED = (r"^[a-z]+://[^/]*/(metrics|health|v2/health/(live|ready))(\?|$)",)
"""URLs that are asked every few seconds by machines."""

FLUSH_S = 5.0
"""How long the last spans may take at the end."""

_current_span: "Callable[[], Span] | None" = None  # set once something is traced


class _Traced:
    """An application whose requests are spans, which are all sent before its shutdown is complete."""

    def __init__(self, app: ASGIApp, middleware: ASGIApp, provider: "TracerProvider") -> None:
        self._app = app
        self._middleware = middleware
        self._provider = provider

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._middleware(scope, receive, send)
            return

        async def flush_first(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                await asyncio.to_thread(self._flush)
            await send(message)

        await self._app(scope, receive, flush_first)

    def _flush(self) -> None:
        """Sends what is left; a collector that does not answer cannot hold the end up (the SDK waits 30 s for it)."""
        sending = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        sending.start()
        sending.join(FLUSH_S)
        if sending.is_alive():
            logger.warning("the last spans could not be sent within %g s", FLUSH_S)


def traced(app: ASGIApp, version: str, exporter: "SpanExporter | None" = None) -> ASGIApp:
    """Returns an application that does the same and makes a span of each request.

    Args:
        version: this server's, for the spans' `service.version`.
        exporter: where spans go; OTLP over HTTP without one.

    Raises:
        SettingsError: the extra is not installed.
    """
    global _current_span
    try:  # an optional extra
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import get_current_span
        from starlette.middleware.opentelemetry import OpenTelemetryMiddleware
    except ImportError as error:
        raise SettingsError(
            f"tracing: expected the extra otel (pip install 'tiltyard[otel]'), got: {error.name} is missing"
        ) from error
    resource = Resource.create({SERVICE_VERSION: version})
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):  # no variable names it
        resource = resource.merge(Resource({SERVICE_NAME: "tiltyard"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
    _current_span = get_current_span
    return _Traced(app, OpenTelemetryMiddleware(app, excluded_urls=UNTRACED, tracer_provider=provider), provider)


def note_request(request_id: str, model: str, version: str) -> None:
    """Puts a request's id, model and version onto its span, when requests are traced."""
    if _current_span is None:
        return
    _current_span().set_attributes(
        {"tiltyard.request_id": request_id, "tiltyard.model": model, "tiltyard.version": version}
    )
