"""MLServer with a custom runtime, no parallel workers: ``python mlserver_runtime.py MODEL PORT``.

It writes the settings into the present folder and becomes ``mlserver start``. A pool of workers would share the
one core with the server and cost a hop to each request.
"""

import json
import os
import sys
from pathlib import Path

from graph import open_graph
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Scorer(MLModel):
    """One matrix input to labels and probabilities."""

    async def load(self) -> bool:
        """Opens the graph."""
        self.session = open_graph(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Scores in the event loop."""
        x = NumpyCodec.decode_input(payload.inputs[0])
        label, probabilities = self.session.run(None, {"input": x})
        outputs = [NumpyCodec.encode_output("label", label), NumpyCodec.encode_output("probabilities", probabilities)]
        return InferenceResponse(model_name=self.name, outputs=outputs)


if __name__ == "__main__":
    port = int(sys.argv[2])
    settings = {"host": "127.0.0.1", "http_port": port, "parallel_workers": 0, "debug": False}
    # It opens ports for gRPC and metrics too; 0 takes free ones.
    settings |= {"grpc_port": 0, "metrics_endpoint": None}
    model = {"name": "bench", "implementation": "mlserver_runtime.Scorer", "parameters": {"uri": sys.argv[1]}}
    Path("settings.json").write_text(json.dumps(settings))
    Path("model-settings.json").write_text(json.dumps(model))
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    os.execv(sys.executable, [sys.executable, str(Path(sys.executable).parent / "mlserver"), "start", "."])
