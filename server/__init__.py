"""Tiltyard's scoring server: ONNX bundles in, answers and durable events out."""
