"""``examples.json``: rows with the answers that the packed graph gave for them."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from server.contract.manifest import Examples, ExampleTensor, Tensor
from server.packing.client_tensors import client_tensors
from server.packing.onnx_model import Answers, OnnxModel

ROWS = 16
# Another machine's rounding, or another batch size, moves a probability by about 1e-5 in FP32.
_PROBABILITY_TOLERANCE = 1e-4


def build_examples(table: pd.DataFrame, model: OnnxModel, answers: Answers, seed: int) -> Examples:
    """Returns 16 rows of the table (all of it, when it has fewer) and the graph's outputs.

    For every column that may be missing one row has it missing, at most 8 in all. Rows whose two
    best classes are close are avoided, since rounding elsewhere might choose the other.
    """
    rows = table.iloc[_choose(table, model, answers, seed)]
    tensors = client_tensors(rows, model.signature)
    outputs = model.run(tensors)
    nullable = {column.name for column in model.signature.columns if column.nullable}
    inputs = [
        _tensor(spec, tensors[spec.name], spec.name in nullable or model.signature.layout == "matrix")
        for spec in model.signature.inputs
    ]
    tolerance = _PROBABILITY_TOLERANCE
    if model.signature.outputs[0].role == "value":
        tolerance *= float(np.abs(answers.numbers).max() + np.std(answers.numbers) + 1e-30)
    return Examples(
        tolerance=tolerance,
        inputs=inputs,
        outputs=[_tensor(spec, array, False) for spec, array in zip(model.signature.outputs, outputs, strict=True)],
    )


def _choose(table: pd.DataFrame, model: OnnxModel, answers: Answers, seed: int) -> list[int]:
    order = np.random.default_rng(seed).permutation(len(table))
    if answers.numbers.ndim == 2:
        best = np.sort(answers.numbers[order], axis=1)
        order = np.concatenate([order[best[:, -1] - best[:, -2] >= 0.01], order[best[:, -1] - best[:, -2] < 0.01]])
    chosen: list[int] = []
    for column in model.signature.columns:
        with_gap = order[table[column.name].isna().to_numpy()[order]]
        if with_gap.size and with_gap[0] not in chosen and len(chosen) < ROWS // 2:
            chosen.append(int(with_gap[0]))
    chosen += [int(row) for row in order if row not in chosen][: ROWS - len(chosen)]
    return sorted(chosen)


def _tensor(spec: Tensor, array: NDArray[Any], nullable: bool) -> ExampleTensor:
    data = array.ravel().tolist()
    if nullable:
        data = [None if value in ("", None) or value != value else value for value in data]
    return ExampleTensor(name=spec.name, shape=list(array.shape), datatype=spec.datatype, data=data)
