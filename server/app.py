"""The composition root: builds every part, wires the routes, and ends it all in reverse."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from server.admission import Admission
from server.bundles.repository import Repository
from server.bundles.store import open_store
from server.endpoints.direct import Direct
from server.endpoints.feedback import Feedback
from server.endpoints.forgetting import Forgetting
from server.endpoints.health import Health
from server.endpoints.inference import Inference, Instances, NamedRows, Tensors
from server.endpoints.metadata import Metadata
from server.endpoints.reference_page import ReferencePage
from server.endpoints.replies import Handler, guarded, json_response
from server.endpoints.repository import RepositoryEndpoints
from server.endpoints.routes import RouteEndpoints
from server.endpoints.scoring_paths import ScoringFirst, ScoringPaths
from server.eventlog.event_log import EventLog
from server.execution.batcher import Batcher
from server.execution.session import Version, load_version
from server.execution.shadow import ShadowRunner
from server.fast_lane import FastLane
from server.metrics import Metrics, ShippingCollector
from server.protection.guard import Guard, exposed_host
from server.protection.tokens import Scope, Tokens
from server.protocol.messages import ErrorBody
from server.protocol.tensors import TensorLimits
from server.redaction import Redaction
from server.route_control import Accepted, RouteControl, Topic
from server.routes.store import open_routes
from server.scoring import Scorer
from server.service import Service
from server.settings import Settings
from server.shadowing import Shadowing
from server.swap import LocalControl, RepositoryControl, Swapper
from server.tracing import traced
from server.traffic import Traffic
from server.watching import flush_metrics, follow_bundles, follow_routes, follow_tokens, tell_events

logger = logging.getLogger(__name__)

# Parts of Triton's protocol that its clients may ask for and that are not here.
_UNSUPPORTED = ("trace", "logging", "systemsharedmemory", "cudasharedmemory")


def build_service(
    settings: Settings,
    log: EventLog,
    *,
    control: Callable[[Swapper], RepositoryControl] = LocalControl,
    only: Iterable[tuple[str, str]] | None = None,
    shared_metrics: Path | None = None,
    announce: Callable[[], None] = lambda: None,
) -> Service:
    """Returns the running parts: bundles loaded and warm, routes resolved.

    Args:
        settings: of this server.
        log: takes the events.
        control: how changes of the repository reach every process of this server.
        only: model and version of the bundles to load, None for all of the store.
        shared_metrics: the folder where the processes of this server keep their metrics.
        announce: tells the other processes of this server that a route has changed.

    Raises:
        TiltyardError: a part cannot start. A bundle that fails is no such part: it is refused, and
            the others serve.
    """
    limits = settings.limits
    tokens = None if settings.tokens is None else Tokens(settings.tokens)
    guard = Guard(tokens, exposed_host(settings.host), share=1 / settings.workers)
    store = open_store(settings.models, settings.cache)
    repository: Repository[Version] = Repository()
    metrics = Metrics(log, shared_metrics)
    if settings.kafka.bootstrap_servers is not None:
        metrics.registry.register(ShippingCollector(settings.outbox))
    traffic = Traffic(repository, metrics)
    routes = RouteControl(
        open_routes(settings, store), repository, traffic, log, metrics, announce=announce, topic=_topic(settings)
    )
    redaction = Redaction(settings.events)
    load = partial(load_version, redactor=redaction.redactor)
    swapper = Swapper(store, repository, traffic, load, routes.wanted, settings.drain_s)
    swapper.load_all(only)
    if only is None:  # a worker that takes another's place must serve, whatever has been unloaded since the start
        _check_columns(redaction, repository)
    admission = Admission(guard, limits.concurrent_requests)
    shadows = ShadowRunner(
        Shadowing(log, settings.events, routes.tripped),
        limits.shadow_queue,
        limits.shadow_bytes,
        lambda: admission.arrivals,
    )
    return Service(
        settings=settings,
        store=store,
        repository=repository,
        traffic=traffic,
        swapper=swapper,
        control=control(swapper),
        routes=routes,
        scorer=Scorer(log, settings.events, Batcher(limits.batch_rows, limits.waiting_requests), routes.tripped),
        shadows=shadows,
        metrics=metrics,
        log=log,
        tokens=tokens,
        admission=admission,
        tensor_limits=TensorLimits(elements=limits.elements, rows=limits.rows, nesting=limits.nesting),
    )


def _topic(settings: Settings) -> Callable[[Accepted], Topic] | None:
    """Returns what makes the topic of routes that several servers share, None for a server that keeps its own."""
    if settings.kafka.bootstrap_servers is None:
        return None
    # Optional extra `kafka`.
    from server.routes.topic import RouteTopic

    return partial(RouteTopic, settings.kafka)


class Application(NamedTuple):
    """What answers: every request over ASGI, and those that score also straight from the HTTP parser, if anything."""

    asgi: ASGIApp
    fast_lane: FastLane | None


def build_application(service: Service) -> Application:
    """Returns what answers, with a span for each request where the settings ask for it.

    Raises:
        SettingsError: the extra that tracing needs is not installed.
    """
    infer = Inference(service, Tensors)
    paths = ScoringPaths(
        [
            ("/v2/models/{model}/infer", infer),
            ("/v2/models/{model}/versions/{version}/infer", infer),
            ("/v1/models/{model}/predict", Inference(service, NamedRows)),
            ("/v1/models/{model}:predict", Inference(service, Instances)),
        ]
    )
    app = ScoringFirst(paths, build_app(service))
    if service.settings.tracing:  # spans are made around ASGI
        return Application(traced(app, installed_version("tiltyard")), None)
    return Application(app, FastLane(Direct(service, paths).prepare) if service.settings.fast_lane else None)


def build_app(service: Service) -> Starlette:
    """Returns the Starlette application over a service, which it closes when it ends."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.callback(service.log.close)
            stack.callback(service.swapper.close)
            stack.push_async_callback(service.routes.close)
            stack.callback(service.metrics.flush)
            stack.callback(service.shadows.drain, service.settings.flush_s)
            await stack.enter_async_context(_background(service, "the shadow runner", service.shadows.run_forever()))
            await stack.enter_async_context(
                _background(service, "the tally of metrics", flush_metrics(service.metrics))
            )
            if service.routes.topic is not None:
                reading = service.routes.topic.run_forever()
                await stack.enter_async_context(_background(service, "the reader of the route topic", reading))
                await service.routes.caught_up()
            await stack.enter_async_context(_background(service, "the route watcher", follow_routes(service)))
            await stack.enter_async_context(_background(service, "the audit of events", tell_events(service)))
            if service.settings.repository == "watched":
                await stack.enter_async_context(_background(service, "the bundle watcher", follow_bundles(service)))
            if service.tokens is not None:
                await stack.enter_async_context(
                    _background(service, "the token watcher", follow_tokens(service.tokens, service.settings.watch_s))
                )
            yield

    app = Starlette(
        routes=_routes(service),
        lifespan=lifespan,
        exception_handlers={HTTPException: _http_error, Exception: _own_fault},
    )
    app.router.redirect_slashes = False
    return app


