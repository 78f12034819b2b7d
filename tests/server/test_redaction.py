"""Columns that events must not hold, over HTTP: no byte of them on the disk, whatever is asked and whatever fails."""

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.contract.events import Audited, Prediction, Shadow
from server.errors import SettingsError
from server.execution.session import load_version
from server.protocol.redaction import hash_of
from server.redaction import Redaction
from server.settings import EventSettings
from tests.server.failing_graph import write_failing
from tests.server.live_server import Running, tensors, wait_for
from tests.server.protocol.requests import WRITERS, body_of

KEY = b"0123456789abcdef"
ROUTE = {
    "champion": "1",
    "challengers": [{"version": "2", "mode": "shadow"}],
    "unit": "input:carrier",
    "revision": 4,
}


@pytest.fixture
def models(packed: Path, tmp_path: Path) -> Path:
    """The packed bundles, and a route of `flight` whose unit is an input."""
    shutil.copytree(packed, tmp_path / "models")
    (tmp_path / "models" / "flight" / "route.json").write_text(json.dumps(ROUTE))
    return tmp_path / "models"


def hiding(columns: dict[str, str], folder: Path) -> dict[str, str]:
    """Returns the environment of a server that hides columns."""
    (folder / "key").write_bytes(KEY + b"\n")
    return {
        "TILTYARD_EVENTS__COLUMNS": json.dumps(columns),
        "TILTYARD_EVENTS__HASH_KEY": str(folder / "key"),
    }


def traces(secret: str) -> set[bytes]:
    """Returns the forms in which a secret could stand in a file: text, JSON, hexadecimal, base64 at any alignment."""
    data = secret.encode()
    found = {data, json.dumps(secret)[1:-1].encode(), data.hex().encode()}
    for shift in range(3):
        whole = base64.b64encode(bytes(shift) + data)
        found.add(whole[(0, 2, 3)[shift] : len(whole) - 4 - len(whole) % 4])
    return {each for each in found if len(each) >= 6}


def left_on_disk(running: Running) -> bytes:
    """Returns every byte of a log's files, and all that a server has said, once it has ended."""
    running.events()
    running.process.terminate()
    _, said = running.process.communicate(timeout=20)
    files = [path.read_bytes() for path in running.outbox.parent.glob(running.outbox.name + "*")]
    return b"".join([*files, said.encode()])


SECRETS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=8, max_size=20).filter(
    lambda text: len(set(text)) > 4
)


