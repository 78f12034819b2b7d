"""``python -m benchmarks``: measures, prints, and writes benchmarks/results/."""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import (
    baseline_serving,
    machine,
    monitoring,
    operating,
    recording,
    routing,
    shadowing,
    shipping,
    starting,
)
from benchmarks.chart import requests_chart

RESULTS = Path(__file__).parent / "results"
PARTS = ("serving", "operating", "routing", "shadowing", "recording", "shipping", "monitor", "start")
START_ROUNDS = 7
QUIET_CORES = 0.1
KEEPS_PACE_US = 1000
STEADY = 0.2  # the bare app's spread over its rounds, beyond which something else had the cores


def main() -> None:
    """Runs the parts that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: about a minute in all")
    parser.add_argument("--rounds", type=_rounds, default=5, help="alternating rounds of each part [5]")
    parser.add_argument("--only", type=_parts, action="extend", help=f"parts to measure, of {','.join(PARTS)} [all]")
    parser.add_argument(
        "--outage", type=float, default=10.0, help="minutes of a broker's absence whose events are drained [10]"
    )
    options = parser.parse_args()
    machine.end_cleanly_when_terminated()
    console = Console(stderr=True)
    parts = [part for part in PARTS if not options.only or part in options.only]
    rounds = 1 if options.quick else options.rounds
    results: dict[str, Any] = {"machine": machine.describe()}
    console.print(results["machine"])
    starts = 3 if options.quick else max(START_ROUNDS, options.rounds)
    seconds, flights, swaps = (2, 20_000, 100) if options.quick else (5, 60_000, 1_000)
    warm_up = f"{baseline_serving.WARM_UP['seconds']} s at {baseline_serving.WARM_UP['connections']} connections"
    console.print(
        f"seeds {baseline_serving.SEED} and {monitoring.SEED}; connections {baseline_serving.CONNECTIONS}; "
        f"rounds {rounds} of {seconds} s after a warm-up of {warm_up}; {flights:,} flights; {starts} starts"
    )
    totals = {
        "serving": baseline_serving.steps(rounds),
        "operating": operating.steps(rounds),
        "routing": routing.steps(rounds),
        "shadowing": shadowing.steps(rounds),
        "recording": recording.steps(rounds),
        "monitor": monitoring.steps(rounds),
        "shipping": shipping.steps(rounds),
        "start": starts,
    }
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for part in parts:
            task = progress.add_task(f"{part}: preparing", total=totals[part])

            def advance(done: str, task: Any = task, part: str = part) -> None:
                progress.update(task, advance=1, description=f"{part}: {done}")

            with tempfile.TemporaryDirectory(prefix="tiltyard-bench-") as name:
                folder = Path(name)
                if part == "serving":
                    results[part] = baseline_serving.measure(folder, rounds, seconds, advance)
                elif part == "operating":
                    results[part] = operating.measure(folder, rounds, seconds, swaps, advance)
                elif part == "routing":
                    results[part] = routing.measure(folder, rounds, seconds, advance)
                elif part == "shadowing":
                    results[part] = shadowing.measure(folder, rounds, seconds, advance)
                elif part == "recording":
                    outage = min(options.outage, 0.5) if options.quick else options.outage
                    results[part] = recording.measure(folder, rounds, seconds, outage, advance)
                elif part == "monitor":
                    results[part] = monitoring.measure(folder, rounds, flights, advance)
                elif part == "shipping":
                    results[part] = shipping.measure(folder, rounds, 60_000 if options.quick else 300_000, advance)
                else:
                    results[part] = starting.measure(folder, starts, advance)
    text = _markdown(results)
    console.print(text, highlight=False, markup=False, soft_wrap=True)
    for warning in _warnings(results):
        console.print(f"[yellow]warning:[/yellow] {warning}", highlight=False)
    if machine.sources_digest() != results["machine"]["sources"]:
        sys.exit("not written: the code changed while it was measured; run it again on a tree that nobody edits")
    if set(parts) == set(PARTS) and not options.quick:
        _write(results, text)
        console.print(f"written: {RESULTS}/baseline.json, baseline.md and baseline.svg")
    else:
        console.print("not written to benchmarks/results: only a full run is")


def _warnings(results: dict[str, Any]) -> list[str]:
    """Returns what makes the serving figures doubtful: the constant answer costs the same in every round."""
    found = []
    for row in results["serving"]["medians"] if "serving" in results else ():
        low, middle, high = (row[baseline_serving.BARE][name] for name in ("lowest", "requests_s", "highest"))
        if high - low > STEADY * middle:
            found.append(
                f"{row['connections']} connections: the bare app made {low:,.0f} to {high:,.0f} requests/s over its "
                "rounds; something else used the cores, so single rounds' ratios mean little"
            )
    if "shadowing" in results:
        found += _shadowing_warnings(results["shadowing"])
    return found


def _shadowing_warnings(found: dict[str, Any]) -> list[str]:
    ratios = sorted(found["p99_ratios"])
    doubts = []
    if found["others"] > QUIET_CORES:
        doubts.append(
            f"shadowing: others used {found['others']:.2f} cores while it was measured, and the ratio of p99 was "
            f"{ratios[0]:.2f} to {ratios[-1]:.2f} over the rounds"
        )
    if found["behind_p99_us"] > KEEPS_PACE_US:
        late = _latency(found["behind_p99_us"])
        doubts.append(f"shadowing: the load could not keep its pace: {late} late at p99, which counts as latency")
    return doubts


def _write(results: dict[str, Any], text: str) -> None:
    RESULTS.mkdir(exist_ok=True)
    title = "Requests a second, one core, one row of 30 floats"
    (RESULTS / "baseline.json").write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / "baseline.md").write_text(text)
    (RESULTS / "baseline.svg").write_text(
        requests_chart(results["serving"]["medians"], baseline_serving.CONTESTANTS, title)
    )


def _rounds(text: str) -> int:
    rounds = int(text)
    if rounds < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1 round, got {rounds}")
    return rounds


def _parts(text: str) -> list[str]:
    parts = text.split(",")
    unknown = [repr(part) for part in parts if part not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"expected parts among {', '.join(PARTS)}, got {', '.join(unknown)}")
    return parts


def _markdown(results: dict[str, Any]) -> str:
    about = results["machine"]
    lines = [
        f"`make bench` on {about['cpu']}, Python {about['python']}, onnxruntime {about['onnxruntime']}, "
        f"uvicorn {about['uvicorn']}; load {about['load']}, medians of alternating rounds."
    ]
    if "serving" in results:
        lines += ["", *_serving(results["serving"])]
    if "operating" in results:
        lines += ["", *_operating(results["operating"])]
    if "routing" in results:
        lines += ["", *_routing(results["routing"])]
    if "shadowing" in results:
        lines += ["", *_shadowing(results["shadowing"])]
    if "recording" in results:
        lines += ["", *_recording(results["recording"])]
    if "monitor" in results:
        found = results["monitor"]
        lines += [
            "",
            f"Monitor, one core, {found['features']} features, {found['events']:,} events "
            f"of {found['event_bytes']:.0f} bytes: **{found['monitor_events_s']:,.0f} events/s** "
            f"with reading, joining and committing (folding alone {found['fold_events_s']:,.0f}), "
            f"{found['rss_mb']:.0f} MB; median of {found['rounds']}.",
        ]
    if "shipping" in results:
        lines += ["", shipping.summary(results["shipping"])]
    if "start" in results:
        found = results["start"]
        lines += [
            "",
            f"Cold start of `tiltyard serve` with two bundles to the first answer: "
            f"**{found['start_s']:.2f} s** (importing the libraries alone {found['imports_s']:.2f} s), "
            f"{found['rss_mb']:.0f} MB; median of {found['rounds']}, files cached.",
        ]
    return "\n".join(lines) + "\n"


def _serving(found: dict[str, Any]) -> list[str]:
    lines = [
        f"One row of 30 floats, V2 JSON of {found['body_bytes']} bytes, logistic regression, logging on; "
        f"one core for the server, wrk on the other, rounds of {found['seconds']} s: {found['rounds']}. "
        f"The ceiling is a bare uvicorn app that answers a constant of {found['answer_bytes']} bytes; "
        "*shadowed* is requests/s with a challenger that scores every request too.",
        "",
        "| connections | requests/s | p50 | p99 | bare app requests/s | p50 | p99 | ratio | shadowed | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["medians"]:
        ours, bare, shadowed = (row[name] for name in baseline_serving.CONTESTANTS)
        cells = [f"{row['connections']}", *_figures(ours), *_figures(bare), f"{ours['ratio']:.2f}"]
        cells += [f"{shadowed['requests_s']:,.0f}", f"{shadowed['ratio']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    plain, shadowed = found["balance"], found["balance_shadowed"]
    return [
        *lines,
        "",
        f"Over all rounds {plain['answered']:,.0f} answers made {plain['in_the_log']:,.0f} events in the log and "
        f"{plain['dropped']:,.0f} were dropped; shadowed, {shadowed['answered']:,.0f} answers, "
        f"{shadowed['shadowed']:,.0f} shadows, {shadowed['shed']:,.0f} shed shadows and "
        f"{shadowed['audits']:,.0f} audit events made "
        f"{shadowed['in_the_log']:,.0f} and {shadowed['dropped']:,.0f} were dropped. "
        f"After load the server held {found['rss_mb']:.0f} MB.",
    ]


def _operating(found: dict[str, Any]) -> list[str]:
    swaps, workers, tensors, many = (found[name] for name in ("swaps", "workers", "tensors", "many"))
    (early, early_mb), (late, late_mb) = min(swaps["rss_mb"].items()), max(swaps["rss_mb"].items())
    one, two = (workers["requests_s"][count] for count in operating.WORKERS)
    return [
        f"While {swaps['swaps']:,} swaps replaced one version by the other (load, verify, warm, switch, drain, free; "
        f"{swaps['swap_ms']:.0f} ms each), {swaps['requests']:,.0f} requests of {operating.CONNECTIONS} connections "
        f"were answered and **{swaps['failed']:.0f} failed**; p99 {_latency(swaps['swapping_p99_us'])} against "
        f"{_latency(swaps['quiet_p99_us'])} without swaps, ratio **{swaps['p99_ratio']:.2f}**; "
        f"memory {late_mb:.0f} MB after {late:,} swaps, {early_mb:.0f} MB after {early:,}.",
        "",
        f"Two workers on two cores, wrk on the same cores: {two:,.0f} requests/s, one worker {one:,.0f}, "
        f"ratio **{workers['ratio']:.2f}**.",
        "",
        f"1 MiB of FP32 to one output, {operating.TENSOR_CONNECTIONS} connections: binary "
        f"{tensors['requests_s']['binary']:,.0f} requests/s, JSON ({tensors['json_bytes'] / 2**20:.1f} MiB) "
        f"{tensors['requests_s']['json']:,.0f}, ratio **{tensors['ratio']:.1f}**.",
        "",
        f"{many['bundles']} bundles: ready after **{many['start_s']:.1f} s**, {many['rss_mb']:.0f} MB.",
    ]


def _routing(found: dict[str, Any]) -> list[str]:
    choosing, serving_, obeying = (found[name] for name in ("choosing", "serving", "obeying"))
    plain, split = (serving_["requests_s"][name] for name in routing.ROUTES)
    return [
        f"Choosing who answers takes {choosing['plain_us']:.2f} µs without and {choosing['split_us']:.2f} µs with a "
        f"split of the traffic: it adds **{choosing['added_us']:.2f} µs** a request. Whole servers at "
        f"{serving_['connections']} connections: {plain:,.0f} and {split:,.0f} requests/s, "
        f"{serving_['added_us']:+.1f} µs a request, noise included. "
        f"One core assigns **{choosing['assignments_s']:,.0f} units/s**.",
        "",
        f"A change of route was obeyed by all of {obeying['workers']} workers after {obeying['median_ms']:.0f} ms "
        f"(median of {obeying['changes']}; 95 % within {obeying['p95_ms']:.0f} ms, the longest "
        f"**{obeying['longest_ms']:.0f} ms**); its own answer came after {obeying['answered_ms']:.0f} ms.",
    ]


def _shadowing(found: dict[str, Any]) -> list[str]:
    before, after = (_latency(found["p99_us"][name]) for name in shadowing.CONTESTANTS)
    half, overload = found["half_load"], found["overload"][shadowing.SHADOWED]
    plain = found["overload"][shadowing.PLAIN]
    return [
        f"A shadow of every request at half load, an open loop of {found['requests_s']:,.0f} requests/s (saturation "
        f"at {found['saturation_requests_s']:,.0f}), {found['rounds']} rounds each of {found['seconds']} s: the "
        f"champion's p99 {after} against {before} without, ratio **{found['p99_ratio']:.2f}**, p50 ratio "
        f"{found['p50_ratio']:.2f}; {found['failed']:.0f} failed, {half['shadowed']:,.0f} shadows scored and "
        f"{half['shed']:,.0f} shed. Others used {found['others']:.2f} cores meanwhile; the load was late by "
        f"{_latency(found['behind_p99_us'])} at p99.",
        "",
        f"Overload, {shadowing.OVERLOAD_CONNECTIONS} connections in a closed loop: {overload['requests_s']:,.0f} "
        f"requests/s ({plain['requests_s']:,.0f} without a shadow), **{overload['failed']:.0f} failed**; "
        f"{overload['shadowed']:,.0f} shadows scored, {overload['shed']:,.0f} shed.",
    ]


def _recording(found: dict[str, Any]) -> list[str]:
    throughput, backlog = found["throughput"], found["backlog"]
    rates = [f"{throughput['requests_s'][name]:,.0f}" for name in recording.CONTESTANTS]
    ratios = throughput["ratios"]
    return [
        f"What the log costs, {found['connections']} connections, {found['rounds']} rounds: {rates[0]} requests/s "
        f"without events of answers, {rates[1]} with the embedded log (**{ratios[recording.EMBEDDED]:.2f}** of it), "
        f"{rates[2]} with Kafka beside it, shipper on the server's core and broker on wrk's "
        f"(**{ratios[recording.KAFKA]:.2f}**), {throughput['left_after_a_round']:,.0f} events then left to ship. "
        f"One append costs the serving thread **{found['append_us']:.2f} µs**.",
        "",
        f"A backlog of {backlog['events']:,} events drained at **{backlog['shipped_events_s']:,.0f} events/s** beside "
        f"{backlog['requests_s']:,.0f} requests/s: p50 {_latency(backlog['p50_us'][recording.DRAINING])} against "
        f"{_latency(backlog['p50_us'][recording.RESTING])} with the shipper stopped, ratio "
        f"**{backlog['p50_ratio']:.2f}**, p99 ratio {backlog['p99_ratio']:.2f}; {backlog['failed']:.0f} failed.",
    ]


def _figures(found: dict[str, float]) -> list[str]:
    return [f"{found['requests_s']:,.0f}", _latency(found["p50_us"]), _latency(found["p99_us"])]


def _latency(microseconds: float) -> str:
    return f"{microseconds:.0f} µs" if microseconds < 1000 else f"{microseconds / 1000:.1f} ms"


if __name__ == "__main__":
    main()
