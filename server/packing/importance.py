"""Permutation importance: how much worse the model gets when one column is shuffled.

Reference: Breiman, Random Forests (2001), and scikit-learn's ``permutation_importance``; here the
packed graph itself is asked, with the metric that the baseline names.
"""

import numpy as np
from numpy.typing import NDArray

from server.contract.manifest import Task
from server.packing.client_tensors import Tensors, rows_in, take_rows
from server.packing.onnx_model import OnnxModel
from server.packing.training_metrics import IMPORTANCE_METRIC, measure

MAX_ROWS = 5_000
REPEATS = 2


def permutation_importance(
    model: OnnxModel, tensors: Tensors, truth: NDArray[np.generic], task: Task, seed: int
) -> list[float]:
    """Returns the mean fall of the metric for every column of the signature, in its order.

    At most 5,000 rows are drawn; every column is shuffled twice, all columns in the same ways.
    A value is about 0, or a little below, for a column that the model does not use. All are 0 where
    the metric is undefined: a table with a single class.
    """
    random = np.random.default_rng(seed)
    drawn = np.sort(random.permutation(rows_in(tensors))[:MAX_ROWS])
    tensors, truth = take_rows(tensors, drawn), truth[drawn]
    shuffles = [random.permutation(len(drawn)) for _ in range(REPEATS)]
    metric = IMPORTANCE_METRIC[task]
    whole = measure(truth, model.answer(tensors), task).get(metric)
    if whole is None:
        return [0.0] * len(model.signature.columns)
    falls = []
    for place in range(len(model.signature.columns)):
        shuffled = [model.answer(_with_shuffled(model, tensors, place, shuffle)) for shuffle in shuffles]
        falls.append(float(np.mean([whole - measure(truth, answers, task)[metric] for answers in shuffled])))
    return falls


def _with_shuffled(model: OnnxModel, tensors: Tensors, place: int, shuffle: NDArray[np.int64]) -> Tensors:
    if model.signature.layout == "columns":
        name = model.signature.columns[place].name
        return {**tensors, name: tensors[name][shuffle]}
    name = model.signature.inputs[0].name
    matrix = tensors[name].copy()
    matrix[:, place] = matrix[shuffle, place]
    return {name: matrix}
