"""One version's graph, ready to run: arrays in, arrays out. Knows no HTTP and no routes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from server.bundles.bundle import Bundle, read_bundle
from server.contract.manifest import MODEL_FILE, ExampleTensor, Manifest, Signature, Tensor
from server.errors import BundleError, ExecutionError, InvalidRequestError
from server.execution.batcher import Lane
from server.execution.refusals import input_refusal, reason_of
from server.execution.stacking import cut, stack, stacks
from server.protocol.datatypes import BY_ONNX, DATATYPES, Arrays
from server.protocol.redaction import Redactor
from server.protocol.tensor_form import TensorForm

_PROVEN = 8
"""How many of the examples' rows are run alone to see whether they have the same outputs in company."""

# What numpy and the table of datatypes say to a tensor whose data is not of its datatype and shape.
_NO_ARRAY = (ValueError, TypeError, KeyError, OverflowError)


class _Graph:
    """A graph that runs: what a version and its lane share, which refers to neither."""

    def __init__(self, session: onnxruntime.InferenceSession, manifest: Manifest) -> None:
        self._session = session
        self._manifest = manifest
        self._output_names = [output.name for output in manifest.signature.outputs]

    def run(self, arrays: Arrays) -> Arrays:
        try:
            outputs = self._session.run(self._output_names, arrays)
        except Exception as error:  # onnxruntime's errors share no class but Exception
            manifest = self._manifest
            refusal = input_refusal(error, arrays) if manifest.signature.layout == "tensors" else None
            if refusal is not None:
                raise InvalidRequestError(refusal) from error
            raise ExecutionError(
                f"model {manifest.model!r} version {manifest.version!r} failed while scoring"
            ) from error
        return dict(zip(self._output_names, outputs, strict=True))


