"""Graphs as they come from elsewhere: small, written with ONNX's own helper, run by onnxruntime."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Every datatype of the protocol as ONNX has it.
ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}

Shape = list[int | str | None] | None


def tensor(name: str, datatype: str, shape: Shape) -> Any:
    """Returns an input or output of a graph; None is an unknown rank, and within a shape a free dimension."""
    return helper.make_tensor_value_info(name, ONNX_TYPES[datatype], shape)


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    """Returns a node; inputs and outputs are names with blanks between."""
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def graph(nodes: list[Any], inputs: list[Any], outputs: list[Any], **constants: Any) -> onnx.ModelProto:
    """Returns a model of opset 17; constants are arrays by name."""
    values = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    return helper.make_model(
        helper.make_graph(nodes, "graph", inputs, outputs, values),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
        producer_name="exporter",
        producer_version="2.1",
    )


def identity(datatype: str, shape: Shape) -> onnx.ModelProto:
    """Returns a graph that gives back what it takes."""
    return graph(
        [node("Identity", "given", "same")], [tensor("given", datatype, shape)], [tensor("same", datatype, shape)]
    )


def image_classifier() -> onnx.ModelProto:
    """Returns a small convolutional net: images of any number and size become probabilities of 4 classes."""
    random = np.random.default_rng(1)
    return graph(
        [
            node("Conv", "image kernel", "features", pads=[1, 1, 1, 1], strides=[2, 2]),
            node("Relu", "features", "positive"),
            node("GlobalAveragePool", "positive", "pooled"),
            node("Flatten", "pooled", "flat"),
            node("Gemm", "flat weights bias", "logits"),
            node("Softmax", "logits", "probabilities", axis=1),
        ],
        [tensor("image", "FP32", ["batch", 3, "height", "width"])],
        [tensor("probabilities", "FP32", ["batch", 4])],
        kernel=random.normal(size=(6, 3, 3, 3)).astype(np.float32),
        weights=random.normal(size=(6, 4)).astype(np.float32),
        bias=np.zeros(4, np.float32),
    )


def text_encoder() -> onnx.ModelProto:
    """Returns a net of two inputs with common dimensions and two outputs: words' vectors, averaged under a mask."""
    random = np.random.default_rng(2)
    words: Shape = ["batch", "sequence"]
    return graph(
        [
            node("Gather", "vectors ids", "embedded", name="look_up"),
            node("Cast", "mask", "kept", to=TensorProto.FLOAT),
            node("Unsqueeze", "kept last", "weights"),
            node("Mul", "embedded weights", "hidden"),
            node("ReduceMean", "hidden", "embedding", axes=[1], keepdims=0),
        ],
        [tensor("ids", "INT64", words), tensor("mask", "BOOL", words)],
        [tensor("embedding", "FP32", ["batch", 5]), tensor("hidden", "FP32", [*words, 5])],
        vectors=random.normal(size=(30, 5)).astype(np.float32),
        last=np.array([2]),
    )


def saved(model: onnx.ModelProto, path: Path) -> Path:
    """Returns the path, at which the model is now."""
    path.write_bytes(model.SerializeToString())
    return path
