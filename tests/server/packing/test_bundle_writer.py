import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from server.contract.baseline import decode_baseline
from server.contract.manifest import Examples, Manifest, decode_examples, decode_manifest
from server.packing.bundle_writer import pack_bundle
from server.packing.errors import ParityError, PlacementError
from server.packing.options import PackOptions

TEXTS = ["place", "word"]
NUMBERS = ["size", "length", "amount", "flag"]
DTYPES = {"BOOL": np.bool_, "INT64": np.int64, "FP32": np.float32, "FP64": np.float64, "BYTES": np.object_}


def one_hot(final: Any) -> Any:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    texts = OneHotEncoder(handle_unknown="ignore")
    return make_pipeline(ColumnTransformer([("texts", texts, TEXTS), ("numbers", numbers, NUMBERS)]), final)


def ordinal(final: Any) -> Any:
    texts = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    return make_pipeline(ColumnTransformer([("texts", texts, TEXTS), ("numbers", "passthrough", NUMBERS)]), final)


def imputed(final: Any) -> Any:
    return make_pipeline(SimpleImputer(), StandardScaler(), final)


# name: estimator, features, target, layout
CASES: dict[str, tuple[Any, list[str], str, Any]] = {
    "columns, binary, bool target": (one_hot(LogisticRegression()), [*TEXTS, *NUMBERS], "yes", "columns"),
    "columns, binary, trees": (ordinal(HistGradientBoostingClassifier(max_iter=9)), TEXTS + NUMBERS, "yes", "columns"),
    "columns, binary, int target": (imputed(LogisticRegression()), NUMBERS, "number", "columns"),
    "columns, multiclass, str target": (one_hot(LogisticRegression()), [*TEXTS, *NUMBERS], "verdict", "columns"),
    "columns, regression": (one_hot(Ridge()), [*TEXTS, *NUMBERS], "price", "columns"),
    "matrix, binary, bool target": (imputed(LogisticRegression()), NUMBERS, "yes", "matrix"),
    "matrix, binary, trees": (HistGradientBoostingClassifier(max_iter=9), NUMBERS, "number", "matrix"),
    "matrix, multiclass, int target": (imputed(LogisticRegression()), NUMBERS, "level", "matrix"),
    "matrix, regression": (HistGradientBoostingRegressor(max_iter=9), NUMBERS, "price", "matrix"),
    "matrix, columns picked apart": (
        make_pipeline(
            ColumnTransformer([("s", StandardScaler(), ["length"]), ("i", SimpleImputer(), ["amount"])]), Ridge()
        ),
        NUMBERS,
        "price",
        "matrix",
    ),
}


