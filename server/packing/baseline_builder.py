"""The training data's distributions, in the bins in which production will be counted."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from server.contract.baseline import Baseline, FeatureBaseline, ScoreBaseline
from server.contract.histogram import CategoricalBins, as_numbers, quantile_bins
from server.contract.manifest import Column, LabelClass, Task
from server.packing.client_tensors import column_array
from server.packing.onnx_model import Answers
from server.packing.training_metrics import IMPORTANCE_METRIC

# Beyond these the rarer categories count as new, in the baseline as in production: a column of
# free text or of ids must not make the baseline as large as the table.
MAX_CATEGORIES = 1_000
REFERENCE_ROWS = 500


def build_baseline(
    table: pd.DataFrame,
    columns: list[Column],
    importances: list[float],
    answers: Answers,
    task: Task,
    classes: list[LabelClass],
    seed: int,
) -> Baseline:
    """Returns the baseline of a table and of the packed model's answers to its rows."""
    score = answers.score(task)
    bins = quantile_bins(score)
    drawn = np.sort(np.random.default_rng(seed).permutation(len(table))[:REFERENCE_ROWS])
    reference = [reference_values(table[column.name].iloc[drawn], column) for column in columns]
    names = [column.name for column in columns]
    return Baseline(
        rows=len(table),
        features=[
            _feature(table[column.name], column, importance)
            for column, importance in zip(columns, importances, strict=True)
        ],
        score=ScoreBaseline(
            bins=bins,
            counts=bins.count(score).tolist(),
            class_counts=np.bincount(answers.classes, minlength=len(classes)).tolist() if classes else [],
        ),
        importance_metric=IMPORTANCE_METRIC[task],
        reference=[dict(zip(names, row, strict=True)) for row in zip(*reference, strict=True)],
    )


def reference_values(values: "pd.Series[Any]", column: Column) -> list[Any]:
    """Returns a column's values as JSON has them, None where missing."""
    gaps = values.isna().tolist()
    return [None if gap else value for gap, value in zip(gaps, column_array(values, column).tolist(), strict=True)]


def _feature(values: "pd.Series[Any]", column: Column, importance: float) -> FeatureBaseline:
    if column.kind == "categorical":
        words = reference_values(values, column)
        ranked = sorted(
            Counter(word for word in words if word is not None).items(), key=lambda item: (-item[1], item[0])
        )
        categories = CategoricalBins(categories=[word for word, _ in ranked[:MAX_CATEGORIES]])
        return FeatureBaseline(
            name=column.name,
            datatype=column.datatype,
            bins=categories,
            counts=categories.count(words).tolist(),
            importance=importance,
        )
    numbers = as_numbers(column_array(values, column), column.datatype)
    bins = quantile_bins(numbers)
    return FeatureBaseline(
        name=column.name,
        datatype=column.datatype,
        bins=bins,
        counts=bins.count(numbers).tolist(),
        importance=importance,
        mean=float(np.nanmean(numbers)),
        std=float(np.nanstd(numbers)),
    )
