"""Ray Serve, one replica: ``python ray_server.py MODEL PORT``."""

import os
import signal
import sys
from typing import Any

import numpy as np
import ray
from graph import open_graph
from ray import serve
from ray.serve.schema import LoggingConfig
from starlette.requests import Request


@serve.deployment(
    num_replicas=1,
    max_ongoing_requests=256,
    ray_actor_options={"num_cpus": 0},
    logging_config=LoggingConfig(enable_access_log=False, log_level="ERROR"),
)
class Scorer:
    """Rows to labels and probabilities."""

    def __init__(self, model: str) -> None:
        self.session = open_graph(model)

    async def __call__(self, request: Request) -> dict[str, Any]:
        """Scores in the replica's event loop."""
        rows = (await request.json())["rows"]
        label, probabilities = self.session.run(None, {"input": np.array(rows, dtype=np.float32)})
        return {"label": label.tolist(), "probabilities": probabilities.tolist()}


if __name__ == "__main__":
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # unwinds, so that Ray's processes end too
    ray.init(
        num_cpus=1, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": sys.path[0]}}
    )
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(sys.argv[2])},
        logging_config=LoggingConfig(enable_access_log=False, log_level="ERROR"),
    )
    try:
        serve.run(Scorer.bind(sys.argv[1]), route_prefix="/predict", blocking=True)
    finally:
        ray.shutdown()
