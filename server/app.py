"""The composition root: builds every part, wires the routes, and ends it all in reverse."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version as installed_version

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.bundles.repository import Repository
from server.endpoints.feedback import Feedback
from server.endpoints.inference import Inference, decode_rows, decode_tensors, respond_rows, respond_tensors
from server.endpoints.metadata import Metadata, json_response
from server.eventlog.outbox import Outbox
from server.execution.session import load_version
from server.execution.shadow import ShadowRunner
from server.metrics import Metrics
from server.protocol.messages import ErrorBody
from server.scoring import Scorer
from server.service import Service, resolve_routes
from server.settings import Settings

logger = logging.getLogger(__name__)


def build_service(settings: Settings) -> Service:
    """Returns the running parts: bundles loaded and warm, routes resolved, the outbox open.

    Raises:
        TiltyardError: a part cannot start. A bundle that fails is no such part: it is refused, and
            the others serve.
    """
    repository = Repository(settings.models, load_version)
    repository.load_all()
    outbox = Outbox(settings.outbox, settings.events)
    metrics = Metrics(outbox)
    routes = resolve_routes(settings.models, repository, metrics)
    scorer = Scorer(
        outbox,
        durable=settings.events.durability == "commit",
        block_when_full=settings.events.when_full == "block",
    )
    shadows = ShadowRunner(scorer.score_shadow, scorer.shed_shadow, settings.limits.shadow_queue)
    return Service(settings, repository, routes, scorer, shadows, metrics, outbox)


def build_app(service: Service) -> Starlette:
    """Returns the ASGI application over a service, which it closes when it ends."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.callback(service.outbox.close)
            stack.callback(service.shadows.drain)
            await stack.enter_async_context(_shadow_task(service))
            yield

    metadata = Metadata(service, installed_version("tiltyard"))
    infer = Inference(service, decode_tensors, respond_tensors)
    routes = [
        Route("/v2/models/{model}/infer", infer, methods=["POST"]),
        Route("/v2/models/{model}/versions/{version}/infer", infer, methods=["POST"]),
        Route("/v1/models/{model}/predict", Inference(service, decode_rows, respond_rows), methods=["POST"]),
        Route("/v1/feedback", Feedback(service), methods=["POST"]),
        Route("/v2", metadata.server),
        Route("/v2/health/live", metadata.live),
        Route("/v2/health/ready", metadata.ready),
        Route("/v2/models", metadata.models),
        Route("/v2/models/{model}", metadata.model),
        Route("/v2/models/{model}/versions/{version}", metadata.model),
        Route("/v2/models/{model}/ready", metadata.model_ready),
        Route("/v2/models/{model}/versions/{version}/ready", metadata.model_ready),
        Route("/metrics", metadata.metrics),
    ]
    return Starlette(
        routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _http_error, Exception: _own_fault}
    )


@asynccontextmanager
async def _shadow_task(service: Service) -> AsyncIterator[None]:
    """Runs the shadows' task; when it dies by itself, readiness says so."""

    def note_death(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            logger.error("the shadow runner has died", exc_info=task.exception())
            service.failures.append("the shadow runner has died")

    task = asyncio.create_task(service.shadows.run_forever(), name="shadow-runner")
    task.add_done_callback(note_death)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])  # its death is told already, and must not keep the log from closing


async def _http_error(request: Request, error: Exception) -> Response:
    """Answers Starlette's own 404 and 405 in the protocol's form."""
    assert isinstance(error, HTTPException)
    sentences = {
        404: f"expected one of the documented paths, got {request.url.path}",
        405: f"{request.url.path}: expected another method, got {request.method}",
    }
    body = ErrorBody(error=sentences.get(error.status_code, error.detail))
    return json_response(body, error.status_code, dict(error.headers or {}))


async def _own_fault(request: Request, error: Exception) -> Response:
    """Answers a fault of ours without a word of its inside; Starlette raises it on into the log."""
    return json_response(ErrorBody(error="the server failed on this request; its log says more"), 500)
