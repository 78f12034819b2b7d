"""What vegeta reports, read."""

from benchmarks.serving.vegeta import parse

# As ``vegeta report -type=json`` writes it, shortened.
REPORT = {
    "latencies": {"mean": 310_000, "50th": 250_500, "95th": 700_000, "99th": 1_250_000, "max": 9_000_000},
    "requests": 4000,
    "rate": 1000.25,
    "throughput": 995.1,
    "success": 0.9975,
    "status_codes": {"200": 3990, "503": 10},
}


def test_figures_are_in_microseconds() -> None:
    """Vegeta counts in nanoseconds, the tables in µs."""
    found = parse(REPORT)

    assert (found["p50_us"], found["p99_us"]) == (250.5, 1250)
    assert (found["requests"], found["rate"]) == (4000, 1000.25)


def test_what_was_no_success_failed() -> None:
    """The share of successes becomes a number of failures."""
    assert parse(REPORT)["failed"] == 10