@pytest.mark.parametrize("how", ["mask", "hash", "drop"])
def test_no_byte_of_a_hidden_value_reaches_the_disk(
    how: str, serve: Callable[..., Running], models: Path, tmp_path: Path
) -> None:
    """Random secrets in every form of request, sound and refused: neither in the log's files nor in what is said."""
    columns = {"carrier": how, "flight/distance": how, "grid/hour": how}
    running = serve(models, **hiding(columns, tmp_path))
    secrets: list[str] = []
    sent = refused = 0

    def post(path: str, good: bool, **request: Any) -> None:
        nonlocal sent, refused
        answer = running.client.post(path, **request)
        assert answer.status_code == (200 if good else 400), answer.text
        sent, refused = sent + good, refused + (not good)

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(secret=SECRETS, number=st.integers(10**11, 10**12))
    def ask(secret: str, number: int) -> None:
        amount = float(np.float32(number))
        secrets.extend([secret, repr(amount)[:-2], str(number)])
        request = tensors()
        carrier, temp, hour, distance = request["inputs"]  # type: ignore[misc]
        v2 = {"inputs": [{**carrier, "data": [secret]}, temp, hour, {**distance, "data": [amount]}]}
        post("/v2/models/flight/infer", True, json=v2)
        parts = [
            WRITERS["binary"]("carrier", "BYTES", np.array([[secret]], dtype=object)),
            WRITERS["json"]("temp", "FP32", np.array([[1.5]])),
            WRITERS["binary"]("hour", "INT64", np.array([[7]])),
            WRITERS["binary"]("distance", "FP32", np.array([[amount]], dtype=np.float32)),
        ]
        body, length = body_of(*parts)
        binary = {"inference-header-content-length": str(length)}
        post("/v2/models/flight/infer", True, content=body, headers=binary)
        post("/v2/models/flight/versions/2/infer", True, content=body, headers=binary)
        row = {"carrier": secret, "temp": 1.5, "hour": 7, "distance": amount}
        post("/v1/models/flight/predict", True, json={"rows": [row]})
        post("/v1/models/flight:predict", True, json={"instances": [row]})
        post("/v1/models/grid/predict", True, json={"rows": [{"hour": amount, "distance": 1.0}]})
        # Refused by the value itself, which the answer to the client may name.
        post("/v1/models/flight/predict", False, json={"rows": [{**row, "distance": number * 10**9 + 1}]})
        post("/v1/models/flight/predict", False, json={"rows": [{**row, "hour": number + 0.5}]})
        post("/v1/models/flight/predict", False, json={"rows": [{**row, "distance": secret}]})
        post("/v2/models/flight/infer", False, json={"inputs": [*v2["inputs"], {**carrier, "data": [secret]}]})
        post("/v2/models/flight/infer", False, json={"inputs": v2["inputs"][:3]})

    ask()
    shadows = 'tiltyard_requests_total{code="200",model="flight",role="shadow",version="2"}'
    wait_for(lambda: running.metric(shadows) == sent * 4 / 6, "the shadows")
    events = running.events()
    disk = left_on_disk(running)

    assert [trace for secret in secrets for trace in traces(secret) if trace in disk] == []
    answers = [event.data for event in events if isinstance(event, Prediction | Shadow)]
    kept = [answer for answer in answers if answer.status == 200]
    assert len([each for each in answers if each.status == 400 and each.role != "shadow"]) == refused
    assert {each.error for each in answers if each.status == 400} == {
        "the request was refused; the reason is withheld, for columns of this model are hidden"
    }
    assert all(answer.inputs_omitted == "masked" for answer in kept)
    hidden = {"carrier": how, "distance": how}
    assert all(answer.redacted == (hidden if answer.model == "flight" else {"hour": how}) for answer in kept)
    # The unit's place is a hash that anyone can repeat: 53 bits are enough to find a carrier by trying.
    assert all(answer.bucket is None for answer in answers if answer.model == "flight")
    assert all(answer.bucket is not None for answer in answers if answer.model == "grid")
    assert any(trace in secrets[0].encode() for trace in traces(secrets[0]))


