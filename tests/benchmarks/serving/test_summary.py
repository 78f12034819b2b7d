"""Medians and ratios of rounds."""

from typing import Any

import pytest

from benchmarks.serving.summary import closed_loops, open_loops


def run(number: int, contestant: str, requests_s: float, **other: Any) -> dict[str, Any]:
    """Returns a closed loop's record."""
    known = {"part": "peers", "form": "JSON", "rows": 1, "connections": 64, "p50_us": 100.0, "p99_us": 200.0}
    known |= {"cpu_us": 50.0, "rss_mb": 80.0, "others": 0.0, "steal": 0.0, "failed": 0.0}
    return {**known, "round": number, "contestant": contestant, "requests_s": requests_s, **other}


def test_a_ratio_is_taken_within_its_round() -> None:
    """A machine that is half as fast in one round leaves the ratios as they are."""
    runs = [run(0, "bare", 1000), run(0, "ours", 1500), run(1, "bare", 500), run(1, "ours", 750)]
    runs += [run(2, "bare", 500), run(2, "ours", 800)]

    found = {row["contestant"]: row for row in closed_loops(runs, "bare")}

    assert found["ours"]["ratio"] == pytest.approx(1.5)
    assert found["bare"]["ratio"] == 1
    assert (found["ours"]["requests_s"], found["ours"]["lowest"], found["ours"]["highest"]) == (800, 750, 1500)


def test_latencies_have_ratios_too() -> None:
    """p50 and p99 stand beside the ceiling's of the same round."""
    runs = [run(0, "bare", 1000), run(0, "ours", 900, p50_us=130.0, p99_us=500.0)]

    found = closed_loops(runs, "bare")[1]

    assert (found["p50_ratio"], found["p99_ratio"]) == (1.3, 2.5)


def test_loads_are_never_mixed() -> None:
    """Another part, form, number of rows or of connections is another record, with the ceiling under that load."""
    runs = [run(0, "bare", 1000), run(0, "ours", 900)]
    for other in ({"part": "rows"}, {"form": "binary"}, {"rows": 8}, {"connections": 1}):
        runs += [run(0, "bare", 500, **other), run(0, "ours", 100, **other)]

    found = [row["ratio"] for row in closed_loops(runs, "bare") if row["contestant"] == "ours"]

    assert found == [0.9, 0.2, 0.2, 0.2, 0.2]


def test_without_the_ceiling_there_is_no_ratio() -> None:
    """A round whose ceiling could not be measured gives figures and no ratio."""
    (found,) = closed_loops([run(0, "ours", 900)], "bare")

    assert (found["requests_s"], found["ratio"]) == (900, None)


def test_fixed_rates_have_medians() -> None:
    """Each figure is the median of its own rounds."""
    figures = {
        "asked_rate": 500.0,
        "p50_us": 90.0,
        "cpu_us": 40.0,
        "failed": 0.0,
        "others": 0.0,
        "steal": 0.0,
        "load_cores": 0.1,
    }
    runs = [{"part": "peers", "contestant": "ours", "rate": 500.0, "p99_us": p99, **figures} for p99 in (400, 900, 300)]

    (found,) = open_loops(runs)

    assert (found["p99_us"], found["rounds"]) == (400, 3)
