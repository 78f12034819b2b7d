"""A bar chart as SVG: requests a second of each contestant, the fastest first, with its latency beside it; pure."""

from html import escape
from typing import Any

from benchmarks.serving.table import latency

WIDTH, LEFT, RIGHT = 760, 250, 210
TOP, BAR, GAP, BOTTOM = 64, 20, 8, 34
OURS_COLOUR, CEILING_COLOUR, PEER_COLOUR = "#2563eb", "#9ca3af", "#c7b299"
INK, PALE = "#111827", "#4b5563"


def bar_chart(rows: list[dict[str, Any]], ours: str, ceiling: str, title: str, note: str) -> str:
    """Returns a chart.

    Args:
        rows: ``contestant``, ``requests_s``, and ``p50_us`` and ``p99_us`` of one connection, None where unknown.
        ours: the beginning of the names that are drawn in the project's colour.
        ceiling: the name that is drawn grey.
    """
    rows = sorted(rows, key=lambda row: -row["requests_s"])
    height = TOP + len(rows) * (BAR + GAP) + BOTTOM
    room = WIDTH - LEFT - RIGHT
    highest = max(row["requests_s"] for row in rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(16, 24, title, INK, size=15),
        _text(WIDTH - 16, 50, "p50 / p99 at 1 connection", PALE, anchor="end"),
        _text(LEFT, 50, "requests/s at 64 connections", PALE),
    ]
    for place, row in enumerate(rows):
        name, y = row["contestant"], TOP + place * (BAR + GAP)
        colour = CEILING_COLOUR if name == ceiling else OURS_COLOUR if name.startswith(ours) else PEER_COLOUR
        wide = max(1.0, row["requests_s"] / highest * room)
        middle = y + BAR - 6
        parts.append(_text(LEFT - 8, middle, name, INK, anchor="end"))
        parts.append(f'<rect x="{LEFT}" y="{y}" width="{wide:.1f}" height="{BAR}" fill="{colour}"/>')
        parts.append(_text(LEFT + wide + 6, middle, f"{row['requests_s']:,.0f}", INK))
        if row["p50_us"] is not None:
            said = f"{latency(row['p50_us'])} / {latency(row['p99_us'])}"
            parts.append(_text(WIDTH - 16, middle, said, PALE, anchor="end"))
    parts.append(_text(16, height - 12, note, PALE, size=11))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, colour: str, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{escape(text)}</text>'
