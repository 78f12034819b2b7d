"""A bar chart of requests a second as SVG: one group a number of connections, one bar a contestant."""

from html import escape
from typing import Any

COLOURS = ("#2563eb", "#9ca3af", "#93c5fd")
WIDTH, HEIGHT = 640, 300
LEFT, TOP, BOTTOM = 20, 56, 36
GROUP_GAP = 40


def requests_chart(medians: list[dict[str, Any]], contestants: tuple[str, ...], title: str) -> str:
    """Returns the chart of the medians that ``baseline_serving.measure`` returns."""
    highest = max(row[name]["requests_s"] for row in medians for name in contestants)
    floor = HEIGHT - BOTTOM
    group = (WIDTH - 2 * LEFT) / len(medians)
    bar = (group - GROUP_GAP) / len(contestants)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20" font-size="14" fill="#111827">{escape(title)}</text>',
    ]
    for place, (name, colour) in enumerate(zip(contestants, COLOURS, strict=True)):
        x = LEFT + place * 150
        parts.append(f'<rect x="{x}" y="30" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 18}" y="41" fill="#374151">{escape(name)}</text>')
    for i, row in enumerate(medians):
        start = LEFT + i * group + GROUP_GAP / 2
        for place, (name, colour) in enumerate(zip(contestants, COLOURS, strict=True)):
            rate = row[name]["requests_s"]
            # Room above the highest bar for its figure, below the legend.
            tall = rate / highest * (floor - TOP - 20)
            x = start + place * bar
            parts.append(
                f'<rect x="{x:.1f}" y="{floor - tall:.1f}" width="{bar - 6:.1f}" height="{tall:.1f}" fill="{colour}"/>'
            )
            parts.append(
                f'<text x="{x + bar / 2 - 3:.1f}" y="{floor - tall - 5:.1f}" text-anchor="middle" fill="#111827">'
                f"{rate:,.0f}</text>"
            )
        parts.append(
            f'<text x="{start + (group - GROUP_GAP) / 2:.1f}" y="{HEIGHT - 14}" text-anchor="middle" fill="#374151">'
            f"{row['connections']} connections</text>"
        )
    parts.append(f'<line x1="{LEFT}" y1="{floor}" x2="{WIDTH - LEFT}" y2="{floor}" stroke="#6b7280"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"
