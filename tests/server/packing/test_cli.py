import hashlib
import os
import subprocess
import sys
from pathlib import Path

import joblib
import pandas as pd
import pytest
import typer
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner, Result

from server.contract.manifest import decode_examples, decode_manifest
from server.packing.cli import pack
from tests.server.graphs import identity, saved, text_encoder


@pytest.fixture
def folder(table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder: the table, the estimator in a file, and a module that makes one."""
    table.to_parquet(tmp_path / "parcels.parquet")
    table.drop(columns="amount").to_csv(tmp_path / "parcels.csv", index=False)
    joblib.dump(LogisticRegression().fit(table[["length", "size"]], table["yes"]), tmp_path / "model.joblib")
    (tmp_path / "parcel_training.py").write_text(
        "import pandas\nfrom sklearn.linear_model import Ridge\n"
        "def make():\n"
        "    rows = pandas.read_parquet('parcels.parquet')\n"
        "    return Ridge().fit(rows[['length', 'size']].to_numpy(), rows['price'])\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(pack)
    return CliRunner().invoke(app, list(arguments))


USUAL = ["--estimator", "model.joblib", "--data", "parcels.parquet", "--target", "yes", "--model", "parcel"]


def test_a_joblib_file_and_a_parquet_table_make_a_bundle(folder: Path) -> None:
    """The closing line says where it is, how exact and how good; the manifest has the file's own digest."""
    result = run(*USUAL, "--time", "at", "--out", "models")

    manifest = decode_manifest((folder / "models/parcel/1/bundle.json").read_bytes())
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "packed models/parcel/1: parity on 1,000 rows, largest difference" in result.stderr
    assert f"roc_auc {manifest.metrics['roc_auc']:.4f}" in result.stderr
    assert manifest.data.name == "parcels.parquet"
    assert manifest.data.sha256 == hashlib.sha256((folder / "parcels.parquet").read_bytes()).hexdigest()
    assert [column.name for column in manifest.signature.columns] == ["length", "size"]


def test_a_function_and_a_csv_make_a_matrix_bundle_of_doubles(folder: Path) -> None:
    """Every option reaches the bundle; without names in the estimator --features says which columns."""
    given = ["--estimator", "parcel_training:make", "--data", "parcels.csv", "--target", "price", "--model", "p"]
    more = ["--layout", "matrix", "--float", "fp64", "--features", "length, size", "--version", "beta", "--seed", "5"]

    result = run(*given, *more, "--out", "models")

    manifest = decode_manifest((folder / "models/p/beta/bundle.json").read_bytes())
    assert result.exit_code == 0, result.stderr
    assert (manifest.signature.inputs[0].datatype, manifest.signature.inputs[0].shape) == ("FP64", [-1, 2])
    assert manifest.task == "regression"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--estimator": "gone.joblib"}, "expected a joblib file or module:function, got 'gone.joblib'"),
        ({"--data": "gone.csv"}, "cannot read the table gone.csv"),
        ({"--target": "late"}, "the target column 'late' is not in the table"),
        ({"--model": "../up"}, "the model '../up': expected 1 to 128 letters"),
        ({"--version": ".1"}, "the version '.1': expected 1 to 128 letters"),
        ({"--features": "[bold]"}, "the feature '[bold]' is not in the table"),
        ({"--out": "model.joblib"}, "cannot write model.joblib/parcel/1: Not a directory"),
    ],
)
def test_a_mistake_ends_in_one_sentence_and_status_1(folder: Path, changed: dict[str, str], message: str) -> None:
    """Never a traceback, and brackets in a name are not taken for markup."""
    given = {**dict(zip(USUAL[::2], USUAL[1::2], strict=True)), "--out": "models", **changed}

    result = run(*[part for pair in given.items() for part in pair])

    assert result.exit_code == 1
    assert f"error: {message}" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (folder / "models").exists()


def test_the_commands_module_loads_without_the_extra() -> None:
    """The root command's help must not wait for pandas and scikit-learn, nor need them."""
    heavy = ("sklearn", "skl2onnx", "onnx", "onnxruntime", "pandas", "joblib", "numpy.testing")
    code = f"import sys, server.packing.cli; print([name for name in {heavy} if name in sys.modules])"

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == "[]"


