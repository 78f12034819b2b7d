"""The peers, each as its own guide starts it, with one worker and one thread a graph and no line a request.

What a peer speaks decides how it is asked: V2 where it can, else rows of numbers.
"""

import os
from pathlib import Path

from benchmarks.serving.contestant import INFER, Contestant, Ground, Launch
from benchmarks.serving.forms import BINARY, JSON, MLFLOW, ROWS, Form

APPS = Path(__file__).parent / "apps"


def _peer(
    name: str, requirements: str, command: str, path: str = INFER, forms: tuple[Form, ...] = (JSON,)
) -> Contestant:
    """Returns a peer that a script of ``apps`` starts; command: the script, and what follows model and port."""
    script, *arguments = command.split()

    def launch(ground: Ground, estimator: str, folder: Path, port: int) -> Launch:
        python = ground.pythons[requirements]
        line = [str(python), str(APPS / script), str(ground.graph(estimator)), str(port), *arguments]
        # Several start others by name: scripts and interpreter of their own environment have to be found first.
        search = os.pathsep.join([str(python.parent), os.environ["PATH"]])
        return Launch(command=line, environment={"PATH": search, "VIRTUAL_ENV": str(python.parents[1])})

    return Contestant(name=name, launch=launch, path=path, forms=forms, requirements=requirements)


BATCHING = _peer(
    "Triton, Python backend, dynamic batching", "triton", "triton_server.py batching", forms=(JSON, BINARY)
)
FASTAPI = _peer("FastAPI, async", "fastapi", "fastapi_async.py", "/predict", (ROWS,))
MLSERVER = _peer("MLServer", "mlserver", "mlserver_runtime.py")
KSERVE = _peer("KServe", "kserve", "kserve_server.py", forms=(JSON, BINARY))
PEERS = (
    BATCHING,
    _peer("Triton, Python backend", "triton", "triton_server.py single", forms=(JSON, BINARY)),
    _peer("PyTriton", "triton", "pytriton_server.py", forms=(JSON, BINARY)),
    FASTAPI,
    _peer("FastAPI, sync", "fastapi", "fastapi_sync.py", "/predict", (ROWS,)),
    MLSERVER,
    KSERVE,
    _peer("LitServe", "litserve", "litserve_server.py", "/predict", (ROWS,)),
    _peer("MLflow", "mlflow", "mlflow_server.py", "/invocations", (MLFLOW,)),
    _peer("BentoML", "bentoml", "bentoml_server.py", "/predict", (ROWS,)),
    _peer("Ray Serve", "ray", "ray_server.py", "/predict", (ROWS,)),
)
