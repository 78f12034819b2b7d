"""LitServe, one worker: ``python litserve_server.py MODEL PORT``."""

import sys
from typing import Any

import litserve
import numpy as np
from graph import open_graph


class Scorer(litserve.LitAPI):
    """Rows to labels and probabilities."""

    def setup(self, device: str) -> None:
        """Opens the graph in the worker."""
        self.session = open_graph(sys.argv[1])

    def decode_request(self, request: dict[str, Any]) -> np.ndarray:
        """Returns x: float32, (rows, 30)."""
        return np.array(request["rows"], dtype=np.float32)

    def predict(self, x: np.ndarray) -> list[np.ndarray]:
        """Returns label and probabilities."""
        return self.session.run(None, {"input": x})

    def encode_response(self, output: list[np.ndarray]) -> dict[str, Any]:
        """Returns what becomes the answer's JSON."""
        label, probabilities = output
        return {"label": label.tolist(), "probabilities": probabilities.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Scorer(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[2]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="error",
        access_log=False,
    )
