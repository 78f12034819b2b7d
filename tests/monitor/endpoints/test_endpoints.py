import re
from datetime import datetime
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.exceptions import HTTPException

from monitor import errors
from monitor.endpoints.answers import HANDLERS, STATUS


def test_models_are_listed(watched: Any) -> None:
    """GET /v1/models names every model with its versions, rows and watermark."""
    answer = watched.client.get("/v1/models")

    expected = {
        "model": "delay",
        "task": "binary",
        "rows": 800,
        "versions": ["1", "2"],
        "watermark": "2026-01-05T12:19:57Z",
    }
    assert {"models": [expected]} == answer.json()
    assert answer.headers["content-type"] == "application/json"


def test_a_model_has_versions_panes_and_comparisons(watched: Any) -> None:
    """GET /v1/models/{m} holds what the page shows: findings by pane, the total, the comparison."""
    found = watched.client.get("/v1/models/delay").json()

    assert ("delay", "binary", 60.0) == (found["model"], found["task"], found["pane_s"])
    champion, shadow = found["versions"]
    assert ("champion", "shadow") == (champion["role"], shadow["role"])
    assert {"rows": 2000, "metrics": {"roc_auc": 0.7}} == champion["baseline"]
    assert [20] * 20 == [pane["rows"] for pane in champion["panes"]]
    assert sorted(pane["start"] for pane in champion["panes"]) == [pane["start"] for pane in champion["panes"]]
    # The watermark is 57 s into the last minute: 10 s of grace, 300 s to maturity.
    assert [True] * 19 + [False] == [pane["closed"] for pane in champion["panes"]]
    assert [True] * 14 + [False] * 6 == [pane["matured"] for pane in champion["panes"]]
    assert (400, 400, 1.0) == tuple(champion["total"][name] for name in ("rows", "labelled", "coverage"))
    assert (1.0, 0.0) == (champion["total"]["performance"]["accuracy"], shadow["total"]["performance"]["accuracy"])
    wind = champion["total"]["features"][1]
    assert ("wind", "numeric", 1.0, True) == (
        wind["name"],
        wind["kind"],
        wind["quality"]["missing_rate"],
        wind["drift"]["drifted"],
    )


def test_the_comparison_counts_matured_panes(watched: Any) -> None:
    """Evidence is of matured panes alone, the current means of all."""
    (found,) = watched.client.get("/v1/models/delay").json()["comparisons"]

    assert ("1", "2", 14, 280, 280) == tuple(
        found[name] for name in ("champion", "challenger", "matured_panes", "pairs", "champion_only")
    )
    assert ("champion", 400, -1.0) == (found["leader"], found["current"]["pairs"], found["current"]["accuracy_gain"])
    assert found["gain_low"] <= found["gain"] <= found["gain_high"] < 0


@pytest.mark.parametrize(("panes", "expected"), [(0, 0), (3, 3), (9999, 20)])
def test_the_newest_panes_are_chosen(watched: Any, panes: int, expected: int) -> None:
    """?panes=N answers the N newest, the total is of all."""
    version = watched.client.get(f"/v1/models/delay?panes={panes}").json()["versions"][0]

    assert expected == len(version["panes"])
    assert version["total"]["rows"] == 400
    if expected:
        assert version["panes"][-1]["start"] == "2026-01-05T12:19:00Z"


def test_a_window_merges_the_panes_that_start_in_it(watched: Any) -> None:
    """start is inside and end is not; a window of everything is the total."""
    path = "/v1/models/delay/versions/1/window"
    some = watched.client.get(path, params={"start": "2026-01-05T12:01:00Z", "end": "2026-01-05T14:03:00+02:00"}).json()
    every = watched.client.get(path).json()
    nothing = watched.client.get(path, params={"start": "2030-01-01T00:00:00Z"}).json()

    assert (40, "2026-01-05T12:01:00Z", "2026-01-05T12:03:00Z") == (some["rows"], some["start"], some["end"])
    assert watched.client.get("/v1/models/delay?panes=0").json()["versions"][0]["total"] == every
    assert (0, None, None) == (nothing["rows"], nothing["start"], nothing["performance"])