def test_what_is_not_hidden_is_logged_as_it_came(serve: Callable[..., Running], models: Path, tmp_path: Path) -> None:
    """Another model's events, and the other columns' very bytes; the audit event says what is hidden, and of whom."""
    running = serve(models, **hiding({"flight/carrier": "hash"}, tmp_path))
    request = tensors(id="a")
    running.client.post("/v2/models/flight/infer", json=request).raise_for_status()
    grid = [{"name": "input", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]
    running.client.post("/v2/models/grid/infer", json={"id": "b", "inputs": grid}).raise_for_status()

    by_id = {event.subject: event.data for event in running.events() if isinstance(event, Prediction)}
    flight = msgspec.json.decode(by_id["a"].inputs)
    carrier = {"name": "carrier", "shape": [1, 1], "datatype": "BYTES", "data": [hash_of("UA", KEY)]}
    assert flight == [carrier, *request["inputs"][1:]]  # type: ignore[index]
    assert (msgspec.json.decode(by_id["b"].inputs), by_id["b"].redacted, by_id["b"].inputs_omitted) == (grid, {}, None)
    audits = [event for event in running.events() if isinstance(event, Audited)]
    assert [(event.subject, event.data.action, msgspec.json.decode(event.data.after)) for event in audits] == [
        ("flight", "events", {"columns": {"carrier": "hash"}, "sample_every": 1})
    ]
    assert running.metric("tiltyard_audits_total") == 1


def test_a_fallback_tells_no_value(serve: Callable[..., Running], packed: Path, tmp_path: Path) -> None:
    """The challenger's reason is withheld where the request was its fault, and told where it was not."""
    write_failing(packed, tmp_path / "models")
    route = {"champion": "1", "challengers": [{"version": "2", "mode": "split", "share": 1.0}], "unit": "header:x"}
    (tmp_path / "models" / "delay" / "route.json").write_text(json.dumps(route))
    running = serve(tmp_path / "models", **hiding({"hour": "mask"}, tmp_path))
    running.client.post(
        "/v1/models/delay/predict", json={"rows": [{"hour": 987654, "distance": 1.0}]}
    ).raise_for_status()

    (answer,) = [event.data for event in running.events() if isinstance(event, Prediction)]
    assert answer.rule == "fallback"
    assert answer.fallback is not None
    assert answer.fallback.error == "model 'delay' version '2' failed while scoring"
    assert answer.bucket is not None
    assert b"987654" not in left_on_disk(running)


@pytest.mark.parametrize(
    ("columns", "key", "said"),
    [
        ({"flight/carier": "mask"}, KEY, "expected a column of model 'flight' in 'flight/carier', got none"),
        ({"carrier": "hash"}, b"short", "expected a secret of 16 bytes or more, got 5"),
        ({"carrier": "hash"}, None, "expected a readable file, got: No such file or directory"),
        ({"carrier": "encrypt"}, KEY, "events.columns.carrier: Input should be 'mask', 'hash' or 'drop'"),
    ],
)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_settings_that_would_hide_nothing_stop_the_start(
    columns: dict[str, str], key: bytes | None, said: str, workers: str, packed: Path, tmp_path: Path
) -> None:
    """A misspelt column of a model that serves, a key that is none, a way that does not exist: status 1, told why."""
    environment = {**os.environ, "TILTYARD_WORKERS": workers, **hiding(columns, tmp_path)}
    (tmp_path / "key").unlink()
    if key is not None:
        (tmp_path / "key").write_bytes(key)
    command = [sys.executable, "-m", "server.cli", "serve", "--port", "0", "--models", str(packed)]

    found = subprocess.run(
        [*command, "--outbox", str(tmp_path / "outbox.db")], env=environment, capture_output=True, text=True, timeout=60
    )

    assert found.returncode == 1
    assert said in found.stderr


def test_a_name_that_hides_nothing_is_told(packed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A column of no model, one of a model that is not there, and one that only another version of its model has."""
    (tmp_path / "models").mkdir()
    for version, source in (("1", "flight"), ("2", "delay")):
        folder = tmp_path / "models" / "flight" / version
        shutil.copytree(packed / source / "1", folder)
        manifest = msgspec.json.decode((folder / "bundle.json").read_bytes()) | {"model": "flight", "version": version}
        (folder / "bundle.json").write_bytes(msgspec.json.encode(manifest))
    redaction = Redaction(EventSettings(columns={"tail": "mask", "other/tail": "drop", "flight/carrier": "mask"}))

    versions = [load_version(tmp_path / "models" / "flight" / version, redaction.redactor) for version in "12"]
    redaction.check([version.manifest for version in versions], [])

    assert [version.redactor is not None for version in versions] == [True, False]
    told = [record.getMessage() for record in caplog.records]
    assert told[0].startswith("flight version 2: events.columns names ['flight/carrier'], and its columns are ['hour'")
    assert [line.partition(":")[0] for line in told[1:]] == ["events.columns"] * 2
    assert "'tail'" in told[1]
    assert "'other/tail'" in told[2]


def test_a_refused_version_may_be_the_one_with_the_column(packed: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A server whose newest version is broken starts all the same."""
    redaction = Redaction(EventSettings(columns={"flight/tail": "mask"}))
    manifest = load_version(packed / "flight" / "1").manifest

    redaction.check([manifest], ["flight"])

    assert "'flight/tail'" in caplog.text
    with pytest.raises(SettingsError, match=r"expected a column of model 'flight' in 'flight/tail', got none"):
        redaction.check([manifest], ["grid"])
