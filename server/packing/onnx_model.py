"""The packed graph, run as the server will run it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from server.contract.manifest import LabelClass, Signature, Task
from server.packing.client_tensors import Tensors, rows_in, take_rows
from server.packing.errors import ConversionError

_CHUNK_ROWS = 4096


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a model says to rows.

    Attributes:
        classes: int64, (rows,): the place of the predicted class; empty for a regression.
        numbers: float64: probabilities (rows, classes), or a regression's values (rows,).
    """

    classes: NDArray[np.int64]
    numbers: NDArray[np.float64]

    def score(self, task: Task) -> NDArray[np.float64]:
        """Returns the number that the monitor follows, (rows,): see ``ScoreBaseline``."""
        if task == "regression":
            return self.numbers
        return self.numbers[:, 1] if task == "binary" else self.numbers.max(axis=1)


class OnnxModel:
    """A graph in memory with its signature and the classes it tells apart."""

    def __init__(self, graph: bytes, signature: Signature, classes: list[LabelClass]) -> None:
        """Loads the graph; ConversionError when onnxruntime refuses it."""
        self.signature = signature
        self._names = [tensor.name for tensor in signature.outputs]
        self._places = {wire_class(one): place for place, one in enumerate(classes)}
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common base but this
            raise ConversionError(f"onnxruntime refuses the converted graph: {_said(error)}") from error

    def run(self, tensors: Tensors) -> list[NDArray[Any]]:
        """Returns the graph's outputs in the signature's order, as they come.

        Raises:
            ConversionError: the graph fails, or an output has another shape than promised.
        """
        parts = [self._run(part) for part in _chunks(tensors)]
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    def _run(self, tensors: Tensors) -> list[NDArray[Any]]:
        try:
            outputs: list[NDArray[Any]] = self._session.run(self._names, dict(tensors))
        except Exception as error:  # as above
            raise ConversionError(f"the converted graph fails on rows of the table: {_said(error)}") from error
        for spec, output in zip(self.signature.outputs, outputs, strict=True):
            expected = (rows_in(tensors), *spec.shape[1:])
            if output.shape != expected:
                raise ConversionError(f"output {spec.name!r}: expected shape {expected}, got {output.shape}")
        return outputs

    def answer(self, tensors: Tensors) -> Answers:
        """Returns the model's answers; raises as ``run`` does."""
        outputs = self.run(tensors)
        if len(outputs) == 1:
            return Answers(classes=np.empty(0, dtype=np.int64), numbers=outputs[0].ravel().astype(np.float64))
        places = [self._places.get(label, -1) for label in outputs[0].tolist()]
        return Answers(classes=np.array(places, dtype=np.int64), numbers=outputs[1].astype(np.float64))


def wire_class(one: LabelClass) -> int | str:
    """Returns a class as the graph's label output has it: skl2onnx writes booleans as integers."""
    return one if isinstance(one, str) else int(one)


def _chunks(tensors: Tensors) -> Iterator[Tensors]:
    for start in range(0, max(rows_in(tensors), 1), _CHUNK_ROWS):
        yield take_rows(tensors, slice(start, start + _CHUNK_ROWS))


def _said(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
