"""KServe with a custom predictor, one worker: ``python kserve_server.py MODEL PORT``."""

import sys

import kserve
import numpy as np
from graph import open_graph
from kserve import InferOutput, InferRequest, InferResponse


class Scorer(kserve.Model):
    """One matrix input to labels and probabilities."""

    def load(self) -> bool:
        """Opens the graph."""
        self.session = open_graph(sys.argv[1])
        self.ready = True
        return True

    async def predict(
        self,
        payload: InferRequest,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> InferResponse:
        """Scores in the event loop."""
        x = payload.inputs[0].as_numpy().astype(np.float32, copy=False)
        label, probabilities = self.session.run(None, {"input": x})
        outputs = []
        for name, datatype, values in (("label", "INT64", label), ("probabilities", "FP32", probabilities)):
            output = InferOutput(name=name, shape=list(values.shape), datatype=datatype)
            output.set_data_from_numpy(values, binary_data=False)
            outputs.append(output)
        return InferResponse(response_id=payload.id or "", model_name=self.name, infer_outputs=outputs)


if __name__ == "__main__":
    scorer = Scorer("bench")
    scorer.load()
    server = kserve.ModelServer(
        http_port=int(sys.argv[2]), enable_grpc=False, workers=1, enable_latency_logging=False, grace_period=0
    )
    server.start([scorer])
