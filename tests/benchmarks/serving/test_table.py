"""The tables of results."""

from typing import Any

import pytest

from benchmarks.serving.ceiling import CEILING
from benchmarks.serving.plan import QUICK
from benchmarks.serving.table import latency, markdown


def results(**other: Any) -> dict[str, Any]:
    """Returns results of one round of the ceiling and a peer."""
    load = {"round": 0, "part": "peers", "form": "JSON", "rows": 1, "connections": 64, "failed": 0.0}
    load |= {"p50_us": 812.0, "p99_us": 12_500.0, "cpu_us": 50.0, "rss_mb": 80.0, "others": 0.0, "steal": 0.0}
    runs = [
        {**load, "contestant": CEILING.name, "requests_s": 20_000.0},
        {**load, "contestant": "KServe", "requests_s": 1_000.0, "failed": 3.0},
    ]
    machine = {"cpu": "a cpu", "python": "3.11", "onnxruntime": "1", "uvicorn": "0", "load": "0.1 before the run"}
    known = {"command": "make bench-serving", "machine": machine, "rounds": 1, "seconds": 2}
    opened = {"part": "peers", "contestant": "KServe", "asked_rate": 500.0, "rate": 400.0, "failed": 0.0}
    opened |= {"p50_us": 90.0, "p99_us": 900.0, "cpu_us": 40.0, "others": 0.0, "steal": 0.0, "load_cores": 0.9}
    known |= {"runs": runs, "open_loops": [opened], "skipped": {"Ray Serve": "it ended: no port"}}
    return {**known, "peers": {"kserve": "0.21.0"}, **other}


def test_a_row_has_every_figure() -> None:
    """Rate, failures, ratio, latencies, CPU and memory stand in one row."""
    text = markdown(results(), list(QUICK))

    assert "| KServe | JSON | 1 | 64 | 1,000 (3 failed) | 0.05 | 812 µs | 12.50 ms | 50 µs | 80 MB |" in text


def test_who_was_skipped_is_named_with_the_reason() -> None:
    """A peer that could not be measured is never silently left out."""
    assert "- Ray Serve: it ended: no port" in markdown(results(), list(QUICK))


def test_a_machine_that_was_not_quiet_makes_figures_doubtful() -> None:
    """Runs beside which strangers used more than a tenth of a core are counted."""
    runs = results()["runs"]
    quiet, noisy = {**runs[0], "others": 0.05}, {**runs[1], "others": 0.5, "steal": 0.02}

    text = markdown(results(runs=[quiet, noisy]), list(QUICK))

    assert "in 1 of 2 runs, whose figures are doubtful" in text
    assert "stole 2.0% at most" in text
    assert "doubtful" not in markdown(results(runs=[quiet]), list(QUICK))


def test_a_load_that_was_late_says_so() -> None:
    """A fixed rate that the load itself could not keep is shown beside the one asked for, and that it was busy."""
    assert "| KServe | 400 of 500 | 90 µs | 900 µs | 0 | 40 µs | 0.90 (busy) |" in markdown(results(), list(QUICK))


def test_the_machine_and_the_versions_are_named() -> None:
    """Nobody has to guess what a figure was measured on, or with what command."""
    text = markdown(results(), list(QUICK))

    assert "`make bench-serving` on a cpu" in text
    assert "Peers: kserve 0.21.0." in text


@pytest.mark.parametrize(("us", "text"), [(999, "999 µs"), (1000, "1.00 ms"), (99_999, "100.00 ms"), (2e5, "200 ms")])
def test_a_time_has_the_unit_that_reads_best(us: float, text: str) -> None:
    """Microseconds below one millisecond, no decimals beyond a hundred."""
    assert latency(us) == text