@pytest.fixture(scope="module", params=[(name, floats) for name in CASES for floats in ("fp32", "fp64")], ids=", ".join)
def packed(request: pytest.FixtureRequest, table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name, floats = request.param
    estimator, features, target, layout = CASES[name]
    estimator.fit(table[features], table[target])
    out = tmp_path_factory.mktemp("models")
    options = PackOptions(model="thing", out=out, target=target, time="at", layout=layout, float_type=floats)
    return pack_bundle(estimator, table, options)


def read(folder: Path) -> tuple[Manifest, Examples]:
    return (
        decode_manifest((folder / "bundle.json").read_bytes()),
        decode_examples((folder / "examples.json").read_bytes()),
    )


def test_every_task_layout_and_float_type_gives_a_bundle_whose_examples_replay(packed: Path) -> None:
    """A server that knows only the files gets the promised outputs, one row at a time as well."""
    manifest, examples = read(packed)
    session = onnxruntime.InferenceSession(packed / "model.onnx", providers=["CPUExecutionProvider"])
    feed = {
        one.name: np.array(
            [("" if one.datatype == "BYTES" else np.nan) if value is None else value for value in one.data],
            dtype=DTYPES[one.datatype],
        ).reshape(one.shape)
        for one in examples.inputs
    }

    whole = session.run(None, feed)
    first = session.run(None, {name: array[:1] for name, array in feed.items()})

    assert [one.name for one in session.get_outputs()] == [one.name for one in manifest.signature.outputs]
    assert [one.name for one in session.get_inputs()] == [one.name for one in manifest.signature.inputs]
    for spec, example, got, alone in zip(manifest.signature.outputs, examples.outputs, whole, first, strict=True):
        assert (example.name, example.shape, example.datatype) == (spec.name, list(got.shape), spec.datatype)
        assert got.dtype == DTYPES[spec.datatype]
        assert [-1, *got.shape[1:]] == spec.shape
        if spec.datatype == "BYTES":
            assert example.data == got.ravel().tolist()
            assert example.data[:1] == alone.ravel().tolist()
        else:
            assert np.array(example.data) == pytest.approx(got.ravel(), abs=examples.tolerance)
            assert np.array(example.data[: alone.size]) == pytest.approx(alone.ravel(), abs=examples.tolerance)


def test_examples_show_missing_values_where_the_signature_allows_them(packed: Path) -> None:
    """A replay of the examples proves the handling of gaps, not only that of whole rows."""
    manifest, examples = read(packed)
    names = [column.name for column in manifest.signature.columns]
    nullable = [column.name for column in manifest.signature.columns if column.nullable]

    if manifest.signature.layout == "matrix":
        data = examples.inputs[0].data
        with_gaps = {names[place % len(names)] for place, value in enumerate(data) if value is None}
        rows = len(data) // len(names)
    else:
        with_gaps = {one.name for one in examples.inputs if None in one.data}
        rows = len(examples.inputs[0].data)

    assert set(nullable) == with_gaps
    assert rows >= 8


def test_the_manifest_has_the_digest_of_every_other_file(packed: Path) -> None:
    """A file changed after packing cannot pass for the packed one."""
    manifest, _ = read(packed)
    present = {path.name for path in packed.iterdir()}

    assert (
        present
        == {"bundle.json", *manifest.files}
        == {
            "bundle.json",
            "model.onnx",
            "baseline.json",
            "examples.json",
            "README.md",
        }
    )
    for name, digest in manifest.files.items():
        content = (packed / name).read_bytes()
        assert (digest.sha256, digest.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))


def test_the_baseline_counts_every_training_row_in_every_feature(packed: Path, table: pd.DataFrame) -> None:
    """The monitor's shares have the right denominator."""
    manifest, _ = read(packed)
    baseline = decode_baseline((packed / "baseline.json").read_bytes())

    assert baseline.rows == len(table) == manifest.data.rows
    assert [one.name for one in baseline.features] == [column.name for column in manifest.signature.columns]
    assert {sum(one.counts) for one in baseline.features} == {len(table)}
    assert sum(baseline.score.counts) == len(table)
    assert sum(baseline.score.class_counts) == (0 if manifest.task == "regression" else len(table))
    assert [set(row) for row in baseline.reference] == [{column.name for column in manifest.signature.columns}] * 300


@pytest.fixture
def ridge(table: pd.DataFrame) -> Any:
    return imputed(Ridge()).fit(table[NUMBERS], table["price"])


@pytest.mark.parametrize(
    ("target", "final", "expected"),
    [
        ("yes", LogisticRegression(), [False, True]),
        ("number", LogisticRegression(), [0, 1]),
        ("level", LogisticRegression(), [0, 1, 2]),
        ("verdict", LogisticRegression(), ["high", "low", "middle"]),
        ("price", Ridge(), []),
    ],
)
def test_classes_are_recorded_as_the_training_data_has_them(
    table: pd.DataFrame, tmp_path: Path, target: str, final: Any, expected: list[Any]
) -> None:
    """Feedback is sent in the data's own terms: true stays true, though the graph says 1."""
    estimator = imputed(final).fit(table[NUMBERS], table[target])

    manifest, _ = read(pack_bundle(estimator, table, PackOptions(model="m", out=tmp_path, target=target)))

    assert list(map(repr, manifest.classes)) == list(map(repr, expected))


