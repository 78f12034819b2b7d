"""BentoML, one worker: ``python bentoml_server.py MODEL PORT``, which becomes ``bentoml serve``."""

import os
import sys
from pathlib import Path

import bentoml
import numpy as np
from graph import open_graph


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Scorer:
    """Rows to labels and probabilities."""

    def __init__(self) -> None:
        self.session = open_graph(os.environ["BENCH_MODEL"])

    @bentoml.api
    def predict(self, rows: list[list[float]]) -> dict[str, list]:
        """Scores in a thread of BentoML's pool, its default."""
        label, probabilities = self.session.run(None, {"input": np.array(rows, dtype=np.float32)})
        return {"label": label.tolist(), "probabilities": probabilities.tolist()}


if __name__ == "__main__":
    os.environ["BENCH_MODEL"] = sys.argv[1]
    os.environ["BENTOML_DO_NOT_TRACK"] = "true"
    here = str(Path(__file__).parent)
    command = [sys.executable, "-m", "bentoml", "serve", "bentoml_server:Scorer", "--working-dir", here]
    os.execv(sys.executable, [*command, "--host", "127.0.0.1", "--port", sys.argv[2]])
