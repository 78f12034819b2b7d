"""From an ONNX file to a bundle: read, check, try, describe, write. No estimator, no table, no baseline."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import onnxruntime
from numpy.typing import NDArray

from server.bundles.bundle import Bundle
from server.contract.manifest import (
    CARD_FILE,
    EXAMPLES_FILE,
    MODEL_FILE,
    Examples,
    Manifest,
    Signature,
    decode_examples,
)
from server.errors import BundleError
from server.execution.refusals import reason_of
from server.execution.session import Version
from server.packing.errors import ExamplesError, GraphError
from server.packing.estimator_description import GRAPH_PACKAGES, package_versions
from server.packing.graph_signature import graph_signature
from server.packing.onnx_file import check_graph, describe_graph, read_graph
from server.packing.options import OnnxOptions
from server.packing.placement import choose_folder, write_bundle
from server.packing.sealing import sealed
from server.packing.tensor_card import write_tensor_card
from server.packing.tensor_examples import Run, made_up_inputs, read_inputs, record_examples
from server.protocol.datatypes import Arrays

Progress = Callable[[str], None]


def pack_onnx(path: Path, options: OnnxOptions, progress: Progress = lambda stage: None) -> Path:
    """Returns the folder of a new bundle of the graph in an ONNX file.

    Nothing is written unless all went well, and the bundle loads as the server will load it.

    Args:
        path: the file; weights in files beside it are embedded.
        options: everything else.
        progress: called with the name of each stage as it begins.

    Raises:
        PackingError: as the tree in ``server.packing.errors`` says.
    """
    folder = choose_folder(options.out, options.model, options.version)

    progress("reading the graph")
    model, graph = read_graph(path)
    signature = graph_signature(model)
    check_graph(path, model)
    manifest = Manifest(
        model=options.model,
        version=folder.name,
        created_at=datetime.now(UTC).replace(microsecond=0),
        task="tensors",
        signature=signature,
        estimator=describe_graph(model),
        packages=package_versions(GRAPH_PACKAGES),
        files={},
    )
    del model

    progress("trying it on examples")
    examples = _examples(path, graph, signature, options)

    progress("loading it as the server will")
    written = msgspec.json.encode(examples)
    try:
        Version(Bundle(folder=folder, manifest=manifest, model=graph, examples=decode_examples(written)))
    except BundleError as error:
        raise GraphError(f"{path}: no server would load it: {error}") from error

    progress("writing the bundle")
    files = {
        MODEL_FILE: graph,
        EXAMPLES_FILE: written,
        CARD_FILE: write_tensor_card(manifest, examples).encode(),
    }
    write_bundle(folder, sealed(manifest, files))
    return folder


def _examples(path: Path, graph: bytes, signature: Signature, options: OnnxOptions) -> Examples:
    run = _runner(path, graph, signature)
    if options.examples is not None:
        return record_examples(signature, read_inputs(options.examples, signature), run)
    try:
        return record_examples(signature, made_up_inputs(signature, options.seed), run)
    except ExamplesError as error:
        raise ExamplesError(
            f"{error}; this was tried with made-up inputs, others can be given with --examples"
        ) from error


def _runner(path: Path, graph: bytes, signature: Signature) -> Run:
    """Returns what runs a graph on inputs by name; GraphError when onnxruntime refuses it."""
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    # As in the server, and so that no sum depends on which thread was first.
    settings.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no class but Exception
        raise GraphError(
            f"{path}: onnxruntime {onnxruntime.__version__} refuses the graph: {reason_of(error)}"
        ) from error
    names = [spec.name for spec in signature.outputs]

    def run(arrays: Arrays) -> list[NDArray[Any]]:
        try:
            outputs: list[NDArray[Any]] = session.run(names, arrays)
        except Exception as error:  # as above
            shapes = {name: list(array.shape) for name, array in arrays.items()}
            raise ExamplesError(f"the graph fails on inputs of shapes {shapes}: {reason_of(error)}") from error
        return outputs

    return run
