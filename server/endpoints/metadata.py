"""What a client can ask before it scores: the server, its models, and whether they are ready."""

from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from server.errors import TiltyardError, UnknownModelError
from server.protocol.messages import ErrorBody, ModelMetadata, ServerMetadata, TensorMetadata
from server.protocol.status import RETRY_AFTER_S, status_of
from server.service import Service

_encoder = msgspec.json.Encoder()


class Metadata:
    """The endpoints that only read."""

    def __init__(self, service: Service, server_version: str) -> None:
        self._service = service
        self._server_version = server_version

    async def server(self, request: Request) -> Response:
        """``GET /v2``"""
        return json_response(ServerMetadata(name="tiltyard", version=self._server_version, extensions=[]))

    async def live(self, request: Request) -> Response:
        """``GET /v2/health/live``: the event loop turns."""
        return json_response({"live": True})

    async def ready(self, request: Request) -> Response:
        """``GET /v2/health/ready``: every model answers and events are logged; else 503 with the reasons."""
        faults = self._service.faults()
        if faults:
            return json_response({"ready": False, "error": "; ".join(faults)}, 503)
        return json_response({"ready": True})

    async def models(self, request: Request) -> Response:
        """``GET /v2/models``"""
        return json_response({"models": self._service.repository.models()})

    async def model(self, request: Request) -> Response:
        """``GET /v2/models/{model}[/versions/{version}]``"""
        name, version = request.path_params["model"], request.path_params.get("version")
        try:
            route = self._service.route(name, version)
            if version is None:
                arm = route.champion
                version = arm.version.manifest.version if arm else self._service.repository.known(name)[-1]
            manifest = self._service.repository.get(name, version).manifest
        except TiltyardError as error:
            return error_response(error)
        tensors = [
            [TensorMetadata(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape) for tensor in group]
            for group in (manifest.signature.inputs, manifest.signature.outputs)
        ]
        versions = self._service.repository.versions(name)
        return json_response(ModelMetadata(name=name, versions=versions, inputs=tensors[0], outputs=tensors[1]))

    async def model_ready(self, request: Request) -> Response:
        """``GET /v2/models/{model}[/versions/{version}]/ready``"""
        name, version = request.path_params["model"], request.path_params.get("version")
        try:
            route = self._service.route(name, version)
        except UnknownModelError as error:
            return error_response(error)
        except TiltyardError:
            return json_response({"ready": False}, 503)
        if version is None and route.champion is None:
            return json_response({"ready": False, "error": route.reason}, 503)
        return json_response({"ready": True})

    async def metrics(self, request: Request) -> Response:
        """``GET /metrics``: Prometheus's text format."""
        return Response(generate_latest(self._service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Returns a response whose content type is exactly ``application/json``."""
    return Response(_encoder.encode(value), status, headers, media_type="application/json")


def error_response(error: TiltyardError) -> Response:
    """Returns an error's sentence with its status."""
    status = status_of(error)
    headers = {"retry-after": str(RETRY_AFTER_S)} if status == 503 else None
    return json_response(ErrorBody(error=str(error)), status, headers)
