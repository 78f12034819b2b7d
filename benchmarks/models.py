"""The bundles that are measured: small, seeded, packed by the project itself."""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from server.packing.bundle_writer import pack_bundle
from server.packing.options import PackOptions

SEED = 20_131
FLOATS = 30


def pack_matrix_models(out: Path, versions: int = 1) -> None:
    """Packs a logistic regression on 30 floats, one matrix input, as model ``bench``."""
    rng = np.random.default_rng(SEED)
    table = pd.DataFrame(rng.normal(size=(5_000, FLOATS)).astype(np.float32), columns=[f"x{i}" for i in range(FLOATS)])
    features = list(table.columns)
    late = (table["x0"] + 0.5 * table["x1"] + rng.normal(size=len(table)) > 0).astype(int)
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(table, late)
    for version in range(1, versions + 1):
        options = PackOptions(
            model="bench", version=str(version), out=out, target="late", layout="matrix", features=features
        )
        pack_bundle(estimator, table.assign(late=late), options)
