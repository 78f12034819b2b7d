from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from server.contract.manifest import Examples
from server.packing.client_tensors import client_tensors
from server.packing.conversion import convert, signature_for
from server.packing.examples_builder import build_examples
from server.packing.onnx_model import Answers, OnnxModel
from server.packing.options import PackOptions
from server.packing.table import infer_columns


def converted(table: pd.DataFrame, features: list[str], layout: Any = "columns") -> OnnxModel:
    estimator = HistGradientBoostingClassifier(max_iter=3).fit(table[features], table["number"])
    options = PackOptions(model="m", out=Path(), target="number", layout=layout)
    signature = signature_for(infer_columns(table, features, "FP32"), "binary", [0, 1], options)
    return OnnxModel(convert(estimator, table, signature, options), signature, [0, 1])


def built(table: pd.DataFrame, features: list[str], layout: Any = "columns") -> Examples:
    model = converted(table, features, layout)
    return build_examples(table, model, model.answer(client_tensors(table, model.signature)), seed=0)


@pytest.mark.parametrize("layout", ["columns", "matrix"])
def test_the_only_gap_of_a_column_is_among_the_examples(table: pd.DataFrame, layout: str) -> None:
    """However rare a missing value is, the server has seen one before it serves."""
    rows = table.assign(length=table["length"].where(table.index != 222), size=table["size"].where(table.index != 7))

    examples = built(rows, ["length", "size"], layout)

    gaps = [value for tensor in examples.inputs for value in tensor.data].count(None)
    assert gaps == 2
    assert len(examples.outputs[0].data) == 16


def test_a_table_smaller_than_the_examples_is_given_whole(table: pd.DataFrame) -> None:
    """Nothing is repeated to fill the number."""
    examples = built(table.iloc[:9].reset_index(drop=True), ["length", "size"])

    assert sorted(examples.inputs[0].data) == sorted(float(np.float32(one)) for one in table["length"].iloc[:9])


def test_rows_between_two_classes_are_avoided(table: pd.DataFrame) -> None:
    """Rounding on another machine may choose the other class, and would refuse a sound bundle."""
    rows = table.assign(size=np.arange(300))
    close = np.where(np.arange(300) % 2, 0.9, 0.502)
    answers = Answers(classes=np.zeros(300, dtype=np.int64), numbers=np.stack([close, 1 - close], axis=1))

    examples = build_examples(rows, converted(rows, ["size"]), answers, seed=0)

    assert [int(one or 0) % 2 for one in examples.inputs[0].data] == [1] * 16
