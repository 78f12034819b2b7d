"""What a contestant is: a server that can be started over a packed model, and asked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.serving.forms import BINARY, JSON, Form
from server.contract.manifest import MODEL_FILE

INFER = "/v2/models/bench/infer"


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What contestants start from.

    Attributes:
        bundles: folders of packed models by estimator, one version each.
        answers: files with the constant that the ceiling answers, by estimator.
        pythons: interpreters by the name of their requirements.
        brokers: where Kafka is, None where there is none.
    """

    bundles: Mapping[str, Path]
    answers: Mapping[str, Path]
    pythons: Mapping[str, Path]
    brokers: str | None = None

    def version(self, estimator: str) -> Path:
        """Returns the folder of the packed version."""
        return self.bundles[estimator] / "bench" / "1"

    def graph(self, estimator: str) -> Path:
        """Returns the file that peers open."""
        return self.version(estimator) / MODEL_FILE


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How a contestant is started, and what its requests carry beside the body."""

    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One server.

    Attributes:
        name: what tables call it.
        launch: ground, estimator, a folder of its own and a port to how it is started.
        path: where it is asked.
        forms: how it can be asked; the first is how it is asked first.
        requirements: the name of its environment; None is this one.
        checked: whether its answers are held against the graph's.
    """

    name: str
    launch: Callable[[Ground, str, Path, int], Launch]
    path: str = INFER
    forms: tuple[Form, ...] = (JSON, BINARY)
    requirements: str | None = None
    checked: bool = True

    def form(self, name: str) -> Form | None:
        """Returns how it is asked in a form of that name, None where it cannot be."""
        return next((form for form in self.forms if form.name == name), None)