def test_without_the_extra_the_command_says_what_to_install(tmp_path: Path) -> None:
    """In an environment that lacks skl2onnx there is one sentence with the command to run."""
    (tmp_path / "skl2onnx.py").write_text("raise ModuleNotFoundError('gone', name='skl2onnx')\n")
    code = "import typer; from server.packing.cli import pack; typer.run(pack)"

    ran = subprocess.run(
        [sys.executable, "-c", code, *USUAL, "--out", "models"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )

    assert ran.returncode == 1
    assert ran.stderr.strip() == "error: skl2onnx is not installed; run: pip install 'tiltyard[pack]'"


@pytest.fixture
def exported(folder: Path) -> Path:
    """A user's folder with a graph from another tool."""
    saved(text_encoder(), folder / "encoder.onnx")
    saved(identity("FP32", ["n"]), folder / "same.onnx")
    (folder / "given.json").write_text(
        '{"inputs": [{"name": "given", "shape": [2], "datatype": "FP32", "data": [1.5, 7]}]}'
    )
    return folder


def test_an_onnx_file_makes_a_bundle_by_itself(exported: Path) -> None:
    """The closing line says what it takes and gives."""
    result = run("--onnx", "encoder.onnx", "--model", "words", "--version", "beta", "--out", "models")

    manifest = decode_manifest((exported / "models/words/beta/bundle.json").read_bytes())
    assert (result.exit_code, result.stdout) == (0, "")
    assert (
        "packed models/words/beta: takes ids INT64 [-1, -1], mask BOOL [-1, -1]; "
        "gives embedding FP32 [-1, 5], hidden FP32 [-1, -1, 5]\n"
    ) == result.stderr
    assert manifest.packages.keys() == {"onnx", "onnxruntime", "numpy", "tiltyard"}


def test_examples_and_seed_reach_the_bundle_of_an_onnx_file(exported: Path) -> None:
    """Examples that are given are the bundle's; a seed makes up others."""
    usual = ["--onnx", "same.onnx", "--model", "same", "--out", "models"]

    statuses = [run(*usual, *more).exit_code for more in (["--examples", "given.json"], [], ["--seed", "3"])]

    files = [exported / f"models/same/{version}/examples.json" for version in (1, 2, 3)]
    first, second, third = (decode_examples(path.read_bytes()).inputs[0].data for path in files)
    assert ([0, 0, 0], [1.5, 7.0]) == (statuses, first)
    assert second != third


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], "expected --onnx, or else --estimator, --data and --target; see tiltyard pack --help"),
        (["--layout", "matrix"], "expected --onnx, or else --estimator, --data and --target; see tiltyard pack --help"),
        (
            ["--estimator", "model.joblib"],
            "--data and --target missing: --estimator, --data and --target go together; see tiltyard pack --help",
        ),
        (
            ["--onnx", "same.onnx", "--target", "yes", "--float", "fp64"],
            "--onnx goes without --target and --float; see tiltyard pack --help",
        ),
        (
            ["--estimator", "m.joblib", "--examples", "given.json"],
            "--examples goes with --onnx only; see tiltyard pack --help",
        ),
    ],
)
def test_options_that_do_not_go_together_are_a_mistake_of_usage(
    exported: Path, given: list[str], sentence: str
) -> None:
    """What is missing or too much is named, with the status that a shell expects of wrong usage."""
    result = run(*given, "--model", "m", "--out", "models")

    assert (2, f"error: {sentence}\n") == (result.exit_code, result.stderr)
    assert not (exported / "models").exists()


def test_a_graph_that_cannot_be_packed_ends_in_one_sentence_and_status_1(exported: Path) -> None:
    """As with an estimator."""
    result = run("--onnx", "parcels.csv", "--model", "m", "--out", "models")

    assert result.exit_code == 1
    assert result.stderr == "error: parcels.csv: expected an ONNX file, got another one or a part of one\n"


def test_the_help_shows_both_ways_with_their_options() -> None:
    """Three groups: what every bundle needs, an estimator's options, a graph's."""
    text = run("--help").stdout

    places = [
        text.index(title) for title in ("Options", "A scikit-learn estimator and its training table", "Or any ONNX")
    ]
    assert sorted(places) == places
    assert [flag for flag in ("--estimator", "--data", "--onnx", "--examples") if flag not in text] == []
