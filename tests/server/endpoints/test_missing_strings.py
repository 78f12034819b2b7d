"""A missing string, from HTTP to the monitor's pane: missing there too, in whatever form it was sent."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from monitor.fold import Fold, FoldLimits
from monitor.version_profile import VersionProfile
from server.contract.baseline import decode_baseline
from server.contract.events import Prediction, encode_event
from server.contract.manifest import decode_manifest
from server.packing.bundle_writer import pack_bundle
from server.packing.options import PackOptions
from tests.server.live_server import Running
from tests.server.protocol.requests import WRITERS, body_of


def packed_with_gaps(out: Path) -> Path:
    """Returns the bundle of a model whose string column had missing values in training."""
    rng = np.random.default_rng(5)
    carrier = rng.choice(["AA", "UA"], 400).astype(object)
    carrier[rng.random(400) < 0.2] = None
    rows = pd.DataFrame({"carrier": carrier, "hour": rng.integers(0, 24, 400)})
    rows["late"] = (rows["hour"] > 12).astype(int)
    strings = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="none"),
        OneHotEncoder(handle_unknown="ignore"),
    )
    columns = ColumnTransformer([("strings", strings, ["carrier"])], remainder="passthrough")
    model = make_pipeline(columns, LogisticRegression()).fit(rows[["carrier", "hour"]], rows["late"])
    pack_bundle(
        model, rows, PackOptions(model="gaps", version="1", out=out, target="late", features=["carrier", "hour"])
    )
    return out / "gaps" / "1"


def test_a_missing_string_is_missing_in_the_pane(serve: Callable[..., Running], tmp_path: Path) -> None:
    """As null in JSON, "" in binary, absent or null in a row: each is one missing value and no new category."""
    folder = packed_with_gaps(tmp_path / "models")
    running = serve(tmp_path / "models")
    hour = np.array([[7]])
    infer, client = "/v2/models/gaps/infer", running.client
    tensor = {"name": "carrier", "shape": [1], "datatype": "BYTES", "data": [None]}
    body, length = body_of(
        WRITERS["binary"]("carrier", "BYTES", np.array([[""]], dtype=object)), WRITERS["binary"]("hour", "INT64", hour)
    )
    as_json = {"inputs": [tensor, WRITERS["json"]("hour", "INT64", hour)[0]]}
    client.post(infer, json=as_json).raise_for_status()
    client.post(infer, content=body, headers={"inference-header-content-length": str(length)}).raise_for_status()
    rows = [{"hour": 7}, {"hour": 7, "carrier": None}, {"hour": 7, "carrier": "AA"}, {"hour": 7, "carrier": "ZZ"}]
    client.post("/v1/models/gaps/predict", json={"rows": rows}).raise_for_status()
    events = [event for event in running.events() if isinstance(event, Prediction)]

    baseline = decode_baseline((folder / "baseline.json").read_bytes())
    profile = VersionProfile(decode_manifest((folder / "bundle.json").read_bytes()), baseline)
    limits = FoldLimits(pane_us=10**15, grace_us=0, ttl_us=10**15, max_open=100)
    lines = list(enumerate(map(encode_event, events)))
    (pane,) = Fold({profile.key: profile}, limits).fold_lines(lines).panes.values()

    assert profile.names[0] == "carrier"
    assert msgspec.to_builtins(profile.features[0].bins)["categories"] == ["AA", "UA"]
    assert pane.counts[profile.slices[0]].tolist() == [1, 0, 1, 4]
    assert pane.type_errors == 0
