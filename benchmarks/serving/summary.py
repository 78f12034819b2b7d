"""From single runs to medians and ratios; pure."""

import statistics
from collections.abc import Iterable
from typing import Any

Run = dict[str, Any]
FIGURES = ("requests_s", "p50_us", "p99_us", "cpu_us", "rss_mb", "others", "steal", "failed")


def closed_loops(runs: list[Run], ceiling: str) -> list[Run]:
    """Returns one record a part, load and contestant, in the order in which they were first measured.

    Each has the medians of ``FIGURES`` over its rounds, lowest and highest requests/s, and the median of its ratios
    to the ceiling: requests/s, p50 and p99, each ratio taken within one round. Where a round has no run of the
    ceiling under that load there is no ratio (None).
    """
    found = []
    for key, own in _grouped(runs, ("part", "form", "rows", "connections", "contestant")).items():
        part, form, rows, connections, contestant = key
        beside = {
            run["round"]: run
            for run in runs
            if (run["part"], run["form"], run["rows"], run["connections"]) == key[:4] and run["contestant"] == ceiling
        }
        pairs = [(run, beside[run["round"]]) for run in own if run["round"] in beside]
        row = {"part": part, "form": form, "rows": rows, "connections": connections, "contestant": contestant}
        row |= {name: statistics.median(run[name] for run in own) for name in FIGURES}
        rates = [run["requests_s"] for run in own]
        row |= {"rounds": len(own), "lowest": min(rates), "highest": max(rates)}
        row["ratio"] = _median_ratio(pairs, "requests_s")
        row |= {"p50_ratio": _median_ratio(pairs, "p50_us"), "p99_ratio": _median_ratio(pairs, "p99_us")}
        found.append(row)
    return found


def open_loops(runs: list[Run]) -> list[Run]:
    """Returns one record a part and contestant: medians of rate, latencies, failures and what was taken away."""
    figures = ("asked_rate", "rate", "p50_us", "p99_us", "cpu_us", "failed", "load_cores", "others", "steal")
    return [
        {"part": part, "contestant": contestant, "rounds": len(own)}
        | {name: statistics.median(run[name] for run in own) for name in figures}
        for (part, contestant), own in _grouped(runs, ("part", "contestant")).items()
    ]


def _median_ratio(pairs: list[tuple[Run, Run]], figure: str) -> float | None:
    return statistics.median(own[figure] / beside[figure] for own, beside in pairs) if pairs else None


def _grouped(runs: Iterable[Run], names: tuple[str, ...]) -> dict[tuple[Any, ...], list[Run]]:
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(run[name] for name in names), []).append(run)
    return groups
