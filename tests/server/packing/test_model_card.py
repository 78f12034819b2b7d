import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from server.contract.manifest import decode_manifest
from server.packing.bundle_writer import pack_bundle
from server.packing.options import PackOptions


@pytest.fixture
def folder(table: pd.DataFrame, tmp_path: Path) -> Path:
    rows = table.assign(place=table["place"].replace("west", "o'west"))
    columns = ColumnTransformer([("c", OneHotEncoder(), ["place"]), ("n", "passthrough", ["length", "size"])])
    estimator = make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(
        rows[["place", "length", "size"]], rows["yes"]
    )
    return pack_bundle(estimator, rows, PackOptions(model="parcel", out=tmp_path, target="yes", time="at"))


def calls(card: str) -> list[tuple[str, Any]]:
    lines = [shlex.split(line) for line in card.splitlines() if line.startswith("curl ")]
    return [(url, json.loads(body)) for _, url, _, body in lines]


def test_the_card_says_what_the_model_is(folder: Path) -> None:
    """Task, classes, data, period, metrics and every feature are there to read."""
    card = (folder / "README.md").read_text()
    manifest = decode_manifest((folder / "bundle.json").read_bytes())

    assert "# parcel, version 1" in card
    assert "Predicts `yes`: the probabilities of `false`, `true`." in card
    assert "From 2024-01-01 00:00 to 2024-01-13 11:00 UTC." in card
    assert f"| roc_auc | {manifest.metrics['roc_auc']:.4f} |" in card
    assert [line.split("`")[1] for line in card.splitlines() if line.startswith("| `")][-1] == "place"
    assert "3 categories:" in card


def test_the_card_warns_of_columns_that_refuse_new_categories(folder: Path) -> None:
    """An encoder that fails on an unseen category is a surprise best had while reading."""
    assert "Of the columns of strings, 1 must not bring a category" in (folder / "README.md").read_text()


def test_the_calls_on_the_card_are_valid_requests(folder: Path) -> None:
    """A shell takes the lines as they are, quotes within values included, and the tensors fit the signature."""
    manifest = decode_manifest((folder / "bundle.json").read_bytes())

    (rows_url, rows), (infer_url, infer) = calls((folder / "README.md").read_text())

    assert rows_url == "http://localhost:8080/v1/models/parcel/predict"
    assert infer_url == "http://localhost:8080/v2/models/parcel/versions/1/infer"
    assert list(rows["rows"][0]) == ["place", "length", "size"]
    assert [(one["name"], one["datatype"]) for one in infer["inputs"]] == [
        (one.name, one.datatype) for one in manifest.signature.inputs
    ]
    assert all(int(np.prod(one["shape"])) == len(one["data"]) == 1 for one in infer["inputs"])
