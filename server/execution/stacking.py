"""Several requests in one run of a graph: their rows stacked along the first axis, the outputs cut apart again."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np

from server.contract.manifest import Signature
from server.errors import ExecutionError
from server.protocol.datatypes import Arrays


def stacks(signature: Signature) -> bool:
    """Says whether requests to a version of this signature may share a run.

    A table's rows may: every input of layouts ``columns`` and ``matrix`` takes any number of them, and each is
    answered by itself. A graph of layout ``tensors`` may mix what it is given, as a softmax along the first axis
    does, and no shape tells: even where all of them begin with -1, what one client gets could depend on
    another's request.
    """
    return signature.layout != "tensors" and all(output.shape[:1] == [-1] for output in signature.outputs)


def stack(parts: Sequence[Arrays]) -> Arrays:
    """Returns the rows of several requests as one, in their order.

    Args:
        parts: at least one, each as decoded for the same version, so a column is (rows, 1); rows may be 0.

    Raises:
        ValueError, TypeError: they differ in shape beyond the rows, or in dtype; converting could change an answer.
    """
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts], casting="no") for name in parts[0]}


def cut(outputs: Arrays, rows: Sequence[int]) -> list[Arrays]:
    """Returns each request's outputs, views of the stack's.

    Args:
        outputs: of one run, by name.
        rows: how many each request has, in the order they were stacked.

    Raises:
        ExecutionError: an output has another number of rows than went in, so nobody knows whose they are.
    """
    ends = list(accumulate(rows, initial=0))
    for name, array in outputs.items():
        if array.shape[:1] != (ends[-1],):
            raise ExecutionError(f"output {name!r}: expected {ends[-1]} rows like the inputs, got {array.shape}")
    return [{name: array[start:end] for name, array in outputs.items()} for start, end in pairwise(ends)]
