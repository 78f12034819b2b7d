"""A log of one request in k: what is kept goes together, errors always stay, and the balance holds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.contract.events import Audited, Event, Labelled, Prediction, Shadow
from server.contract.sampling import in_sample
from tests.server.live_server import Running, tensors, wait_for

INFER = "/v2/models/flight/infer"


def answered(running: Running) -> float:
    """Returns how many answers /metrics counts of known versions."""
    rows = running.client.get("/metrics").text.splitlines()
    found = [row for row in rows if row.startswith("tiltyard_requests_total{") and 'role="none"' not in row]
    return sum(float(row.rsplit(" ", 1)[1]) for row in found)


def outcome(running: Running, name: str) -> float:
    return running.metric(f'tiltyard_events_total{{outcome="{name}"}}')


@pytest.mark.parametrize(("workers", "durability"), [("1", "async"), ("1", "commit"), ("2", "async")])
def test_a_request_is_kept_whole_or_not_at_all(
    workers: str, durability: str, serve: Callable[..., Running], packed: Path
) -> None:
    """Prediction, shadow and label by the same hash, with their weight; every error with weight 1; all counted."""
    environment = {"TILTYARD_EVENTS__DURABILITY": durability, "TILTYARD_EVENTS__SAMPLE_EVERY": "3"}
    running = serve(packed, TILTYARD_WORKERS=workers, **environment)
    ids = [f"request-{number}" for number in range(90)]
    labels = [{"id": name, "label": 1} for name in ids]
    wrong: dict[str, Any] = {**tensors(), "inputs": []}
    for name in ids:
        running.client.post(INFER, json=tensors(id=name)).raise_for_status()
        assert running.client.post(INFER, json={**wrong, "id": f"wrong-{name}"}).status_code == 400
    accepted = [
        running.client.post("/v1/feedback", json={"feedback": labels[:60]}),
        *[running.client.post("/v1/feedback", json=label) for label in labels[60:]],
    ]
    wait_for(lambda: answered(running) == 3 * len(ids), "the shadows")
    wait_for(lambda: running.metric("tiltyard_audits_total") >= 3, "the process that leads")
    events = running.events()

    def of(kind: type[Event], status: int = 200) -> list[tuple[str, int]]:
        return sorted(
            (event.subject, event.data.weight)
            for event in events
            if isinstance(event, kind) and isinstance(event, Prediction | Shadow) and event.data.status == status
        )

    kept = sorted(name for name in ids if in_sample(name, 3))
    assert 0 < len(kept) < len(ids)
    assert of(Prediction) == of(Shadow) == [(name, 3) for name in kept]
    assert of(Prediction, 400) == sorted((f"wrong-{name}", 1) for name in ids)
    assert sorted(event.subject for event in events if isinstance(event, Labelled)) == kept
    assert [answer.status_code for answer in accepted] == [202] * 31
    audits = [event for event in events if isinstance(event, Audited)]
    told = sorted(event.subject for event in audits if event.data.action == "events")  # beside the route's first audit
    assert told == ["delay", "flight", "grid"]
    assert outcome(running, "sampled_out") == 3 * (len(ids) - len(kept))
    balance = outcome(running, "logged") + outcome(running, "dropped") + outcome(running, "sampled_out")
    assert balance == answered(running) + running.metric("tiltyard_feedback_total") + len(audits)
    assert running.metric("tiltyard_audits_total") == len(audits)
    assert running.client.get("/health").json()["events"]["sampled_out"] == outcome(running, "sampled_out")


def test_only_errors_are_logged_where_no_request_is(serve: Callable[..., Running], packed: Path) -> None:
    """With 0 every answer, shadow and label is counted as left out; errors and changes are in the log."""
    running = serve(packed, TILTYARD_EVENTS__SAMPLE_EVERY="0")
    running.client.post(INFER, json=tensors(id="one")).raise_for_status()
    wrong = running.client.post(INFER, json={**tensors(), "inputs": [], "id": "wrong"})
    label = running.client.post("/v1/feedback", json={"id": "one", "label": 1})
    wait_for(lambda: outcome(running, "sampled_out") == 3, "the shadow")
    wait_for(lambda: running.metric("tiltyard_audits_total") >= 3, "the process that leads")

    said = [(event.subject, event.data.status) for event in running.events() if isinstance(event, Prediction)]
    assert (wrong.status_code, label.status_code) == (400, 202)
    assert said == [("wrong", 400)]
    assert {type(event) for event in running.events()} == {Prediction, Audited}