def _check_columns(redaction: Redaction, repository: Repository[Version]) -> None:
    """Raises SettingsError for a hidden column that no version has, before anything is logged."""
    loaded = {model: repository.versions(model) for model in repository.models()}
    redaction.check(
        [repository.get(model, name).manifest for model, names in loaded.items() for name in names],
        [model for model, names in loaded.items() if names != repository.known(model)],
    )


def _routes(service: Service) -> list[Route]:
    metadata = Metadata(service, installed_version("tiltyard"))
    health = Health(service)
    repository = RepositoryEndpoints(service)
    routes = RouteEndpoints(service)
    forgetting = Forgetting(service)
    reference = ReferencePage(installed_version("tiltyard"))
    infer = Inference(service, Tensors)

    def get(path: str, handler: Handler, scope: Scope | None = None) -> Route:
        return Route(path, guarded(service, scope, handler))

    def post(path: str, handler: Handler, scope: Scope) -> Route:
        return Route(path, guarded(service, scope, handler), methods=["POST"])

    async def route(request: Request) -> Response:
        changes = request.method == "PUT"
        handler = routes.replace if changes else routes.show
        return await guarded(service, "admin" if changes else None, handler)(request)

    return [
        Route("/v2/models/{model}/infer", infer, methods=["POST"]),
        Route("/v2/models/{model}/versions/{version}/infer", infer, methods=["POST"]),
        Route("/v1/models/{model}/predict", Inference(service, NamedRows), methods=["POST"]),
        Route("/v1/models/{model}:predict", Inference(service, Instances), methods=["POST"]),
        Route("/v1/feedback", Feedback(service), methods=["POST"]),
        get("/v2", metadata.server),
        get("/v2/", metadata.server),
        Route("/", health.alive),
        Route("/health", health.health),
        Route("/openapi.json", reference.document),
        Route("/docs", reference.page),
        Route("/v2/health/live", health.live),
        Route("/v2/health/ready", health.ready),
        get("/metrics", health.metrics, "metrics"),
        get("/v2/models", metadata.models),
        get("/v2/models/stats", health.statistics),
        get("/v2/models/{model}", metadata.model),
        get("/v2/models/{model}/ready", metadata.model_ready),
        get("/v2/models/{model}/config", metadata.config),
        get("/v2/models/{model}/stats", health.statistics),
        get("/v2/models/{model}/versions/{version}", metadata.model),
        get("/v2/models/{model}/versions/{version}/ready", metadata.model_ready),
        get("/v2/models/{model}/versions/{version}/config", metadata.config),
        get("/v2/models/{model}/versions/{version}/stats", health.statistics),
        Route("/v1/models/{model}:{verb}", _no_such_verb, methods=["POST"]),
        get("/v1/models/{model}", metadata.named_model),
        Route("/v1/models/{model}/route", route, methods=["GET", "PUT"]),
        get("/v1/models/{model}/route/history", routes.history),
        post("/v1/models/{model}/shares", routes.shares, "admin"),
        post("/v1/models/{model}/promote", routes.promote, "admin"),
        post("/v1/models/{model}/rollback", routes.rollback, "admin"),
        post("/v1/log/forget", forgetting.forget, "admin"),
        post("/v2/repository/index", repository.index, "admin"),
        post("/v2/repository/models/{model}/load", repository.load, "admin"),
        post("/v2/repository/models/{model}/unload", repository.unload, "admin"),
    ]


