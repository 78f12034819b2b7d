"""The bundles that are measured: small, seeded, packed by the project itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from server.packing.bundle_writer import pack_bundle
from server.packing.options import PackOptions

SEED = 20_131
FLOATS = 30
LOGISTIC, FOREST, MLP = "logistic regression", "forest of 100 trees", "MLP of 64 and 32"
ESTIMATORS: dict[str, Callable[[], Any]] = {
    LOGISTIC: lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    FOREST: lambda: RandomForestClassifier(100, max_depth=8, random_state=SEED),
    MLP: lambda: make_pipeline(StandardScaler(), MLPClassifier((64, 32), early_stopping=True, random_state=SEED)),
}


def pack_matrix_models(out: Path, versions: int = 1, estimator: str = LOGISTIC) -> None:
    """Packs an estimator of ``ESTIMATORS`` on 30 floats, one matrix input, as model ``bench``."""
    rng = np.random.default_rng(SEED)
    table = pd.DataFrame(rng.normal(size=(5_000, FLOATS)).astype(np.float32), columns=[f"x{i}" for i in range(FLOATS)])
    features = list(table.columns)
    late = (table["x0"] + 0.5 * table["x1"] + rng.normal(size=len(table)) > 0).astype(int)
    fitted = ESTIMATORS[estimator]().fit(table, late)
    for version in range(1, versions + 1):
        options = PackOptions(
            model="bench", version=str(version), out=out, target="late", layout="matrix", features=features
        )
        pack_bundle(fitted, table.assign(late=late), options)
