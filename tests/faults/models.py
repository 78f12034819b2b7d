"""The two versions of a small model that all faults are tried on."""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from server.packing.bundle_writer import pack_bundle
from server.packing.options import PackOptions

MODEL = "flight"
SHADOWED = '{"champion": "1", "challengers": [{"version": "2", "mode": "shadow"}], "revision": 1}'

_FEATURES = ["hour", "distance"]


def pack_models(out: Path) -> Path:
    """Packs version 1, and version 2, which shadows every request; returns the repository."""
    random = np.random.default_rng(5)
    rows = pd.DataFrame({"hour": random.uniform(0, 24, 600), "distance": random.normal(1000, 200, 600)})
    rows["late"] = (rows["hour"] + random.normal(0, 4, 600) > 14).astype(int)
    for version, c in (("1", 1.0), ("2", 0.001)):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=c)).fit(rows[_FEATURES], rows["late"])
        options = PackOptions(model=MODEL, version=version, out=out, target="late", features=_FEATURES)
        pack_bundle(model, rows, options)
    (out / MODEL / "route.json").write_text(SHADOWED)
    return out