def test_a_window_of_a_comparison(watched: Any) -> None:
    """A comparison can be asked over some panes."""
    path = "/v1/models/delay/comparisons/1/2/window"

    found = watched.client.get(path, params={"end": "2026-01-05T12:02:00Z"}).json()

    assert (2, 40, 40) == (found["matured_panes"], found["pairs"], found["current"]["pairs"])


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/v1/models/other", 404, "no model other is known"),
        ("/v1/models/delay/versions/9/window", 404, "no version 9 of model delay is known"),
        ("/v1/models/delay/comparisons/2/1/window", 404, "no answers of delay versions 2 and 1 were compared"),
        ("/v1/models/delay?panes=-1", 400, "panes: expected a whole number from 0, got '-1'"),
        ("/v1/models/delay?panes=²", 400, "panes: expected a whole number"),
        ("/v1/models/delay/versions/1/window?start=noon", 400, "start: expected an RFC 3339 time with an offset"),
        ("/v1/models/delay/versions/1/window?end=2026-01-05T12:00:00", 400, "end: expected an RFC 3339 time"),
        ("/nowhere", 404, "Not Found: GET /nowhere"),
    ],
)
def test_a_mistaken_question_is_answered_with_a_sentence(watched: Any, path: str, status: int, sentence: str) -> None:
    """Every client's mistake has its status and a JSON error that names it."""
    answer = watched.client.get(path)

    assert status == answer.status_code
    assert answer.json()["error"].startswith(sentence)


def test_a_wrong_method_is_told_the_right_one(watched: Any) -> None:
    """405 carries Allow, and JSON like every error."""
    answer = watched.client.post("/health")

    assert (405, "GET, HEAD") == (answer.status_code, ", ".join(sorted(answer.headers["allow"].split(", "))))
    assert answer.json()["error"] == "Method Not Allowed: POST /health"


def test_every_error_has_a_status() -> None:
    """A question's errors are the client's, all others the monitor's own."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]

    assert {errors.UnknownError, errors.InvalidError} == set(STATUS)
    assert all(issubclass(kind, errors.MonitorError) for kind in kinds)
    assert {errors.MonitorError, HTTPException, Exception} == set(HANDLERS)


def test_health_says_how_far_the_log_was_read(watched: Any) -> None:
    """All is well: no lag, and everything that was passed over is counted."""
    answer = watched.client.get("/health")

    found = answer.json()
    assert (200, "ok", None) == (answer.status_code, found["status"], found["reason"])
    whole = {"log_id": "log-1", "offset": 1201, "end": 1201, "lag_events": 0, "lag_s": 0.0}
    assert {**whole, "partitions": {"0": {"offset": 1201, "end": 1201}}} == found["source"]
    counters = found["counters"]
    assert (400, 400, 400, 1, 400) == tuple(
        counters[name] for name in ("prediction", "shadow", "label", "malformed", "open_requests")
    )
    assert {"watched": ["delay/1", "delay/2"], "refused": {}} == found["bundles"]


def test_metrics_are_prometheus_text(watched: Any) -> None:
    """A scrape parses, obeys the naming rules, and says what the API says."""
    answer = watched.client.get("/metrics")

    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    value = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert answer.headers["content-type"].startswith("text/plain")
    for name, family in families.items():
        assert re.fullmatch(r"tiltyard_[a-z0-9_]+", name), name
        assert family.documentation.endswith("."), name
        assert (family.type == "counter") == any(sample.name.endswith("_total") for sample in family.samples), name
    assert value["tiltyard_monitor_events_total", "prediction"] == 400
    assert value["tiltyard_monitor_dead_letters_total", "malformed"] == 1
    assert value["tiltyard_monitor_up",] == 1
    assert value["tiltyard_missing_ratio", "wind", "delay", "1"] == 1.0
    assert value["tiltyard_drift_detected", "wind", "delay", "1"] == 1
    assert value["tiltyard_performance_accuracy", "delay", "1", "last"] == 1.0
    assert value["tiltyard_performance_accuracy", "delay", "2", "total"] == 0.0
    assert value["tiltyard_label_coverage_ratio", "delay", "1", "total"] == 1.0
    assert value["tiltyard_comparison_pairs", "2", "1", "delay"] == 280
    assert value["tiltyard_drift_psi", "distance", "delay", "1"] == pytest.approx(
        watched.client.get("/v1/models/delay?panes=2").json()["versions"][0]["panes"][0]["features"][0]["drift"][
            "psi_debiased"
        ]
    )


def test_the_page_and_its_files_are_served(watched: Any) -> None:
    """GET / is the status page, and every file it names is there."""
    page = watched.client.get("/")

    assert page.headers["content-type"].startswith("text/html")
    files = re.findall(r'(?:src|href)="(page/[^"]+)"', page.text)
    assert files
    assert [200] * len(files) == [watched.client.get(f"/{name}").status_code for name in files]


def test_times_are_rfc_3339(watched: Any) -> None:
    """Every time that is answered can be parsed and has an offset."""
    pane = watched.client.get("/v1/models/delay?panes=1").json()["versions"][0]["panes"][0]

    start, end = (datetime.fromisoformat(pane[name]) for name in ("start", "end"))
    assert (end - start).total_seconds() == 60
    assert start.tzinfo is not None
