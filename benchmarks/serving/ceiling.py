"""The ceiling: what uvicorn can do when nothing is done."""

import sys
from pathlib import Path

from benchmarks.machine import ROOT
from benchmarks.serving.contestant import Contestant, Ground, Launch


def _launch(ground: Ground, estimator: str, folder: Path, port: int) -> Launch:
    command = [sys.executable, "-m", "benchmarks.bare_app", str(ground.answers[estimator]), str(port)]
    return Launch(command=command, environment={"PYTHONPATH": str(ROOT)})


# It answers one row's answer, however many it is asked for.
CEILING = Contestant(name="bare uvicorn app", launch=_launch, checked=False)
