"""The graph that every peer runs, opened the same way. The peers' own interpreters import this."""

from pathlib import Path

import onnxruntime


def open_graph(path: str | Path) -> onnxruntime.InferenceSession:
    """Returns a session of one thread: onnxruntime's own number of threads escapes the pinning to one core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
