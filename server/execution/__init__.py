"""Running graphs: the ONNX session and the shadow runner."""
