"""The running parts that endpoints use, and how folders and routes become models that answer."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from server.bundles.repository import Repository
from server.errors import RouteError, UnknownModelError
from server.eventlog.outbox import Outbox
from server.execution.session import Version
from server.execution.shadow import ShadowRunner
from server.metrics import ArmMetrics, Metrics
from server.routing.store import read_route
from server.scoring import Arm, ModelRoute, Scorer, ShadowWork
from server.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """What an endpoint needs to answer."""

    settings: Settings
    repository: Repository[Version]
    routes: dict[str, ModelRoute]
    scorer: Scorer
    shadows: ShadowRunner[ShadowWork]
    metrics: Metrics
    outbox: Outbox
    failures: list[str] = field(default_factory=list)

    def route(self, model: str, version: str | None) -> ModelRoute:
        """Returns a model's route, in which the version the client asks for serves.

        Raises:
            UnknownModelError: no such model or version.
            NotReadyError: the version is there but was refused.
        """
        route = self.routes.get(model)
        if route is None or (version is not None and version not in route.by_version):
            if version is not None:
                self.repository.get(model, version)
            self.repository.versions(model)
            raise UnknownModelError(f"model {model!r} is unknown: expected one of {sorted(self.routes)}")
        return route

    def faults(self) -> list[str]:
        """Returns why the server is not ready, nothing when it is."""
        faults = list(self.failures)
        if not self.outbox.alive:
            faults.append("the outbox writer has died")
        if self.outbox.failure is not None:
            faults.append(self.outbox.failure)
        faults += [f"model {name}: {route.reason}" for name, route in self.routes.items() if route.champion is None]
        return faults


def resolve_routes(models: Path, repository: Repository[Version], metrics: Metrics) -> dict[str, ModelRoute]:
    """Returns every model's traffic, resolved to versions that serve. A faulty one is kept with its reason."""
    return {model: _resolve(models / model, repository, metrics) for model in repository.models()}


def _resolve(folder: Path, repository: Repository[Version], metrics: Metrics) -> ModelRoute:
    model = folder.name
    serving = repository.versions(model)
    by_version = {name: _arm(repository, metrics, model, name, "challenger", 0.0) for name in serving}
    if not serving:
        return _unserved(model, by_version, "none of its versions could be loaded")
    try:
        route = read_route(folder, repository.known(model))
    except RouteError as error:
        logger.error("route refused: %s", error)
        return _unserved(model, by_version, "its route document was refused")
    if route is None:
        logger.info("model %s has no route document: its newest version, %s, is champion", model, serving[-1])
        champion, challengers, salt, revision = serving[-1], [], model, 0
    else:
        champion, challengers, salt, revision = route.champion, route.challengers, route.salt or model, route.revision
    if champion not in by_version:
        return _unserved(model, by_version, f"its champion, version {champion}, was refused")
    by_version[champion] = _arm(repository, metrics, model, champion, "champion", 1.0)
    shadows = []
    for challenger in challengers:
        if challenger.version in by_version:
            shadows.append(_arm(repository, metrics, model, challenger.version, "shadow", challenger.share))
        else:
            logger.error("model %s: version %s was refused and does not shadow", model, challenger.version)
    return ModelRoute(model, salt, revision, by_version[champion], "", tuple(shadows), by_version)


def _arm(repository: Repository[Version], metrics: Metrics, model: str, version: str, role: str, share: float) -> Arm:
    if role != "challenger":
        metrics.route_share.labels(model, version, role).set(share)
    return Arm(repository.get(model, version), ArmMetrics(metrics, model, version, role), role, share)


def _unserved(model: str, by_version: dict[str, Arm], reason: str) -> ModelRoute:
    return ModelRoute(model, model, 0, None, reason, (), by_version)
