"""A graph that loads and answers its examples, and fails on some rows that fit its signature."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.contract.events import Prediction, Shadow
from server.errors import ExecutionError
from server.execution.session import load_version
from server.packing.onnx_bundle import pack_onnx
from server.packing.options import OnnxOptions
from tests.server.failing_graph import write_shadowed
from tests.server.graphs import saved, text_encoder
from tests.server.live_server import Running, wait_for


@pytest.fixture
def models(packed: Path, tmp_path: Path) -> Path:
    """`delay` with champion 1 as packed, and shadow 2, which is a table of 24 hours."""
    return write_shadowed(packed, tmp_path / "models")


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


def test_tensors_that_a_graph_refuses_are_answered_400(serve: Callable[..., Running], tmp_path: Path) -> None:
    """An index beyond the table and sizes that do not fit are the client's to change; the next request is answered."""
    path = saved(text_encoder(), tmp_path / "encoder.onnx")
    pack_onnx(path, OnnxOptions(model="words", out=tmp_path / "models"))
    client = serve(tmp_path / "models").client

    def ask(words: list[int]) -> tuple[int, Any]:
        shape = [1, len(words)]
        ids = {"name": "ids", "shape": shape, "datatype": "INT64", "data": words}
        mask = {"name": "mask", "shape": shape, "datatype": "BOOL", "data": [True] * len(words)}
        answer = client.post("/v2/models/words/infer", json={"inputs": [ids, mask]})
        return answer.status_code, answer.json()

    beyond, good = ask([1, 31]), ask([1, 29, 4])

    sentence = (
        "expected inputs that fit the graph, got shapes 'ids' [1, 2], 'mask' [1, 2], which its Gather node 'look_up' "
        "refuses: indices element out of data bounds"
    )
    assert (400, {"error": sentence}) == beyond
    assert (200, [("embedding", [1, 5]), ("hidden", [1, 3, 5])]) == (
        good[0],
        [(one["name"], one["shape"]) for one in good[1]["outputs"]],
    )
