from pathlib import Path

import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from server.contract.manifest import Manifest, decode_manifest
from server.demo.flights import FEATURES
from server.demo.training import MODEL, pack_flight_models, training_rows
from server.packing.client_tensors import client_tensors
from server.packing.onnx_model import OnnxModel


@pytest.fixture(scope="module")
def models(flights: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models")
    pack_flight_models(out, flights=flights)
    return out / MODEL


def manifest(folder: Path) -> Manifest:
    return decode_manifest((folder / "bundle.json").read_bytes())


def auc(folder: Path, rows: pd.DataFrame) -> float:
    packed = manifest(folder)
    model = OnnxModel((folder / "model.onnx").read_bytes(), packed.signature, packed.classes)
    answers = model.answer(client_tensors(rows, packed.signature))
    return float(roc_auc_score(rows["late"].astype(bool), answers.numbers[:, 1]))


def test_the_training_rows_are_the_labelled_ones_of_january_and_february(flights: pd.DataFrame) -> None:
    """50,009 flights arrived in those months by the clock of New York."""
    rows = training_rows(flights)

    assert len(rows) == 50_009
    assert rows["late"].notna().all()
    assert rows["departure"].max() < pd.Timestamp("2013-03-01T05:00Z")


def test_both_models_take_the_same_columns_and_say_what_they_are(models: Path) -> None:
    """The challenger can shadow the champion on the very same requests."""
    champion, challenger = manifest(models / "1"), manifest(models / "2")

    assert champion.signature == challenger.signature
    assert [column.name for column in champion.signature.columns] == FEATURES
    assert champion.classes == [False, True]
    assert champion.estimator == "Pipeline(ColumnTransformer, LogisticRegression)"
    assert challenger.estimator == "Pipeline(ColumnTransformer, HistGradientBoostingClassifier)"
    assert max(champion.parity["largest_difference"], challenger.parity["largest_difference"]) < 1e-6


def test_the_challenger_is_better_when_the_season_has_changed(models: Path, flights: pd.DataFrame) -> None:
    """March is close; by September both have lost, and the trees have lost less."""
    months = flights["departure"].dt.tz_convert("America/New_York").dt.month
    labelled = flights["late"].notna()
    march, september = flights[labelled & (months == 3)], flights[labelled & (months == 9)]

    found = [auc(models / version, rows) for version in ("1", "2") for rows in (march, september)]

    assert found == pytest.approx([0.703, 0.602, 0.707, 0.655], abs=0.01)


def test_progress_tells_of_both_versions(flights: pd.DataFrame, tmp_path: Path) -> None:
    """The demo's progress bar has something to say from the first second on; a small sample is enough."""
    stages: list[str] = []

    pack_flight_models(tmp_path, stages.append, flights.iloc[:54_000:20].reset_index(drop=True))

    assert stages[0] == "training on January and February"
    assert [stages[1], stages[-1]] == ["version 1: reading the table's columns", "version 2: writing the bundle"]
