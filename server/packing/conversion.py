"""From a fitted estimator to a graph and its signature."""

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import onnx
import pandas as pd
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn.impute import SimpleImputer

from server.contract.manifest import Column, LabelClass, Signature, Task, Tensor
from server.packing.double_graph import rewrite_doubles
from server.packing.errors import ConversionError, TableError
from server.packing.estimator_source import parts_of, selects_columns
from server.packing.graph_edges import InnerInput, wrap_graph
from server.packing.options import PackOptions

MATRIX_INPUT = "input"
BOOLEAN_WARNING = "Field onnx.AttributeProto.ints: Expected an int, got a boolean"
# The oldest onnxruntime that pyproject allows, 1.22, runs these.
_TARGET_OPSET = {"": 21, "ai.onnx.ml": 3}
_INNER_TYPES = {"FP32": FloatTensorType, "FP64": DoubleTensorType, "INT64": Int64TensorType, "BYTES": StringTensorType}
# Integers up to here are exact as floats.
_EXACT = {"FP32": 2**24, "FP64": 2**53}


def signature_for(columns: list[Column], task: Task, classes: list[LabelClass], options: PackOptions) -> Signature:
    """Returns how the bundle shows itself.

    Raises:
        TableError: layout matrix with a column of strings, or a column called as an output.
    """
    if options.layout == "matrix":
        texts = [column.name for column in columns if column.kind == "categorical"]
        if texts:
            raise TableError(f"layout matrix takes numbers only, and column {texts[0]!r} holds strings; use columns")
        columns = [
            Column(name=column.name, datatype=options.datatype, kind="numeric", nullable=column.nullable)
            for column in columns
        ]
        inputs = [Tensor(name=MATRIX_INPUT, datatype=options.datatype, shape=[-1, len(columns)])]
    else:
        inputs = [Tensor(name=column.name, datatype=column.datatype, shape=[-1, 1]) for column in columns]
    outputs = _outputs(task, classes, options.datatype)
    taken = {tensor.name for tensor in outputs} & {tensor.name for tensor in inputs}
    if taken:
        raise TableError(f"the feature {min(taken)!r} has the name of an output; rename the column, or use matrix")
    return Signature(layout=options.layout, inputs=inputs, outputs=outputs, columns=columns)


def _outputs(task: Task, classes: list[LabelClass], datatype: str) -> list[Tensor]:
    if task == "regression":
        return [Tensor(name="value", datatype=datatype, shape=[-1, 1], role="value")]
    label = "BYTES" if isinstance(classes[0], str) else "INT64"
    return [
        Tensor(name="label", datatype=label, shape=[-1], role="label"),
        Tensor(name="probabilities", datatype=datatype, shape=[-1, len(classes)], role="probabilities"),
    ]


def convert(estimator: Any, table: pd.DataFrame, signature: Signature, options: PackOptions) -> bytes:
    """Returns the estimator as an ONNX model with the signature's inputs and outputs.

    Raises:
        ConversionError: skl2onnx cannot convert the estimator, or not with these columns.
        TableError: a column's missing strings could be taken for one of its categories.
    """
    inputs = _inner_inputs(estimator, table, signature, options.datatype)
    words = {entry.missing for entry in inputs if entry.missing is not None}
    if words and _string_imputers(estimator):
        estimator = _with_written_gaps(estimator, words)
    try:
        with warnings.catch_warnings():
            # The reason why pyproject pins protobuf: 7 refuses what 6 only warns of.
            warnings.filterwarnings("ignore", message=BOOLEAN_WARNING, category=DeprecationWarning)
            inner = to_graph(estimator, inputs)
        if options.float_type == "fp64":
            rewrite_doubles(inner)
        return wrap_graph(inner, inputs, signature).SerializeToString()  # type: ignore[no-any-return]  # onnx has no types
    except Exception as error:  # converters raise whatever the estimator leads them to
        cause = _innermost(error)
        said = str(cause).strip().partition("\n")[0]
        name = type(estimator).__name__
        raise ConversionError(f"skl2onnx cannot convert this {name}: {type(cause).__name__}: {said}") from error


def to_graph(estimator: Any, inputs: Sequence[InnerInput]) -> onnx.ModelProto:
    """Returns the estimator's own graph, as skl2onnx writes it."""
    graph: onnx.ModelProto = convert_sklearn(
        estimator,
        initial_types=[(entry.name, _INNER_TYPES[entry.datatype]([None, len(entry.columns)])) for entry in inputs],
        options={"zipmap": False} if hasattr(estimator, "predict_proba") else None,
        target_opset=_TARGET_OPSET,
    )
    names = [entry.name for entry in graph.graph.input]
    if names != [entry.name for entry in inputs]:
        raise ConversionError(f"expected the graph to take {[entry.name for entry in inputs]}, got {names}")
    return graph


def _innermost(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _inner_inputs(estimator: Any, table: pd.DataFrame, signature: Signature, datatype: str) -> list[InnerInput]:
    columns = signature.columns
    if not selects_columns(estimator) and all(column.kind == "numeric" for column in columns):
        return [InnerInput(name=MATRIX_INPUT, datatype=datatype, columns=[column.name for column in columns])]
    return [
        InnerInput(
            name=column.name,
            datatype=_inner_datatype(table[column.name], column, datatype),
            columns=[column.name],
            missing=_word_for_missing(table[column.name], column),
        )
        for column in columns
    ]


def _inner_datatype(values: "pd.Series[Any]", column: Column, datatype: str) -> str:
    """Returns the type in which the estimator's graph takes a column.

    Converters want one type for all columns of a transformer, so integers are floats inside as long
    as the floats hold them exactly; larger ones stay integers, and parity shows whether that works.
    """
    if column.datatype == "INT64" and max(abs(int(values.min())), abs(int(values.max()))) > _EXACT[datatype]:
        return "INT64"
    return "BYTES" if column.datatype == "BYTES" else datatype


def _word_for_missing(values: "pd.Series[Any]", column: Column) -> str | None:
    # skl2onnx writes the category "missing" of an encoder as str() of what the table had: nan or None.
    if column.datatype != "BYTES" or not column.nullable:
        return None
    word = str(values[values.isna()].iloc[0])
    if (values[values.notna()] == word).any():
        raise TableError(
            f"column {column.name!r} has missing values and also the string {word!r}, which means the same"
        )
    return word


def _string_imputers(estimator: Any) -> list[Any]:
    """Returns the fitted imputers that fill gaps between strings, but look for no string themselves."""
    imputers = [
        part for part in parts_of(estimator) if isinstance(part, SimpleImputer) and hasattr(part, "statistics_")
    ]
    return [one for one in imputers if one.statistics_.dtype == object and not isinstance(one.missing_values, str)]


def _with_written_gaps(estimator: Any, words: set[str]) -> Any:
    """Returns the estimator with imputers of strings that look for the word, as the graph writes it."""
    if len(words) > 1:
        raise TableError(f"missing strings come in several kinds, {', '.join(sorted(words))}; replace all but one")
    written = copy.deepcopy(estimator)
    for part in _string_imputers(written):
        part.missing_values = next(iter(words))
    return written
