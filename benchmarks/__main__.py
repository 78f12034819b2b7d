"""``python -m benchmarks``: measures, prints, and writes benchmarks/results/."""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import machine, monitoring, serving, starting

RESULTS = Path(__file__).parent / "results"
PARTS = ("serving", "monitor", "start")


def main() -> None:
    """Runs the parts that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: a minute in all")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds of each part [5]")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure only this part; may be repeated")
    options = parser.parse_args()
    console = Console(stderr=True)
    parts = options.only or list(PARTS)
    rounds = 2 if options.quick else options.rounds
    results: dict[str, Any] = {"machine": machine.describe()}
    console.print(results["machine"])
    for part in parts:
        with console.status(f"measuring: {part}"), tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if part == "serving":
                results[part] = serving.measure(folder, rounds, seconds=2 if options.quick else 5)
            elif part == "monitor":
                results[part] = monitoring.measure(folder, rounds, flights=20_000 if options.quick else 60_000)
            else:
                results[part] = starting.measure(folder, rounds + 2)
    text = _markdown(results)
    console.print(text, highlight=False, markup=False)
    if set(parts) == set(PARTS) and not options.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "baseline.json").write_text(json.dumps(results, indent=1) + "\n")
        (RESULTS / "baseline.md").write_text(text)
        console.print(f"written: {RESULTS}/baseline.json and baseline.md")


def _markdown(results: dict[str, Any]) -> str:
    about = results["machine"]
    lines = [
        f"`make bench` on {about['cpu']}, Python {about['python']}, onnxruntime {about['onnxruntime']}, "
        f"uvicorn {about['uvicorn']}; shared machine, medians of alternating rounds."
    ]
    if "serving" in results:
        found = results["serving"]
        lines += [
            "",
            f"One row of 30 floats, V2 JSON of {found['body_bytes']} bytes, logistic regression, logging on; "
            f"one core for the server, wrk on the other, {found['rounds']} rounds of {found['seconds']} s. "
            "The ceiling is a bare uvicorn app that answers a constant.",
            "",
            "| connections | requests/s | p50 | p99 | bare app requests/s | p50 | p99 | ratio |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in found["medians"]:
            ours, bare = row["tiltyard"], row["bare uvicorn"]
            cells = [f"{row['connections']}", *_figures(ours), *_figures(bare), f"{row['ratio']:.2f}"]
            lines.append(f"| {' | '.join(cells)} |")
        balance = found["balance"]
        lines += [
            "",
            f"In the last round {balance['answered']:,.0f} answers made {balance['logged']:,.0f} events and "
            f"{balance['dropped']:,.0f} were dropped; the server held {found['rss_mb']:.0f} MB.",
        ]
    if "monitor" in results:
        found = results["monitor"]
        lines += [
            "",
            f"Monitor, one core, {found['features']} features, {found['events']:,} events "
            f"of {found['event_bytes']:.0f} bytes: **{found['monitor_events_s']:,.0f} events/s** "
            f"with reading, joining and committing (folding alone {found['fold_events_s']:,.0f}), "
            f"{found['rss_mb']:.0f} MB.",
        ]
    if "start" in results:
        found = results["start"]
        lines += [
            "",
            f"Cold start of `tiltyard serve` with two bundles to the first answer: "
            f"**{found['start_s']:.2f} s** (importing the libraries alone {found['imports_s']:.2f} s), "
            f"{found['rss_mb']:.0f} MB.",
        ]
    return "\n".join(lines) + "\n"


def _figures(found: dict[str, float]) -> list[str]:
    return [f"{found['requests_s']:,.0f}", _latency(found["p50_us"]), _latency(found["p99_us"])]


def _latency(microseconds: float) -> str:
    return f"{microseconds:.0f} µs" if microseconds < 1000 else f"{microseconds / 1000:.1f} ms"


if __name__ == "__main__":
    main()
