"""Whether the server lives, whether it is ready, and what it counts."""

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from server.endpoints.replies import json_response
from server.eventlog.set_aside import set_aside_file
from server.eventlog.ship_status import read_status
from server.metrics import NOTHING_DONE, Totals
from server.protocol.messages import Duration, InferenceStatistics, ModelStatistics
from server.service import Service


class Health:
    """The endpoints of probes and of Prometheus."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def live(self, request: Request) -> Response:
        """``GET /v2/health/live``: the event loop turns."""
        return json_response({"live": True})

    async def alive(self, request: Request) -> Response:
        """``GET /``: what clients of KServe's V1 protocol ask for life."""
        return json_response({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        """``GET /v2/health/ready``: every model answers and events are logged; else 503 with the reasons."""
        faults = self._service.faults()
        if faults:
            return json_response({"ready": False, "error": "; ".join(faults)}, 503)
        return json_response({"ready": True})

    async def health(self, request: Request) -> Response:
        """``GET /health``: readiness with what it rests on, for people."""
        service = self._service
        faults = service.faults()
        routes = service.traffic.routes
        warnings = [f"model {model}: route document: {fault}" for model, fault in service.traffic.faults.items()]
        if service.routes.topic is not None and service.routes.topic.fault is not None:
            warnings.append(service.routes.topic.fault)
        if service.settings.kafka.bootstrap_servers is not None:
            status = read_status(service.settings.outbox)
            if status.fault is not None:
                warnings.append(f"events are not shipped: {status.fault}")
            if status.set_aside:
                warnings.append(
                    f"{status.set_aside} events that no broker took: {set_aside_file(service.settings.outbox)}"
                )
        return json_response(
            {
                "status": "failing" if faults else "ok",
                "faults": faults,
                "warnings": warnings,
                "models": {
                    model: {
                        "versions": service.repository.versions(model),
                        "champion": route.champion.version.manifest.version if route.champion else None,
                    }
                    for model, route in sorted(routes.items())
                },
                "requests": {"present": service.admission.present},
                "events": {
                    "logged": service.log.committed_events,
                    "dropped": service.log.dropped_events,
                    "sampled_out": service.log.sampled_out_events,
                    "backlog": service.log.backlog,
                },
            },
            503 if faults else 200,
        )

    async def metrics(self, request: Request) -> Response:
        """``GET /metrics``: Prometheus's text format."""
        # The workers' files are read from the disk, so not in the event loop.
        text = await run_in_threadpool(generate_latest, self._service.metrics.registry)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    async def statistics(self, request: Request) -> Response:
        """``GET /v2/models[/{model}[/versions/{version}]]/stats``"""
        model, version = request.path_params.get("model"), request.path_params.get("version")
        service = self._service
        if model is not None:
            service.traffic.route(model, version)
        totals = await run_in_threadpool(service.metrics.totals)
        wanted = [
            (name, each)
            for name in service.repository.models()
            for each in service.repository.versions(name)
            if model in (None, name) and version in (None, each)
        ]
        return json_response({"model_stats": [_statistics(key, totals.get(key, NOTHING_DONE)) for key in wanted]})


def _statistics(key: tuple[str, str], totals: Totals) -> ModelStatistics:
    """Returns a version's totals in the protocol's form, which counts nanoseconds."""
    succeeded_s = totals.request_s - totals.failed_s
    return ModelStatistics(
        name=key[0],
        version=key[1],
        last_inference=int(totals.last_answer_s * 1000),
        inference_count=totals.rows,
        execution_count=totals.executions,
        inference_stats=InferenceStatistics(
            success=_duration(totals.succeeded, succeeded_s),
            fail=_duration(totals.failed, totals.failed_s),
            queue=_duration(totals.executions, totals.queue_s),
            compute_infer=_duration(totals.executions, totals.execution_s),
        ),
    )


def _duration(count: int, seconds: float) -> Duration:
    return Duration(count=count, ns=max(0, int(seconds * 1e9)))
