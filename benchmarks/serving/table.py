"""What was measured as Markdown; pure."""

import statistics
from typing import Any

from benchmarks.serving import summary
from benchmarks.serving.ceiling import CEILING
from benchmarks.serving.plan import QUIET_CORES, Part

Row = dict[str, Any]
BUSY_LOAD = 0.8  # cores, beyond which latencies are the load's own
LEGEND = (
    "Every contestant has core 0 to itself and one thread a graph; wrk (a closed loop) and vegeta (a fixed rate) run "
    "on core 1. Medians of alternating rounds; *ratio* is requests/s beside the ceiling of the same round, a bare "
    "uvicorn app that answers a constant. CPU is that of all its processes, a request; RSS is theirs at the end, pages "
    "that they share counted in each. Triton is the one inside the `nvidia-pytriton` wheel, with its Python backend: "
    "its native ONNX backend is not there and was not measured."
)


def markdown(results: dict[str, Any], parts: list[Part]) -> str:
    """Returns the tables of results as ``measure`` leaves them, under what they were measured on."""
    about = results["machine"]
    lines = [
        f"`{results['command']}` on {about['cpu']}, Python {about['python']}, onnxruntime {about['onnxruntime']}, "
        f"uvicorn {about['uvicorn']}: {results['rounds']} rounds, {results['seconds']} s a load, load "
        f"{about['load']}. {_taken_away(results['runs'])}",
        "",
        LEGEND,
    ]
    closed = summary.closed_loops(results["runs"], CEILING.name)
    opened = summary.open_loops(results["open_loops"])
    for part in parts:
        if own := [row for row in closed if row["part"] == part.name]:
            lines += ["", f"### {part.about}", "", *_closed(own)]
        if own := [row for row in opened if row["part"] == part.name]:
            lines += ["", "At a fixed rate of half its own highest, 64 connections at most:", "", *_open(own)]
    if results["skipped"]:
        lines += ["", "Not measured:", ""]
        lines += [f"- {name}: {reason}" for name, reason in results["skipped"].items()]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(results["peers"].items()))
    return "\n".join([*lines, "", f"Peers: {versions}." if versions else "No peers."]) + "\n"


def _taken_away(runs: list[Row]) -> str:
    """Returns how quiet the machine was."""
    if not runs:
        return "Nothing was measured."
    others, steal = sorted(run["others"] for run in runs), max(run["steal"] for run in runs)
    noisy = sum(used > QUIET_CORES for used in others)
    doubt = f"; more than {QUIET_CORES} in {noisy} of {len(runs)} runs, whose figures are doubtful" if noisy else ""
    return f"Strangers used {statistics.median(others):.2f} cores{doubt}; the host stole {steal:.1%} at most."


def _closed(rows: list[Row]) -> list[str]:
    lines = [
        "| contestant | form | rows | connections | requests/s | ratio | p50 | p99 | CPU a request | RSS |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    order = list(dict.fromkeys((row["form"], row["rows"], row["connections"]) for row in rows))
    for load in order:
        same = [row for row in rows if (row["form"], row["rows"], row["connections"]) == load]
        for row in sorted(same, key=lambda row: -row["requests_s"]):
            ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
            failed = f" ({row['failed']:,.0f} failed)" if row["failed"] else ""
            cells = [row["contestant"], row["form"], f"{row['rows']}", f"{row['connections']}"]
            cells += [f"{row['requests_s']:,.0f}{failed}", ratio, latency(row["p50_us"]), latency(row["p99_us"])]
            cells += [latency(row["cpu_us"]), f"{row['rss_mb']:,.0f} MB"]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _open(rows: list[Row]) -> list[str]:
    lines = [
        "| contestant | requests/s | p50 | p99 | failed | CPU a request | cores of the load |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row["p99_us"]):
        # Where the load's own core was busy, latencies are the load's, and the rate may be short of the one asked for.
        late = "" if row["rate"] > 0.98 * row["asked_rate"] else f" of {row['asked_rate']:,.0f}"
        cells = [row["contestant"], f"{row['rate']:,.0f}{late}", latency(row["p50_us"]), latency(row["p99_us"])]
        busy = " (busy)" if row["load_cores"] > BUSY_LOAD else ""
        cells += [f"{row['failed']:,.0f}", latency(row["cpu_us"]), f"{row['load_cores']:.2f}{busy}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def latency(us: float) -> str:
    """Returns a time in the unit that reads best."""
    return f"{us:,.0f} µs" if us < 1000 else f"{us / 1000:,.2f} ms" if us < 1e5 else f"{us / 1000:,.0f} ms"