def test_the_manifest_says_where_the_model_comes_from(ridge: Any, table: pd.DataFrame, tmp_path: Path) -> None:
    """Whoever finds a bundle can tell what it was made of, and when its data was."""
    options = PackOptions(model="m", out=tmp_path, target="price", time="at", data_name="sales.csv")

    manifest, _ = read(pack_bundle(ridge, table, options))

    assert (manifest.model, manifest.version, manifest.task, manifest.target) == ("m", "1", "regression", "price")
    assert manifest.estimator == "Pipeline(SimpleImputer, StandardScaler, Ridge)"
    assert manifest.hyperparameters["ridge__alpha"] == 1.0
    assert manifest.hyperparameters["simpleimputer__missing_values"] == "nan"
    assert manifest.data.name == "sales.csv"
    assert (manifest.data.start, manifest.data.end) == (table["at"].min(), table["at"].max())
    assert {"scikit-learn", "skl2onnx", "onnx", "onnxruntime"} <= set(manifest.packages)
    assert manifest.parity["rows"] >= 1000
    assert manifest.metrics["r2"] > 0.8


def test_the_data_digest_changes_with_a_single_value(ridge: Any, table: pd.DataFrame, tmp_path: Path) -> None:
    """Two bundles with the same digest were made of the same rows."""
    changed = table.copy()
    changed.loc[5, "length"] += 0.01
    options = PackOptions(model="m", out=tmp_path, target="price")

    digests = [read(pack_bundle(ridge, rows, options))[0].data.sha256 for rows in (table, table, changed)]

    assert digests[0] == digests[1] != digests[2]


def test_rows_without_a_target_are_left_out(ridge: Any, table: pd.DataFrame, tmp_path: Path) -> None:
    """Cancelled flights never learn whether they were late, and must not break packing."""
    gaps = table.assign(price=table["price"].where(table.index % 3 > 0))

    manifest, _ = read(pack_bundle(ridge, gaps, PackOptions(model="m", out=tmp_path, target="price")))

    assert manifest.data.rows == 200


def test_a_message_counts_rows_as_the_table_does(ridge: Any, table: pd.DataFrame, tmp_path: Path) -> None:
    """Rows left out do not shift the numbers of those that follow, whatever the frame's own index is."""
    rows = table.assign(price=table["price"].where(table.index > 99)).set_index("at", drop=False)
    rows.iloc[250, rows.columns.get_loc("length")] = 99.5
    right = ridge.predict
    ridge.predict = lambda given: right(given) + 100.0 * (given["length"] == 99.5)

    with pytest.raises(ParityError, match="row 250 of the table"):
        pack_bundle(ridge, rows, PackOptions(model="m", out=tmp_path, target="price"))


def test_versions_count_up_and_never_overwrite(ridge: Any, table: pd.DataFrame, tmp_path: Path) -> None:
    """The default version follows the highest number; an existing one is refused and left as it was."""
    options = PackOptions(model="m", out=tmp_path, target="price")
    pack_bundle(ridge, table, options)
    second = pack_bundle(ridge, table, options)
    before = (second / "bundle.json").read_bytes()

    with pytest.raises(PlacementError, match=r"exists already.*--version"):
        pack_bundle(ridge, table, PackOptions(model="m", out=tmp_path, target="price", version="2"))

    assert second == tmp_path / "m" / "2"
    assert (second / "bundle.json").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["1", "2"]


def test_progress_names_each_stage_once(ridge: Any, table: pd.DataFrame, tmp_path: Path) -> None:
    """Whoever waits sees what is going on."""
    stages: list[str] = []

    pack_bundle(ridge, table, PackOptions(model="m", out=tmp_path, target="price"), stages.append)

    assert stages[0] == "reading the table's columns"
    assert stages[-1] == "writing the bundle"
    assert len(stages) == len(set(stages)) == 7
