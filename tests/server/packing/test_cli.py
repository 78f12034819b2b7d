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

from server.contract.manifest import decode_manifest
from server.packing.cli import pack


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
