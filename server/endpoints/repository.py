"""``/v2/repository``: what is there, and loading and unloading it."""

from collections.abc import Iterable
from datetime import UTC, datetime

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from server.audit import audit_line
from server.bundles.repository import Status, version_key
from server.bundles.store import BundleStore
from server.endpoints.replies import json_response
from server.endpoints.wire import read_body, read_head
from server.errors import BundleError, ConflictError, InvalidRequestError
from server.protocol.messages import IndexEntry, Parameters, decode_index_request, decode_repository_request
from server.service import Service

_NOT_LOADED = Status("UNAVAILABLE", "not loaded")


class RepositoryEndpoints:
    """The model repository extension of the protocol."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def index(self, request: Request) -> Response:
        """``POST /v2/repository/index``: every version that is in the store or loaded, with its state."""
        only_ready = decode_index_request(await self._body(request))
        service = self._service
        found = {
            (model, version)
            for model, versions in (await run_in_threadpool(service.store.versions)).items()
            for version in versions
        }
        found.update(service.swapper.loaded())
        lacking = {}
        if service.settings.repository == "watched" and not only_ready:
            # The store is asked, not the watcher, which only one of several workers has.
            idle = [key for key in found if self._status(key).state == "UNAVAILABLE"]
            lacking = await run_in_threadpool(_lacking, service.store, idle)
        entries = []
        for key in sorted(found, key=lambda each: (each[0], version_key(each[1]))):
            status = self._status(key)
            if status.state == "UNAVAILABLE":
                status = Status("UNAVAILABLE", lacking.get(key, status.reason))
            if status.state == "READY" or not only_ready:
                entries.append(IndexEntry(name=key[0], version=key[1], state=status.state, reason=status.reason))
        return json_response(entries)

    async def load(self, request: Request) -> Response:
        """``POST /v2/repository/models/{model}/load``: 200 once it serves in every process."""
        return await self._change("load", request)

    async def unload(self, request: Request) -> Response:
        """``POST /v2/repository/models/{model}/unload``: 200 once it is gone from every process."""
        return await self._change("unload", request)

    def _status(self, key: tuple[str, str]) -> Status:
        return self._service.repository.status(*key) or _NOT_LOADED

    async def _change(self, action: str, request: Request) -> Response:
        service = self._service
        if service.settings.repository == "watched":
            raise ConflictError(
                f"{action}: expected a server whose repository is explicit; in this one versions come and go with "
                "their folders"
            )
        model = request.path_params["model"]
        version = _version(decode_repository_request(await self._body(request)))
        if action == "load":
            await service.control.load(model, version)
        else:
            await service.control.unload(model, version)
        after = {"version": version, "serving": service.serving(model)}
        service.metrics.audits.inc()
        service.log.append(audit_line(action, request.state.caller, model, after, datetime.now(UTC)))
        return json_response({})

    async def _body(self, request: Request) -> bytes:
        return await read_body(read_head(request.scope), request.receive, self._service.settings.limits)


def _lacking(store: BundleStore, versions: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Returns why versions are not complete yet, without those that are."""
    reasons = {}
    for model, version in versions:
        try:
            reason = store.missing(model, version)
        except BundleError as error:  # one that cannot be looked at must not hide the others
            reason = str(error)
        if reason is not None:
            reasons[model, version] = reason
    return reasons


def _version(parameters: Parameters | None) -> str | None:
    """Returns the version that a load or unload is about, None for all of the model's."""
    for name in parameters or ():
        if name == "config" or name.startswith("file:"):
            raise InvalidRequestError(
                f"parameter {name!r}: expected a bundle of the repository, not one in the request"
            )
    version = (parameters or {}).get("version")
    if version is not None and not isinstance(version, str):
        raise InvalidRequestError("parameter 'version': expected a string, got another value")
    return version
