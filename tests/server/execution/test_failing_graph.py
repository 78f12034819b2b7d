"""A graph that loads and answers its examples, and fails on some rows that fit its signature."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from server.contract.events import Prediction, Shadow
from server.errors import ExecutionError
from server.execution.session import load_version
from tests.server.live_server import Running, wait_for


def table_graph() -> bytes:
    """Returns a graph that looks its answer up by hour, 0 to 23: any other hour is beyond its table."""
    free = ["rows", 1]
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "hour"], ["value"], axis=0)],
        "by_hour",
        [
            helper.make_tensor_value_info("hour", TensorProto.INT64, free),
            helper.make_tensor_value_info("distance", TensorProto.FLOAT, free),
        ],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, free)],
        [numpy_helper.from_array(np.arange(24, dtype=np.float32), "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.fixture
def models(packed: Path, tmp_path: Path) -> Path:
    """`delay` with champion 1 as packed, and shadow 2, which is the table."""
    models = tmp_path / "models"
    shutil.copytree(packed / "delay", models / "delay")
    second = models / "delay" / "2"
    shutil.copytree(packed / "delay" / "1", second)
    examples = msgspec.json.decode((second / "examples.json").read_bytes())
    examples["outputs"][0]["data"] = examples["inputs"][0]["data"]
    manifest = msgspec.json.decode((second / "bundle.json").read_bytes()) | {"version": "2"}
    for name, data in (("model.onnx", table_graph()), ("examples.json", msgspec.json.encode(examples))):
        (second / name).write_bytes(data)
        manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    (second / "bundle.json").write_bytes(msgspec.json.encode(manifest))
    (models / "delay" / "route.json").write_text('{"champion": "1", "challengers": [{"version": "2"}]}')
    return models


def arrays(hour: int) -> dict[str, np.ndarray]:
    return {"hour": np.array([[hour]]), "distance": np.array([[1.0]], dtype=np.float32)}


def test_a_failing_run_is_an_execution_error_and_the_session_lives(models: Path) -> None:
    """What onnxruntime says stays in the cause; the next rows are answered."""
    version = load_version(models / "delay" / "2")

    with pytest.raises(ExecutionError, match="model 'delay' version '2' failed while scoring") as caught:
        version.run(arrays(24))

    assert "idx=24" in str(caught.value.__cause__)
    assert version.run(arrays(23))["value"].tolist() == [[23.0]]


def test_a_failure_is_answered_500_and_logged_and_a_failing_shadow_is_not_seen(
    serve: Callable[..., Running], models: Path
) -> None:
    """The client's own choice of version 2 fails; as a shadow its failure is an event and no more."""
    running = serve(models)
    request = {"rows": [{"hour": 24, "distance": 1.0}]}

    good = running.client.post("/v1/models/delay/predict", json={"id": "seen", **request})
    inputs = [
        {"name": "hour", "shape": [1], "datatype": "INT64", "data": [24]},
        {"name": "distance", "shape": [1], "datatype": "FP32", "data": [1]},
    ]
    chosen = running.client.post("/v2/models/delay/versions/2/infer", json={"id": "chosen", "inputs": inputs})

    series = 'tiltyard_requests_total{code="500",model="delay",role="shadow",version="2"}'
    wait_for(lambda: running.metric(series), "the shadow")
    events = {event.subject: event for event in running.events() if isinstance(event, Prediction)}
    shadows = [event for event in running.events() if isinstance(event, Shadow)]
    assert (good.status_code, len(good.json()["predictions"])) == (200, 1)
    assert (chosen.status_code, chosen.headers["content-type"]) == (500, "application/json")
    assert chosen.json() == {"error": "model 'delay' version '2' failed while scoring"}
    assert (events["seen"].data.status, events["chosen"].data.status) == (200, 500)
    assert (events["chosen"].data.rule, events["chosen"].data.propensity) == ("client", 1.0)
    assert [(event.subject, event.data.status, event.data.rows) for event in shadows] == [("seen", 500, 0)]
    assert running.metric(series) == 1
