"""What a client can ask before it scores: the server, its models, their versions, and whether they are ready."""

from starlette.requests import Request
from starlette.responses import Response

from server.contract.manifest import Manifest, Tensor
from server.endpoints.replies import json_response
from server.errors import NotReadyError
from server.protocol.messages import ConfigTensor, ModelConfig, ModelMetadata, ServerMetadata, TensorMetadata
from server.service import Service

EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]


class Metadata:
    """The endpoints that only read."""

    def __init__(self, service: Service, server_version: str) -> None:
        self._service = service
        self._server_version = server_version

    async def server(self, request: Request) -> Response:
        """``GET /v2``"""
        return json_response(ServerMetadata(name="tiltyard", version=self._server_version, extensions=EXTENSIONS))

    async def models(self, request: Request) -> Response:
        """``GET /v2/models``"""
        return json_response({"models": self._service.repository.models()})

    async def model(self, request: Request) -> Response:
        """``GET /v2/models/{model}[/versions/{version}]``"""
        manifest = self._manifest(request)
        signature = manifest.signature
        return json_response(
            ModelMetadata(
                name=manifest.model,
                versions=self._service.repository.versions(manifest.model),
                inputs=[_metadata(tensor) for tensor in signature.inputs],
                outputs=[_metadata(tensor) for tensor in signature.outputs],
            )
        )

    async def config(self, request: Request) -> Response:
        """``GET /v2/models/{model}[/versions/{version}]/config``: what load generators read."""
        manifest = self._manifest(request)
        signature = manifest.signature
        batches = all(tensor.shape[:1] == [-1] for tensor in (*signature.inputs, *signature.outputs))
        return json_response(
            ModelConfig(
                name=manifest.model,
                max_batch_size=self._service.settings.limits.rows if batches else 0,
                input=[_configured(tensor, batches) for tensor in signature.inputs],
                output=[_configured(tensor, batches) for tensor in signature.outputs],
            )
        )

    async def model_ready(self, request: Request) -> Response:
        """``GET /v2/models/{model}[/versions/{version}]/ready``"""
        name, version = request.path_params["model"], request.path_params.get("version")
        try:
            route = self._service.traffic.route(name, version)
        except NotReadyError as error:
            return json_response({"ready": False, "error": str(error)}, 503)
        if version is None and route.champion is None:
            return json_response({"ready": False, "error": route.reason}, 503)
        return json_response({"ready": True})

    async def named_model(self, request: Request) -> Response:
        """``GET /v1/models/{model}``: KServe's V1 protocol asks this for readiness."""
        route = self._service.traffic.route(request.path_params["model"], None)
        ready = route.champion is not None
        return json_response({"name": route.model, "ready": ready}, 200 if ready else 503)

    def _manifest(self, request: Request) -> Manifest:
        """Returns the manifest of the version that is named, else of the one that answers, else of the newest."""
        name, version = request.path_params["model"], request.path_params.get("version")
        route = self._service.traffic.route(name, version)
        if version is None:
            champion = route.champion
            version = champion.version.manifest.version if champion else self._service.repository.known(name)[-1]
        return self._service.repository.get(name, version).manifest


def _metadata(tensor: Tensor) -> TensorMetadata:
    return TensorMetadata(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)


def _configured(tensor: Tensor, batches: bool) -> ConfigTensor:
    """Returns a tensor as the configuration shows it: without the dimension of the batch, where there is one."""
    kind = "STRING" if tensor.datatype == "BYTES" else tensor.datatype
    return ConfigTensor(name=tensor.name, data_type=f"TYPE_{kind}", dims=tensor.shape[1:] if batches else tensor.shape)
