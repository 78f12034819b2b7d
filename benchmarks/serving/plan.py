"""What is measured: parts, each some contestants and the loads that all of them get."""

from dataclasses import dataclass, replace

from benchmarks.models import FOREST, LOGISTIC, MLP
from benchmarks.serving.ceiling import CEILING
from benchmarks.serving.configurations import (
    ASGI,
    EVERYTHING,
    KAFKA,
    LOGGING_OFF,
    ONE_SHADOW,
    PLAIN,
    THREE_SHADOWS,
)
from benchmarks.serving.contestant import Contestant
from benchmarks.serving.peers import BATCHING, FASTAPI, KSERVE, MLSERVER, PEERS

QUIET_CORES = 0.1  # that strangers may use beside a run; beyond it the figures are doubtful


@dataclass(frozen=True)
class Load:
    """A closed loop: a form by name, rows a request, and connections."""

    form: str
    rows: int
    connections: int


@dataclass(frozen=True, kw_only=True)
class Part:
    """Contestants, and what each of them is asked.

    Attributes:
        estimator: of ``benchmarks.models.ESTIMATORS``.
        open_loop: whether a fixed rate of half of a contestant's own highest follows.
        about: the title of its table.
    """

    name: str
    estimator: str
    contestants: tuple[Contestant, ...]
    loads: tuple[Load, ...]
    open_loop: bool = False
    about: str


_ONE_ROW = {connections: Load("JSON", 1, connections) for connections in (1, 16, 64, 256)}
_ROWS = tuple(Load(form, rows, 16) for form in ("JSON", "binary") for rows in (1, 8, 32, 64))

PEERS_PART = Part(
    name="peers",
    estimator=LOGISTIC,
    contestants=(CEILING, EVERYTHING, LOGGING_OFF, *PEERS),
    loads=tuple(_ONE_ROW.values()),
    open_loop=True,
    about="One row of 30 floats as JSON, logistic regression",
)
FULL = (
    PEERS_PART,
    Part(
        name="forest",
        estimator=FOREST,
        contestants=(CEILING, EVERYTHING, LOGGING_OFF, *PEERS),
        loads=(_ONE_ROW[64],),
        about="The same row for a forest of 100 trees",
    ),
    Part(
        name="mlp",
        estimator=MLP,
        contestants=(CEILING, EVERYTHING, LOGGING_OFF),
        loads=(_ONE_ROW[64],),
        about="The same row for a neural network of 64 and 32 units, Tiltyard alone",
    ),
    Part(
        name="rows",
        estimator=LOGISTIC,
        contestants=(CEILING, EVERYTHING, BATCHING, FASTAPI, MLSERVER, KSERVE),
        loads=_ROWS,
        about="More rows a request, as JSON, and as binary tensors where they are spoken",
    ),
    Part(
        name="configurations",
        estimator=LOGISTIC,
        contestants=(CEILING, PLAIN, LOGGING_OFF, KAFKA, ONE_SHADOW, THREE_SHADOWS, EVERYTHING, ASGI),
        loads=(_ONE_ROW[1], _ONE_ROW[64]),
        open_loop=True,
        about="What Tiltyard's own features cost",
    ),
)
QUICK = (replace(PEERS_PART, loads=(_ONE_ROW[1], _ONE_ROW[64]), open_loop=False),)
QUICK_SKIPS = (
    "quick: one round, 2 s a load; left out are 16 and 256 connections, fixed rates, the forest and the neural "
    "network, several rows, binary, and Tiltyard's other configurations"
)


def chosen(parts: tuple[Part, ...], names: list[str] | None, only: list[str] | None) -> list[Part]:
    """Returns the parts of given names, with the contestants that are asked for, and the ceiling.

    Args:
        names: of parts; None is all.
        only: beginnings of contestants' names, in any case; None is all.

    Raises:
        ValueError: there is no such part, or nobody in these parts has such a name.
    """
    known = [part.name for part in parts]
    if unknown := [name for name in names or () if name not in known]:
        raise ValueError(f"expected parts among {', '.join(known)}, got {', '.join(unknown)}")
    found = [part for part in parts if names is None or part.name in names]
    everybody = dict.fromkeys(who.name for part in found for who in part.contestants)
    if unknown := [start for start in only or () if not any(_begins(name, start) for name in everybody)]:
        raise ValueError(f"expected beginnings of {'; '.join(everybody)}, got {', '.join(unknown)}")
    return [replace(part, contestants=tuple(who for who in part.contestants if _wanted(who, only))) for part in found]


def _wanted(who: Contestant, only: list[str] | None) -> bool:
    return only is None or who is CEILING or any(_begins(who.name, start) for start in only)


def _begins(name: str, start: str) -> bool:
    return name.lower().startswith(start.lower())
