"""The model of Triton's Python backend: what arrives together runs together. Triton itself imports this."""

import json

import numpy as np
import triton_python_backend_utils as pb_utils
from graph import open_graph


class TritonPythonModel:
    """One matrix input to labels and probabilities."""

    def initialize(self, args: dict[str, str]) -> None:
        """Opens the graph that the configuration names."""
        parameters = json.loads(args["model_config"])["parameters"]
        self.session = open_graph(parameters["graph"]["string_value"])

    def execute(self, requests: list) -> list:
        """Returns one response a request, in their order."""
        parts = [pb_utils.get_input_tensor_by_name(request, "input").as_numpy() for request in requests]
        x = parts[0] if len(parts) == 1 else np.concatenate(parts)
        label, probabilities = self.session.run(None, {"input": x})
        responses, start = [], 0
        for part in parts:
            end = start + len(part)
            outputs = [
                pb_utils.Tensor("label", label[start:end]),
                pb_utils.Tensor("probabilities", probabilities[start:end]),
            ]
            responses.append(pb_utils.InferenceResponse(output_tensors=outputs))
            start = end
        return responses
