"""``python -m benchmarks.serving``: the server beside its peers, on one core each; writes benchmarks/results/."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import machine
from benchmarks.load import LOAD_CORE, need_wrk
from benchmarks.models import SEED, pack_matrix_models
from benchmarks.serving import measurement, summary, vegeta
from benchmarks.serving.bars import bar_chart
from benchmarks.serving.ceiling import CEILING
from benchmarks.serving.configurations import KAFKA
from benchmarks.serving.contestant import Ground
from benchmarks.serving.environments import ENVIRONMENTS, EnvironmentUnavailableError, peer_python
from benchmarks.serving.plan import FULL, PEERS_PART, QUICK, QUICK_SKIPS, Part, chosen
from benchmarks.serving.table import markdown
from tests.kafka.broker import running_broker
from tests.kafka.classpath import BrokerUnavailableError

RESULTS = Path(__file__).parents[1] / "results"


def main() -> None:
    """Builds what is missing, measures, prints and writes."""
    options = _options()
    machine.end_cleanly_when_terminated()
    need_wrk()
    console = Console(stderr=True)

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    try:
        parts = chosen(QUICK if options.quick else FULL, options.parts, options.contestants)
    except ValueError as error:
        sys.exit(f"benchmarks: {error}")
    rounds = options.rounds or (1 if options.quick else 5)
    seconds = options.seconds or (2 if options.quick else 4)
    found = measurement.Found()
    if options.quick:
        say(QUICK_SKIPS)
    elif vegeta.find_vegeta() is None:
        say(f"no fixed rates: vegeta is not installed; {vegeta.ADVICE}")
    with tempfile.TemporaryDirectory(prefix="tiltyard-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        ground = _ground(folder, parts, options.environments, found, stack, say)
        about = machine.describe()
        say(f"{about}")
        for number in range(rounds):
            measurement.measure_round(number, parts, ground, folder, seconds, found, say)
    arguments = " ".join(sys.argv[1:])
    results = {
        "command": " ".join(["make bench-serving", *([f'ARGS="{arguments}"'] if arguments else [])]),
        "machine": about,
        "rounds": rounds,
        "seconds": seconds,
        "seed": SEED,
        "peers": _versions(ground),
        "runs": found.runs,
        "open_loops": found.open_loops,
        "skipped": found.skipped,
    }
    text = markdown(results, parts)
    say(text)
    if machine.sources_digest() != about["sources"]:
        sys.exit("not written: the code changed while it was measured; run it again on a tree that nobody edits")
    out = options.out or (RESULTS if parts == chosen(FULL, None, None) else None)
    if out is None:
        say("not written: only a full run is, or one with --out FOLDER")
        return
    _write(out, results, text)
    say(f"written: {out}/serving.json, serving.md and serving.svg")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the essential in under five minutes")
    parser.add_argument("--rounds", type=int, help="alternating rounds [5, quick 1]")
    parser.add_argument("--seconds", type=int, help="of each load [4, quick 2]")
    parser.add_argument("--parts", type=lambda text: text.split(","), help="of peers,forest,mlp,rows,configurations")
    parser.add_argument(
        "--contestants",
        type=lambda text: text.split(","),
        help="beginnings of their names, commas between; the ceiling comes in any case",
    )
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS, help="where peers are installed")
    parser.add_argument("--out", type=Path, help="folder for the results [benchmarks/results, after a full run]")
    return parser.parse_args()


def _ground(
    folder: Path,
    parts: list[Part],
    environments: Path,
    found: measurement.Found,
    stack: ExitStack,
    say: Callable[[str], None],
) -> Ground:
    """Returns what contestants start from; who cannot be had is skipped with the reason."""
    wanted = {who.name: who for part in parts for who in part.contestants}
    pythons: dict[str, Path] = {}
    failures: dict[str, str] = {}
    for peer in wanted.values():
        requirements = peer.requirements
        if requirements is not None and requirements not in pythons and requirements not in failures:
            try:
                pythons[requirements] = peer_python(requirements, say, environments)
            except EnvironmentUnavailableError as error:
                failures[requirements] = str(error)
        if requirements in failures:
            found.skipped[peer.name] = failures[requirements]
    bundles: dict[str, Path] = {}
    answers: dict[str, Path] = {}
    for estimator in dict.fromkeys(part.estimator for part in parts):
        say(f"packing: {estimator}")
        bundles[estimator] = folder / f"bundles of {estimator}"
        pack_matrix_models(bundles[estimator], estimator=estimator)
    brokers = None
    if KAFKA.name in wanted:
        (folder / "broker").mkdir()
        try:
            with machine.this_process_pinned(LOAD_CORE):  # the broker's threads are born there
                brokers = stack.enter_context(running_broker(folder / "broker")).bootstrap_servers
        except BrokerUnavailableError as error:
            found.skipped[KAFKA.name] = str(error)
    ground = Ground(bundles=bundles, answers=answers, pythons=pythons, brokers=brokers)
    for estimator in bundles:
        answers[estimator] = folder / f"answer of {estimator}.json"
        answers[estimator].write_bytes(measurement.constant_answer(ground.graph(estimator)))
    return ground


def _versions(ground: Ground) -> dict[str, str]:
    """Returns the versions of what the environments are for."""
    named = {"triton": ("nvidia-pytriton",), "ray": ("ray",), "fastapi": ("fastapi", "uvicorn")}
    found: dict[str, str] = {}
    for name, python in ground.pythons.items():
        site = next((python.parents[1] / "lib").glob("python*/site-packages"))
        installed = {each.metadata["Name"].lower(): each.version for each in distributions(path=[str(site)])}
        found |= {each: installed[each] for each in named.get(name, (name,))}
    return found


def _write(out: Path, results: dict[str, Any], text: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "serving.json").write_text(json.dumps(results, indent=1) + "\n")
    (out / "serving.md").write_text(text)
    rows = summary.closed_loops([run for run in results["runs"] if run["part"] == PEERS_PART.name], CEILING.name)
    if chart := _chart(rows, results):
        (out / "serving.svg").write_text(chart)


def _chart(rows: list[dict[str, Any]], results: dict[str, Any]) -> str | None:
    lone = {row["contestant"]: row for row in rows if row["connections"] == 1}
    nothing = {"p50_us": None, "p99_us": None}
    crowd = [
        {"contestant": row["contestant"], "requests_s": row["requests_s"]}
        | {name: lone.get(row["contestant"], nothing)[name] for name in nothing}
        for row in rows
        if row["connections"] == 64
    ]
    note = f"{results['machine']['cpu']}; one row of 30 floats as JSON, logistic regression; one core each"
    return bar_chart(crowd, "Tiltyard", CEILING.name, "Python model servers on one core", note) if crowd else None


if __name__ == "__main__":
    main()
