"""Running graphs: the ONNX session, stacks of requests, and the shadow runner."""
