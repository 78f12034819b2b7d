"""An ONNX file from anywhere: read, checked, and made one with the weights that lie beside it."""

import contextlib
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]  # ships no types
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from server.packing.errors import GraphError

# What protobuf can write, and so what a bundle's one file can be.
_MAX_BYTES: int = onnx.checker.MAXIMUM_PROTOBUF


def read_graph(path: Path) -> tuple[onnx.ModelProto, bytes]:
    """Returns the graph in an ONNX file, and the bytes of a bundle's ``model.onnx``.

    The bytes are the file's very own, unless weights lie in files beside it: those are embedded.
    In the graph, outputs whose shape the file leaves open have the one that ONNX infers.

    Raises:
        GraphError: the file or one of its weights cannot be read, it is no ONNX file, or it would
            be 2 GiB or more.
    """
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise _too_large(path)
        content = path.read_bytes()
    except OSError as error:
        raise GraphError(f"cannot read {path}: {error.strerror}") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise _no_graph(path) from error
    if not model.HasField("graph"):
        raise _no_graph(path)
    if any(uses_external_data(tensor) for tensor in model.graph.initializer):
        content = _embedded(path, model, size)
    if not all(output.type.tensor_type.HasField("shape") for output in model.graph.output):
        _infer_shapes(model)
    return model, content


def check_graph(path: Path, model: onnx.ModelProto) -> None:
    """Raises GraphError with ONNX's own reason unless the graph in a file is a valid one."""
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise GraphError(f"{path}: expected a valid ONNX graph: {_first_line(error)}") from error


def describe_graph(model: onnx.ModelProto) -> str:
    """Returns who made a graph and in which dialects: ``ONNX graph by pytorch 2.5.1 (opset 17)``."""
    opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    by = " ".join(f"{model.producer_name} {model.producer_version}".split())
    dialects = [f"opset {opsets.pop('ai.onnx')}"] if "ai.onnx" in opsets else []
    dialects += [f"{domain} {version}" for domain, version in sorted(opsets.items())]
    return f"ONNX graph{' by ' + by if by else ''} ({', '.join(dialects)})"


def _infer_shapes(model: onnx.ModelProto) -> None:
    """Gives the outputs of a graph the shapes that follow from its nodes, as far as they do."""
    with contextlib.suppress(onnx.shape_inference.InferenceError):
        inferred = onnx.shape_inference.infer_shapes(model).graph.output
        for output, other in zip(model.graph.output, inferred, strict=True):
            output.CopyFrom(other)


def _embedded(path: Path, model: onnx.ModelProto, size: int) -> bytes:
    """Takes the weights from the files beside a graph into it, and returns its bytes."""
    # Looked at before anything is read: files of many gigabytes would not fit in memory either.
    if size + sum(_external_bytes(path, tensor) for tensor in model.graph.initializer) > _MAX_BYTES:
        raise _too_large(path)
    try:
        load_external_data_for_model(model, str(path.parent))
        content: bytes = model.SerializeToString()
    except (OSError, onnx.checker.ValidationError) as error:
        raise GraphError(f"{path}: its weights in files beside it cannot be read: {_first_line(error)}") from error
    except (ValueError, EncodeError) as error:
        raise GraphError(f"{path}: its weights in files beside it cannot be embedded: {_first_line(error)}") from error
    return content


def _external_bytes(path: Path, tensor: Any) -> int:
    """Returns how many bytes of a tensor lie in another file; 0 where that is for the reader to refuse."""
    if not uses_external_data(tensor):
        return 0
    place = {entry.key: entry.value for entry in tensor.external_data}
    if place.get("length", "").isdecimal():
        return int(place["length"])
    file = path.parent / place.get("location", "")
    return file.stat().st_size if file.is_file() else 0


def _no_graph(path: Path) -> GraphError:
    return GraphError(f"{path}: expected an ONNX file, got another one or a part of one")


def _too_large(path: Path) -> GraphError:
    return GraphError(f"{path}: expected a graph below 2 GiB with its weights, got a larger one")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
