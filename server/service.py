"""The running parts that endpoints use."""

from dataclasses import dataclass, field

from server.admission import Admission
from server.bundles.repository import Repository
from server.bundles.store import BundleStore
from server.eventlog.event_log import EventLog
from server.execution.session import Version
from server.execution.shadow import ShadowRunner
from server.metrics import Metrics
from server.protection.tokens import Tokens
from server.protocol.tensors import TensorLimits
from server.route_control import RouteControl
from server.scoring import Scorer, ShadowWork
from server.settings import Settings
from server.swap import RepositoryControl, Swapper
from server.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Service:
    """What an endpoint needs to answer. ``failures`` are what makes the server not ready for good."""

    settings: Settings
    store: BundleStore
    repository: Repository[Version]
    traffic: Traffic
    swapper: Swapper
    control: RepositoryControl
    routes: RouteControl
    scorer: Scorer
    shadows: ShadowRunner[ShadowWork]
    metrics: Metrics
    log: EventLog
    tokens: Tokens | None
    admission: Admission
    tensor_limits: TensorLimits
    failures: list[str] = field(default_factory=list)

    def faults(self) -> list[str]:
        """Returns why the server is not ready, nothing when it is."""
        faults = list(self.failures)
        if not self.log.alive:
            faults.append("the outbox writer has died")
        if self.log.failure is not None:
            faults.append(self.log.failure)
        routes = self.traffic.routes
        faults += [f"model {name}: {route.reason}" for name, route in routes.items() if route.champion is None]
        return faults

    def serving(self, model: str) -> list[str]:
        """Returns a model's versions that serve, none for a model that is not loaded."""
        return self.repository.versions(model) if model in self.repository.models() else []

    def stop(self) -> None:
        """Makes the server say that it is not ready, while it still answers."""
        self.failures.append("the server is stopping")
