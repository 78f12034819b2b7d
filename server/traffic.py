"""Who answers: every model's route, resolved to versions that serve.

A model's traffic is one immutable value that is replaced whole, so that a request that has begun
goes on with the versions it began with.
"""

import logging
from collections.abc import Mapping

import msgspec

from server.bundles.repository import Repository
from server.contract.events import Role
from server.errors import UnknownModelError
from server.execution.session import Version
from server.metrics import ArmMetrics, Metrics
from server.model_route import Arm, ModelRoute, Override
from server.routing.assignment import Lanes, lanes_of
from server.routing.breaker import Breaker
from server.routing.changes import unit_fault, version_faults
from server.routing.document import Challenger, Route
from server.routing.ranges import champion_share
from server.routing.wanted import Wanted

logger = logging.getLogger(__name__)


class Traffic:
    """The routes of all models, kept in step with the repository and with what is wanted of each."""

    def __init__(self, repository: Repository[Version], metrics: Metrics) -> None:
        self._repository = repository
        self._metrics = metrics
        self._wanted: dict[str, Wanted] = {}
        self._good: dict[str, Route] = {}
        self._routes: dict[str, ModelRoute] = {}
        self._breakers: dict[tuple[str, str], tuple[Challenger, Breaker]] = {}
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

    def document(self, model: str) -> Route:
        """Returns the route that a model obeys; without a document its newest version is champion, revision 0.

        Raises:
            UnknownModelError: no such model.
        """
        if model not in self._routes:
            raise UnknownModelError(f"model {model!r} is unknown: expected one of {sorted(self._routes)}")
        return self._good.get(model) or self._default(model)

    def faults_of(self, model: str, route: Route) -> list[str]:
        """Returns why a route cannot be obeyed at present, nothing when it can."""
        known, serving = self._repository.known(model), self._repository.versions(model)
        faults = version_faults(route, known, serving)
        if not faults:
            champion = self._repository.get(model, route.champion)
            faults += unit_fault(route, champion.signature)
        return faults

    def follow(self, model: str, wanted: Wanted) -> None:
        """Takes what is wanted of a model where it is not what is known already."""
        if model in self._routes and self._wanted[model] != wanted:
            self.refresh(model, wanted)

    def refresh(self, model: str, wanted: Wanted) -> None:
        """Resolves a model's traffic anew, after its versions or what is wanted have changed.

        What cannot be obeyed is logged and changes nothing while there is an earlier route that can.
        """
        former = self._routes.get(model)
        if model in self._repository.models():
            self._wanted[model] = wanted
            self._routes[model] = self._resolve(model, wanted)
        else:
            for remembered in (self._routes, self._wanted, self._good, self.faults):
                remembered.pop(model, None)
        self._show(model, former, self._routes.get(model))

    def refresh_newer(self, model: str, wanted: Wanted) -> None:
        """As ``refresh``, unless a newer route than this one is known: it was read before a change came to hold."""
        known = self._wanted.get(model)
        if known is not None:
            wanted = max(wanted, known, key=_revision_of)
        self.refresh(model, wanted)

    def named(self, model: str) -> set[str]:
        """Returns the versions that a model's route names."""
        route = self._good.get(model)
        return set() if route is None else set(route.versions())

    def _resolve(self, model: str, wanted: Wanted) -> ModelRoute:
        fault, route = self._choose(model, wanted)
        if fault is None:
            self.faults.pop(model, None)
        else:
            if self.faults.get(model) != fault:
                logger.error("model %s: route refused: %s", model, fault)
            self.faults[model] = fault
        if route is not None:
            self._good[model] = route
            return self._obey(model, route)
        self._good.pop(model, None)
        former = self._routes.get(model)
        if fault is not None and (former is None or former.champion is None):
            return self._unserved(model, "its route document was refused")
        return self._obey(model, self._default(model))

    def _choose(self, model: str, wanted: Wanted) -> tuple[str | None, Route | None]:
        """Returns why what is wanted is not obeyed, and the route that is: the first of those known that can be."""
        fault = wanted.fault
        if wanted.route is None and fault is None:
            return None, None
        good = self._good.get(model)
        for route in (wanted.route, wanted.last, good):
            if route is not None:
                faults = self._faults_at_present(model, route, good)
                if not faults:
                    return fault, route
                fault = fault or "; ".join(faults)
        return fault, None

    def _faults_at_present(self, model: str, route: Route, good: Route | None) -> list[str]:
        """Returns why a route is not taken; a refused champion is no reason where nothing else serves."""
        known = self._repository.known(model)
        former = self._routes.get(model)
        serves = former is not None and former.champion is not None
        strict = serves and route != good
        faults = version_faults(route, known, self._repository.versions(model) if strict else known)
        if not faults and route.champion in self._repository.versions(model):
            faults += unit_fault(route, self._repository.get(model, route.champion).signature)
        return faults

    def _default(self, model: str) -> Route:
        """Returns the route of a model without a document: its newest version that serves answers everything."""
        known = self._repository.versions(model) or self._repository.known(model)
        return Route(champion=known[-1], salt=model)

    def _obey(self, model: str, route: Route) -> ModelRoute:
        serving = self._repository.versions(model)
        if not serving:
            return self._unserved(model, "none of its versions could be loaded")
        by_version = {name: self._arm(model, name, "challenger", 0.0) for name in serving}
        if route.champion not in by_version:
            return self._unserved(model, f"its champion, version {route.champion}, was refused")
        for challenger in route.challengers:
            if challenger.version not in by_version:
                logger.error("model %s: version %s was refused and takes no part", model, challenger.version)
        # What a refused version should have is the champion's.
        present = [each for each in route.challengers if each.version in by_version]
        route = msgspec.structs.replace(route, challengers=present)
        by_version[route.champion] = self._arm(model, route.champion, "champion", champion_share(route))
        shadows = []
        for challenger in route.challengers:
            breaker = self._breaker(model, challenger)
            role: Role = "shadow" if challenger.mode == "shadow" else "challenger"
            arm = self._arm(model, challenger.version, role, challenger.share, breaker)
            if role == "shadow":
                shadows.append(arm)
            else:
                by_version[challenger.version] = arm
        champion = by_version[route.champion]
        hidden = _hidden(by_version)
        return ModelRoute(
            model=model,
            salt=route.salt or model,
            revision=route.revision,
            champion=champion,
            reason="",
            shadows=tuple(shadows),
            splits=tuple(by_version[each.version] for each in route.splits if each.version in by_version),
            by_version=by_version,
            lanes=_lanes(lanes_of(route), by_version),
            unit=_unit(route),
            overrides=tuple(
                Override(each.header.lower().encode(), each.value.encode("latin-1"), by_version[each.version])
                for each in route.overrides
                if each.version in by_version
            ),
            hides=bool(hidden),
            hides_unit=route.unit is not None and route.unit in {f"input:{name}" for name in hidden},
        )

    def _arm(self, model: str, version: str, role: Role, share: float, breaker: Breaker | None = None) -> Arm:
        metrics = ArmMetrics(self._metrics, model, version, role)
        found = self._repository.get(model, version)
        found.lane.ran = metrics.ran  # its series are the version's, the same in every role
        return Arm(found, metrics, role, share, breaker)

    def _breaker(self, model: str, challenger: Challenger) -> Breaker | None:
        """Returns a guarded challenger's breaker, which goes on counting until its place in the route changes."""
        if challenger.guard is None:
            self._breakers.pop((model, challenger.version), None)
            return None
        known, breaker = self._breakers.get((model, challenger.version), (None, None))
        if breaker is None or known != challenger:
            breaker = Breaker(challenger.guard)
            self._breakers[model, challenger.version] = challenger, breaker
        return breaker

    def _unserved(self, model: str, reason: str) -> ModelRoute:
        by_version = {name: self._arm(model, name, "challenger", 0.0) for name in self._repository.versions(model)}
        return ModelRoute(
            model=model,
            salt=model,
            revision=0,
            champion=None,
            reason=reason,
            shadows=(),
            by_version=by_version,
            hides=bool(_hidden(by_version)),
        )

    def _show(self, model: str, former: ModelRoute | None, present: ModelRoute | None) -> None:
        """Sets the gauges of every arm that a route names, and to 0 those that it names no longer."""
        shares = {arm: 0.0 for arm in _arms(former)}
        shares.update(_arms(present))
        for labels, share in shares.items():
            self._metrics.route_share.labels(*labels).set(share)
        self._metrics.route_revision.labels(model).set(present.revision if present else 0)


def _revision_of(wanted: Wanted) -> int:
    return -1 if wanted.route is None else wanted.route.revision


def _arms(route: ModelRoute | None) -> dict[tuple[str, str, str], float]:
    if route is None or route.champion is None:
        return {}
    arms = [route.champion, *route.splits, *route.shadows]
    return {(route.model, arm.version.manifest.version, arm.role): arm.share for arm in arms}


def _lanes(lanes: Lanes[str], by_version: Mapping[str, Arm]) -> Lanes[Arm]:
    """Returns lanes whose owners are arms."""
    return Lanes(lanes.cuts, tuple(by_version[owner] for owner in lanes.owners))


def _hidden(by_version: Mapping[str, Arm]) -> set[str]:
    """Returns the columns that events of any of these versions must not hold."""
    redactors = [arm.version.redactor for arm in by_version.values()]
    return {name for redactor in redactors if redactor is not None for name in redactor.columns}


def _unit(route: Route) -> tuple[str, str] | None:
    if route.unit is None:
        return None
    kind, _, name = route.unit.partition(":")
    return kind, name.lower() if kind == "header" else name
