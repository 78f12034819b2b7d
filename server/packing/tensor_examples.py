"""``examples.json`` of a graph that is known by its signature only: inputs made up or given, and its answers."""

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from server.contract.manifest import Examples, ExampleTensor, Signature, Tensor
from server.errors import InvalidRequestError
from server.packing.errors import ExamplesError
from server.protocol.binary_codec import to_bytes
from server.protocol.datatypes import DATATYPES, Arrays, Datatype
from server.protocol.json_codec import decode_request
from server.protocol.tensors import TensorLimits, decode_inputs

ROWS = 2
FREE_SIZE = 8
_WORDS = ("a", "bee", "Ceylon tea")
_BY_DTYPE = {datatype.dtype: datatype for datatype in DATATYPES.values()}
# A file on one's own disk is no attack; numpy's arrays have at most 64 dimensions.
_LIMITS = TensorLimits(elements=2**31, rows=2**31, nesting=64)
# Another machine's rounding moves a number by about 1e-5 of its output's scale in FP32.
_TOLERANCE = 1e-4
_LEAST_SCALE = 1e-3

Run = Callable[[Arrays], list[NDArray[Any]]]


def made_up_inputs(signature: Signature, seed: int) -> Arrays:
    """Returns one array per input of the signature, the same for the same seed.

    A free dimension has 2 elements where it leads a tensor and 8 elsewhere; dimensions of one name
    have one size. Numbers are normal ones in eighths, which every float type holds and JSON writes
    shortly; integers are 0 or 1, which as indices and as masks are seldom wrong.
    """
    random = np.random.default_rng(seed)
    sizes = {spec.symbols[0]: ROWS for spec in signature.inputs if spec.symbols}
    return {spec.name: _made_up(spec, sizes, random) for spec in signature.inputs}


def _made_up(spec: Tensor, sizes: dict[str, int], random: np.random.Generator) -> NDArray[Any]:
    names = spec.symbols or [""] * len(spec.shape)
    shape = [
        size if size >= 0 else sizes.get(name, FREE_SIZE) if name else (FREE_SIZE if place else ROWS)
        for place, (size, name) in enumerate(zip(spec.shape, names, strict=True))
    ]
    datatype = DATATYPES[spec.datatype]
    values: Any = random.integers(0, 2, size=shape)
    if datatype.element is float:
        values = np.round(random.normal(size=shape) * 8) / 8
    elif datatype.element is str:
        values = random.choice(_WORDS, size=shape)
    return np.asarray(values, dtype=datatype.dtype)


def read_inputs(path: Path, signature: Signature) -> Arrays:
    """Returns the inputs in a file: a V2 request in JSON, or a ``.npz`` with an array for each.

    Raises:
        ExamplesError: the file cannot be read, or is no valid request of this signature.
    """
    try:
        if path.suffix.lower() == ".npz":
            inputs, tail = _as_request(_read_arrays(path))
            return decode_inputs(inputs, tail, signature, _LIMITS).arrays
        request = decode_request(path.read_bytes(), _LIMITS.nesting)
        return decode_inputs(request.inputs, None, signature, _LIMITS).arrays
    except OSError as error:
        raise ExamplesError(f"cannot read {path}: {error.strerror or error}") from error
    except InvalidRequestError as error:
        raise ExamplesError(f"{path}: {error}") from error


def _read_arrays(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ExamplesError(f"{path}: expected arrays of numbers, booleans or strings in a .npz: {error}") from error


def _as_request(arrays: Arrays) -> tuple[msgspec.Raw, memoryview]:
    """Returns arrays as a request's inputs in binary, so that a file is checked by the rules for requests."""
    tensors, parts = [], []
    for name, array in arrays.items():
        datatype = _datatype_of(name, array)
        parts.append(bytes(to_bytes(array, datatype)))
        tensors.append(
            {
                "name": name,
                "shape": array.shape,
                "datatype": datatype.name,
                "parameters": {"binary_data_size": len(parts[-1])},
            }
        )
    return msgspec.Raw(msgspec.json.encode(tensors)), memoryview(b"".join(parts))


def _datatype_of(name: str, array: NDArray[Any]) -> Datatype:
    if array.dtype.kind == "U":
        return DATATYPES["BYTES"]
    datatype = _BY_DTYPE.get(array.dtype.newbyteorder("="))
    if datatype is None:
        raise InvalidRequestError(f"input {name!r}: expected numbers, booleans or strings, got {array.dtype}")
    return datatype


def record_examples(signature: Signature, arrays: Arrays, run: Run) -> Examples:
    """Returns inputs with the outputs of the graph.

    Args:
        signature: what the graph takes and gives.
        arrays: the inputs by name.
        run: gives the outputs in the signature's order.

    Raises:
        ExamplesError: an output has another shape than the graph states, is not finite, or differs
            from run to run: no later run could be compared with it.
    """
    outputs, again = run(arrays), run(arrays)
    tolerance = max(_tolerance(output) for output in outputs)
    for spec, output, other in zip(signature.outputs, outputs, again, strict=True):
        _check_output(spec, output, other, tolerance)
    return Examples(
        tolerance=tolerance,
        inputs=_as_tensors(signature.inputs, [arrays[spec.name] for spec in signature.inputs]),
        outputs=_as_tensors(signature.outputs, outputs),
    )


def _tolerance(output: NDArray[Any]) -> float:
    """Returns how far a float output may be off elsewhere; in FP16 a step in rounding is more than usual."""
    if output.dtype.kind != "f":
        return 0.0
    finite = output[np.isfinite(output)].astype(np.float64)
    scale = max(float(np.abs(finite).max(initial=0.0)), _LEAST_SCALE)
    return scale * max(_TOLERANCE, 4 * float(np.finfo(output.dtype).eps))


def _check_output(spec: Tensor, output: NDArray[Any], again: NDArray[Any], tolerance: float) -> None:
    where = f"output {spec.name!r}"
    shape = list(output.shape)
    if len(shape) != len(spec.shape) or any(want not in (-1, got) for want, got in zip(spec.shape, shape, strict=True)):
        raise ExamplesError(f"{where}: expected shape {spec.shape} as the graph states, got {shape}")
    floats = output.dtype.kind == "f"
    if floats and not np.isfinite(output).all():
        raise ExamplesError(f"{where}: expected finite numbers, got one that is not")
    same = again.shape == output.shape
    if same and floats:
        difference = np.abs(output.astype(np.float64) - again.astype(np.float64))
        same = bool((difference <= tolerance).all())
    elif same:
        same = np.array_equal(output, again)
    if not same:
        raise ExamplesError(
            f"{where}: expected the same answer to the same inputs, got different ones from run to run: "
            "a random operator leads to it, and no server could verify the bundle"
        )


def _as_tensors(specs: Sequence[Tensor], arrays: Sequence[NDArray[Any]]) -> list[ExampleTensor]:
    return [
        ExampleTensor(name=spec.name, shape=list(array.shape), datatype=spec.datatype, data=array.ravel().tolist())
        for spec, array in zip(specs, arrays, strict=True)
    ]