@asynccontextmanager
async def _background(service: Service, name: str, work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs a task beside the server; when it dies by itself, readiness says so."""

    def note_death(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            logger.error("%s has died", name, exc_info=task.exception())
            service.failures.append(f"{name} has died")

    task = asyncio.create_task(work, name=name)
    task.add_done_callback(note_death)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])  # its death is told already, and must not keep the log from closing


async def _http_error(request: Request, error: Exception) -> Response:
    """Answers Starlette's own 404 and 405 in the protocol's form."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    sentences = {
        404: f"expected one of the paths in /openapi.json, got {path}",
        405: f"{path}: expected another method, got {request.method}",
    }
    for extension in _UNSUPPORTED:
        if f"/{extension}" in path:
            sentences[404] = f"{path}: the {extension} extension is not supported"
    body = ErrorBody(error=sentences.get(error.status_code, error.detail))
    return json_response(body, error.status_code, dict(error.headers or {}))


async def _no_such_verb(request: Request) -> Response:
    """Answers 404 to what KServe's V1 protocol has beside predictions, such as explanations."""
    raise HTTPException(404)


async def _own_fault(request: Request, error: Exception) -> Response:
    """Answers a fault of ours without a word of its inside; Starlette raises it on into the log."""
    return json_response(ErrorBody(error="the server failed on this request; its log says more"), 500)
