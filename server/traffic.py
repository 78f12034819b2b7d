"""Who answers: every model's route document, resolved to versions that serve.

A model's traffic is one immutable value that is replaced whole, so that a request that has begun
goes on with the versions it began with.
"""

import logging
from collections.abc import Mapping

from server.bundles.repository import Repository
from server.errors import RouteError, UnknownModelError
from server.execution.session import Version
from server.metrics import ArmMetrics, Metrics
from server.routing.document import Route, decode_route
from server.scoring import Arm, ModelRoute

logger = logging.getLogger(__name__)

# What a model's route.json holds: its bytes, why it cannot be read, or None where there is none.
Document = bytes | RouteError | None


class Traffic:
    """The routes of all models, kept in step with the repository and the documents."""

    def __init__(self, repository: Repository[Version], metrics: Metrics) -> None:
        self._repository = repository
        self._metrics = metrics
        self._documents: dict[str, Document] = {}
        self._good: dict[str, Route | None] = {}
        self._routes: dict[str, ModelRoute] = {}
        self.faults: dict[str, str] = {}

    @property
    def routes(self) -> Mapping[str, ModelRoute]:
        """Every model's present traffic by its name."""
        return self._routes

    def route(self, model: str, version: str | None) -> ModelRoute:
        """Returns a model's traffic, in which the version the client asks for serves.

        Raises:
            UnknownModelError: no such model or version.
            NotReadyError: the version is there but was refused.
        """
        route = self._routes.get(model)
        if route is None or (version is not None and version not in route.by_version):
            if version is not None:
                self._repository.get(model, version)
            raise UnknownModelError(f"model {model!r} is unknown: expected one of {sorted(self._routes)}")
        return route

    def follow(self, model: str, document: Document) -> None:
        """Takes a model's route document where it is not the one already known."""
        if model in self._routes and self._documents[model] != document:
            self.refresh(model, document)

    def refresh(self, model: str, document: Document) -> None:
        """Resolves a model's traffic anew, after its versions or its route document have changed.

        A faulty document is logged and changes nothing while an earlier one can be obeyed.
        """
        former = self._routes.get(model)
        if model in self._repository.models():
            self._documents[model] = document
            self._routes[model] = self._resolve(model)
        else:
            for remembered in (self._routes, self._documents, self._good, self.faults):
                remembered.pop(model, None)
        self._show_shares(former, self._routes.get(model))

    def named(self, model: str) -> set[str]:
        """Returns the versions that a model's route document names."""
        route = self._good.get(model)
        return set() if route is None else {route.champion, *(each.version for each in route.challengers)}

    def _resolve(self, model: str) -> ModelRoute:
        try:
            route = self._decode(model)
        except RouteError as error:
            if self.faults.get(model) != str(error):
                logger.error("model %s: route refused: %s", model, error)
            self.faults[model] = str(error)
            if model not in self._good:
                return self._unserved(model, "its route document was refused")
            route = self._good[model]
        else:
            self.faults.pop(model, None)
            self._good[model] = route
        return self._obey(model, route)

    def _decode(self, model: str) -> Route | None:
        document = self._documents.get(model)
        if document is None:
            return None
        if isinstance(document, RouteError):
            raise document
        route = decode_route(document)
        known = self._repository.known(model)
        for version in (route.champion, *(challenger.version for challenger in route.challengers)):
            if version not in known:
                raise RouteError(f"expected versions among {known}, got {version!r}")
        former = self._routes.get(model)
        serves = former is not None and former.champion is not None
        if serves and self._good.get(model) != route and route.champion not in self._repository.versions(model):
            raise RouteError(f"expected a champion that serves, got version {route.champion!r}, which was refused")
        return route

    def _obey(self, model: str, route: Route | None) -> ModelRoute:
        serving = self._repository.versions(model)
        if not serving:
            return self._unserved(model, "none of its versions could be loaded")
        if route is None:
            logger.debug("model %s has no route document: its newest version, %s, is champion", model, serving[-1])
            route = Route(champion=serving[-1])
        by_version = {name: self._arm(model, name, "challenger", 0.0) for name in serving}
        if route.champion not in by_version:
            return self._unserved(model, f"its champion, version {route.champion}, was refused")
        by_version[route.champion] = self._arm(model, route.champion, "champion", 1.0)
        shadows = []
        for challenger in route.challengers:
            if challenger.version in by_version:
                shadows.append(self._arm(model, challenger.version, "shadow", challenger.share))
            else:
                logger.error("model %s: version %s was refused and does not shadow", model, challenger.version)
        champion = by_version[route.champion]
        return ModelRoute(model, route.salt or model, route.revision, champion, "", tuple(shadows), by_version)

    def _arm(self, model: str, version: str, role: str, share: float) -> Arm:
        return Arm(self._repository.get(model, version), ArmMetrics(self._metrics, model, version, role), role, share)

    def _unserved(self, model: str, reason: str) -> ModelRoute:
        by_version = {name: self._arm(model, name, "challenger", 0.0) for name in self._repository.versions(model)}
        return ModelRoute(model, model, 0, None, reason, (), by_version)

    def _show_shares(self, former: ModelRoute | None, present: ModelRoute | None) -> None:
        """Sets the gauge of every arm that a route names, and to 0 those that it names no longer."""
        shares = {arm: 0.0 for arm in _arms(former)}
        shares.update(_arms(present))
        for labels, share in shares.items():
            self._metrics.route_share.labels(*labels).set(share)


def _arms(route: ModelRoute | None) -> dict[tuple[str, str, str], float]:
    if route is None:
        return {}
    arms = [*([route.champion] if route.champion else []), *route.shadows]
    return {(route.model, arm.version.manifest.version, arm.role): arm.share for arm in arms}