class Version:
    """A version that serves: its manifest, its graph, and the lane where requests wait for a run of it.

    Nothing it holds refers back to it: when the last reference goes, the graph's memory goes at once.
    """

    def __init__(self, bundle: Bundle, redactor: Redactor | None = None) -> None:
        """Makes the session and replays the bundle's examples, which is also the warm-up.

        Args:
            bundle: what to serve.
            redactor: what its events must not hold, None where nothing is hidden.

        Raises:
            BundleError: onnxruntime cannot load the graph, the graph contradicts the signature, or
                an example's outputs differ from the packed ones.
        """
        self.manifest: Manifest = bundle.manifest
        self.signature: Signature = bundle.manifest.signature
        self.form = TensorForm(bundle.manifest.model, bundle.manifest.version, self.signature)
        self.redactor = redactor
        path = bundle.folder / MODEL_FILE
        try:
            session = onnxruntime.InferenceSession(bundle.model, _options(), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no class but Exception
            raise BundleError(f"{path}: expected a graph onnxruntime can run, got: {reason_of(error)}") from error
        _check_tensors(path, "input", session.get_inputs(), self.signature.inputs)
        _check_tensors(path, "output", session.get_outputs(), self.signature.outputs)
        self._graph = _Graph(session, self.manifest)
        examples = self._replay(bundle)
        together = stacks(self.signature) and _same_together(self._graph.run, examples, bundle.examples.tolerance)
        self.lane = Lane(self._graph.run, together=together)

    def run(self, arrays: Arrays) -> Arrays:
        """Returns the outputs by name for inputs by name.

        Raises:
            ExecutionError: the graph failed on these rows.
            InvalidRequestError: a graph that takes other tensors than a table's rows refused their
                sizes or values, which its signature cannot tell in advance.
        """
        return self._graph.run(arrays)

    def _replay(self, bundle: Bundle) -> Arrays:
        """Returns the examples' inputs, having compared what the graph makes of them with the packed outputs."""
        where = f"{bundle.folder}: examples"
        try:
            arrays = {tensor.name: _example_array(tensor) for tensor in bundle.examples.inputs}
            outputs = self.run(arrays)
        except (ExecutionError, InvalidRequestError, *_NO_ARRAY) as error:
            raise BundleError(f"{where}: expected the model to run on them, got: {error}") from error
        names = [output.name for output in self.signature.outputs]
        for expected in bundle.examples.outputs:
            if expected.name not in outputs:
                raise BundleError(f"{where}: expected output {expected.name!r}, the graph has {names}")
            _compare(where, expected, outputs[expected.name], bundle.examples.tolerance)
        return arrays


def load_version(folder: Path, redactor: Callable[[Manifest], Redactor | None] = lambda _: None) -> Version:
    """Returns the version in a bundle's folder, verified and warm, or raises BundleError.

    Args:
        folder: the bundle's.
        redactor: returns what the version's events must not hold.
    """
    bundle = read_bundle(folder)
    return Version(bundle, redactor(bundle.manifest))


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    # A small model runs in microseconds: waking other threads costs more than it gains, and threads
    # that spin for work would take the core from the event loop.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return options


def _check_tensors(path: Path, kind: str, nodes: list[Any], tensors: list[Tensor]) -> None:
    graph = {node.name: node for node in nodes}
    if kind == "input" and graph.keys() != {tensor.name for tensor in tensors}:
        raise BundleError(f"{path}: expected inputs {[tensor.name for tensor in tensors]}, the graph has {list(graph)}")
    for tensor in tensors:
        if tensor.name not in graph:
            raise BundleError(f"{path}: expected {kind} {tensor.name!r}, the graph has {list(graph)}")
        datatype = BY_ONNX.get(graph[tensor.name].type)
        if datatype is None or datatype.name != tensor.datatype:
            raise BundleError(
                f"{path}: {kind} {tensor.name!r}: expected {tensor.datatype}, the graph has {graph[tensor.name].type}"
            )
        if not _same_shape(tensor.shape, graph[tensor.name].shape):
            raise BundleError(
                f"{path}: {kind} {tensor.name!r}: expected shape {tensor.shape}, the graph has "
                f"{graph[tensor.name].shape}"
            )


def _same_shape(shape: list[int], graph: list[int | str | None]) -> bool:
    """Says whether no dimension contradicts the graph's, where a name or None is a free one; no shape allows any."""
    if not graph:
        return True
    return len(shape) == len(graph) and all(
        want == -1 or not isinstance(got, int) or want == got for want, got in zip(shape, graph, strict=True)
    )


def _same_together(run: Callable[[Arrays], Arrays], examples: Arrays, tolerance: float) -> bool:
    """Says whether rows of the examples have the same outputs alone, beside each other, and beside the rest.

    A graph may contradict its signature: it takes one row at a time, or mixes those that it is given together.
    """
    count = min(len(array) for array in examples.values())
    singles = [{name: array[row : row + 1] for name, array in examples.items()} for row in range(min(count, _PROVEN))]
    try:
        for batch in (singles, [*singles, examples, *reversed(singles)]):
            parts = cut(run(stack(batch)), [len(next(iter(each.values()))) for each in batch])
            if not all(_alike(run(each), part, tolerance) for each, part in zip(batch, parts, strict=True)):
                return False
    except (ExecutionError, InvalidRequestError, *_NO_ARRAY):
        return False
    return bool(singles)


def _alike(one: Arrays, other: Arrays, tolerance: float) -> bool:
    return all(
        one[name].shape == other[name].shape and not _differs(one[name], other[name], tolerance).any() for name in one
    )


def _differs(got: NDArray[Any], wanted: NDArray[Any], tolerance: float) -> NDArray[np.bool_]:
    if got.dtype.kind != "f":
        return np.asarray(got != wanted)
    # In doubles, since halves have no room for a small tolerance or for a large difference.
    return ~np.isclose(got.astype(np.float64), wanted.astype(np.float64), rtol=0, atol=tolerance, equal_nan=True)


def _example_array(tensor: ExampleTensor) -> NDArray[Any]:
    datatype = DATATYPES[tensor.datatype]
    data = tensor.data
    if datatype.element is float:
        data = [np.nan if value is None else value for value in data]
    elif datatype.element is str:
        data = ["" if value is None else value for value in data]
    return np.array(data, dtype=datatype.dtype).reshape(tensor.shape)


def _compare(where: str, expected: ExampleTensor, got: NDArray[Any], tolerance: float) -> None:
    name = expected.name
    if list(got.shape) != expected.shape:
        raise BundleError(f"{where}: output {name!r}: expected shape {expected.shape}, got {list(got.shape)}")
    try:
        wanted = _example_array(expected)
    except _NO_ARRAY as error:
        raise BundleError(f"{where}: output {name!r}: expected data of its datatype and shape, got: {error}") from error
    differs = _differs(got, wanted, tolerance)
    if differs.any():
        place = tuple(int(i) for i in np.argwhere(differs)[0])
        raise BundleError(
            f"{where}: output {name!r} at {place}: expected {wanted[place]} within {tolerance}, got {got[place]}"
        )
