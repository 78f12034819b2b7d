"""What the monitor answers of a feature that the log does not tell: that it is not observed, and nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families


def test_a_hidden_feature_has_no_figures(
    tmp_path: Path, models: Path, outbox_writer: Callable[..., Any], events: Any, monitor_process: Any
) -> None:
    """In JSON ``observed`` is false; in the metrics it has one series: a 0 of any other would be a claim."""
    writer = outbox_writer(tmp_path / "outbox.db")
    kind = {"redacted": {"carrier": "hash", "wind": "drop"}, "inputs_omitted": "masked", "weight": 10}
    inputs = [
        {"name": "carrier", "shape": [1, 1], "datatype": "BYTES", "data": ["4f1c9a5d22e07b63"]},
        {"name": "distance", "shape": [1, 1], "datatype": "FP32", "data": [1000.0]},
    ]
    writer.write([events.answer(f"r{second}", second, inputs=inputs, **kind) for second in range(0, 300, 5)])
    monitor = monitor_process(tmp_path)
    monitor.wait_for(lambda health: health["source"]["offset"] == writer.end)

    total = monitor.client.get("/v1/models/delay").json()["versions"][0]["total"]
    samples = [
        sample
        for family in text_string_to_metric_families(monitor.client.get("/metrics").text)
        for sample in family.samples
        if sample.labels.get("version") == "1"
    ]

    assert (total["requests"], total["rows"], total["type_errors"]) == (600, 600, 0)
    assert {each["name"]: (each["observed"], each["hidden"], each["drift"]["n"]) for each in total["features"]} == {
        "distance": (True, 0, 600),
        "wind": (False, 600, 0),
        "carrier": (False, 600, 0),
    }
    assert total["features"][0]["drift"]["n_effective"] == 60
    of_carrier = [(sample.name, sample.value) for sample in samples if sample.labels.get("feature") == "carrier"]
    assert of_carrier == [("tiltyard_feature_observed", 0)]
    of_distance = {sample.name: sample.value for sample in samples if sample.labels.get("feature") == "distance"}
    assert of_distance["tiltyard_feature_observed"] == 1
    assert "tiltyard_drift_psi" in of_distance
