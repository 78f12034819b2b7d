"""The chart of contestants."""

import re
import xml.etree.ElementTree as ET

from benchmarks.serving.bars import CEILING_COLOUR, OURS_COLOUR, PEER_COLOUR, bar_chart

ROWS = [
    {"contestant": "peer <1>", "requests_s": 500.0, "p50_us": 800.0, "p99_us": 1600.0},
    {"contestant": "ours, everything on", "requests_s": 2000.0, "p50_us": 100.0, "p99_us": 200.0},
    {"contestant": "bare", "requests_s": 1000.0, "p50_us": None, "p99_us": None},
]


def test_bars_are_as_long_as_rates_are_high() -> None:
    """The fastest stands first; lengths are in the ratio of the rates."""
    bars = re.findall(r'width="([\d.]+)" height="20" fill="(#\w+)"', bar_chart(ROWS, "ours", "bare", "title", "note"))

    widths = [float(width) for width, _ in bars]

    assert [colour for _, colour in bars] == [OURS_COLOUR, CEILING_COLOUR, PEER_COLOUR]
    assert widths[0] == 2 * widths[1] == 4 * widths[2]


def test_a_chart_is_xml_whatever_names_hold() -> None:
    """Names are escaped; a contestant without a latency has none."""
    root = ET.fromstring(bar_chart(ROWS, "ours", "bare", "a & b", "note"))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]

    assert {"peer <1>", "a & b", "800 µs / 1.60 ms"} <= set(texts)
    assert sum(" / " in (text or "") for text in texts) == 3
