"""What wrk says, read."""

import pytest

from benchmarks.load import measured

SAID = """Running 2s test @ http://127.0.0.1:20000/predict
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    30.64ms   64.59ms 693.12ms   94.21%
    Req/Sec     3.41k     0.88k    4.02k    85.00%
  Latency Distribution
     50%  812.00us
     75%   18.66ms
     90%   24.13ms
     99%    1.25s
  6801 requests in 2.01s, 1.27MB read
  Socket errors: connect 1, read 2, write 3, timeout 4
  Non-2xx or 3xx responses: 5
Requests/sec:   3391.72
Transfer/sec:    650.91KB
"""


@pytest.mark.parametrize(("written", "us"), [("812.00us", 812), ("18.66ms", 18_660), ("1.25s", 1_250_000)])
def test_latencies_are_in_one_unit(written: str, us: float) -> None:
    """Latencies come in µs, whatever unit wrk has chosen for each."""
    found = measured(SAID.replace("812.00us", written).replace("1.25s", written))

    assert found["p50_us"] == found["p99_us"] == us


def test_requests_are_counted() -> None:
    """Both their number and their rate are wrk's own."""
    found = measured(SAID)

    assert found["requests"] == 6801
    assert found["requests_s"] == 3391.72


def test_failures_of_every_kind_add_up() -> None:
    """Broken connections, time-outs and bad answers all count as failed."""
    assert measured(SAID)["failed"] == 1 + 2 + 3 + 4 + 5


def test_another_text_ends_the_program() -> None:
    """What is no summary of wrk's is shown, not taken for a figure."""
    with pytest.raises(SystemExit, match="unable to connect"):
        measured("unable to connect to 127.0.0.1:1 Connection refused")
