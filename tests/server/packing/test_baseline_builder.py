import msgspec
import numpy as np
import pandas as pd
import pytest

from server.contract.baseline import Baseline, decode_baseline
from server.contract.histogram import CategoricalBins, NumericBins
from server.contract.manifest import Column
from server.packing.baseline_builder import MAX_CATEGORIES, REFERENCE_ROWS, build_baseline
from server.packing.onnx_model import Answers


def answers(rows: int) -> Answers:
    chance = np.linspace(0.0, 1.0, rows)
    return Answers(classes=(chance > 0.5).astype(np.int64), numbers=np.stack([1 - chance, chance], axis=1))


def built(table: pd.DataFrame, *columns: Column) -> Baseline:
    return build_baseline(table, list(columns), [0.5] * len(columns), answers(len(table)), "binary", [0, 1], seed=0)


def numeric(name: str, datatype: str = "FP32", nullable: bool = False) -> Column:
    return Column(name=name, datatype=datatype, kind="numeric", nullable=nullable)


def test_numbers_are_binned_as_the_wire_type_has_them() -> None:
    """39.02 is another number in float32; production arrives in float32, so the edges are such numbers."""
    table = pd.DataFrame({"x": [39.02, 39.02, np.nan]})

    feature = built(table, numeric("x", nullable=True)).features[0]

    assert isinstance(feature.bins, NumericBins)
    assert feature.bins.edges == [float(np.float32(39.02))] != [39.02]
    assert feature.counts == [0, 2, 0, 1]
    assert (feature.mean, feature.std) == (pytest.approx(39.02), 0.0)


def test_integers_and_booleans_have_a_bin_for_each_value() -> None:
    """Few values, exact bins."""
    table = pd.DataFrame({"n": [3, 1, 3], "b": [True, False, True]})

    baseline = built(table, numeric("n", "INT64"), numeric("b", "BOOL"))

    assert [one.bins.edges for one in baseline.features if isinstance(one.bins, NumericBins)] == [[1, 3], [0, 1]]
    assert [one.counts for one in baseline.features] == [[0, 1, 2, 0, 0], [0, 1, 2, 0, 0]]


def test_categories_come_by_frequency_and_gaps_count_as_missing() -> None:
    """Cells: one per category, new, missing; equally frequent ones in alphabetical order."""
    table = pd.DataFrame({"c": ["b", "a", "b", None, "c", ""]})

    feature = built(table, Column(name="c", datatype="BYTES", kind="categorical", nullable=True)).features[0]

    assert feature.bins == CategoricalBins(categories=["b", "", "a", "c"])
    assert feature.counts == [2, 1, 1, 1, 0, 1]
    assert feature.mean is None


def test_rare_categories_beyond_the_cap_count_as_new() -> None:
    """A column of ids does not make the baseline as large as the table."""
    table = pd.DataFrame({"c": [f"{place:05}" for place in range(MAX_CATEGORIES + 30)] + ["01029"]})

    feature = built(table, Column(name="c", datatype="BYTES", kind="categorical")).features[0]

    assert feature.bins.cells == MAX_CATEGORIES + 2
    assert feature.counts[0] == 2
    assert feature.counts[-2:] == [30, 0]


def test_the_score_of_a_binary_model_is_the_probability_of_the_second_class() -> None:
    """The monitor's score drift compares with the training rows' own answers."""
    baseline = built(pd.DataFrame({"x": np.arange(100.0)}), numeric("x"))

    assert (baseline.score.bins.edges[0], baseline.score.bins.upper) == (0.0, 1.0)
    assert sum(baseline.score.counts) == 100
    assert baseline.score.class_counts == [50, 50]
    assert baseline.importance_metric == "roc_auc"


def test_the_reference_is_a_fixed_sample_of_rows_in_json() -> None:
    """The same rows every time, each whole, gaps as null: it decodes again."""
    rows = REFERENCE_ROWS + 100
    table = pd.DataFrame({"x": [np.nan, *np.arange(rows - 1.0)], "n": np.arange(rows)})
    columns = numeric("x", nullable=True), numeric("n", "INT64")

    baseline = built(table, *columns)

    assert len(baseline.reference) == REFERENCE_ROWS
    assert baseline == built(table, *columns)
    assert all(row["x"] == (row["n"] - 1 if row["n"] else None) for row in baseline.reference)
    assert decode_baseline(msgspec.json.encode(baseline)) == baseline
