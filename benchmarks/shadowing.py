"""What a shadow costs the champion: latency at half load, and who is shed at overload.

Two servers stay up on core 0, one without a challenger and one with a shadow of every request; only one of
them is asked at a time, from core 1. The saturation rate of the first is found with wrk. Then an open loop of
half that rate (`open_loop.py`) asks them in alternating rounds. At last wrk asks with more connections than
the server can serve at once. What this does not show: heavier graphs, several shadows, networks.
"""

import json
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import baseline_serving
from benchmarks.load import Load, Script, answers, need_wrk, open_loop, post, wrk
from benchmarks.machine import bystanders, free_port, median, pinned, running, tiltyard, wait_until
from benchmarks.models import FLOATS, SEED, pack_matrix_models

PLAIN, SHADOWED = "without", "shadowed"
CONTESTANTS = (PLAIN, SHADOWED)
CONNECTIONS = 64
OVERLOAD_CONNECTIONS = 256
PAIRS = 3  # of open-loop rounds to one of the other parts' rounds: a p99 is a rare thing
PATH = baseline_serving.PATH


def steps(rounds: int) -> int:
    """Returns how often ``measure`` will call ``advance``."""
    return 1 + len(CONTESTANTS) * PAIRS * rounds + len(CONTESTANTS)


def measure(folder: Path, rounds: int, seconds: int, advance: Callable[[str], None]) -> dict[str, Any]:
    """Returns latencies at half load with and without a shadow, and what happens at overload."""
    need_wrk()
    models = {PLAIN: folder / PLAIN, SHADOWED: folder / SHADOWED}
    pack_matrix_models(models[PLAIN])
    pack_matrix_models(models[SHADOWED], versions=2)
    route = {"champion": "1", "challengers": [{"version": "2", "mode": "shadow", "share": 1.0}]}
    (models[SHADOWED] / "bench" / "route.json").write_text(json.dumps(route))
    body = folder / "request.json"
    body.write_text(baseline_serving.request_body(np.random.default_rng(SEED).normal(size=FLOATS).round(6)))
    script = post(folder, PATH, body.read_bytes())
    with ExitStack() as stack:
        ports, servers = {}, {}
        for name in CONTESTANTS:
            ports[name], log = free_port(), folder / f"{name}.log"
            command = tiltyard("serve", "--models", str(models[name]), "--outbox", str(folder / f"{name}.db"))
            servers[name] = stack.enter_context(running(pinned(0, [*command, "--port", str(ports[name])]), log))
            wait_until(partial(answers, _url(ports[name])), servers[name], log)
        for port in ports.values():
            wrk(script, _url(port), CONNECTIONS, 1)
        saturation = wrk(script, _url(ports[PLAIN]), CONNECTIONS, seconds)["requests_s"]
        advance(f"saturation at {saturation:,.0f} requests/s")
        before = baseline_serving.balance(_url(ports[SHADOWED]))
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
        pids = [server.pid for server in servers.values()]
        for round_ in range(PAIRS * rounds):
            for name in CONTESTANTS if round_ % 2 == 0 else reversed(CONTESTANTS):
                with bystanders(pids) as others:
                    found = open_loop(ports[name], PATH, body, saturation / 2, seconds, CONNECTIONS, SEED + round_)
                runs[name].append({**found, "others": others[0]})
                advance(f"round {round_ + 1}: {name}")
        after = baseline_serving.balance(_url(ports[SHADOWED]))
        overload = {name: _overload(script, _url(ports[name]), seconds, advance) for name in CONTESTANTS}
    return {
        "seed": SEED,
        "rounds": PAIRS * rounds,
        "seconds": seconds,
        "saturation_requests_s": saturation,
        "requests_s": saturation / 2,
        "p50_us": {name: median([run["p50_us"] for run in found]) for name, found in runs.items()},
        "p99_us": {name: median([run["p99_us"] for run in found]) for name, found in runs.items()},
        "p50_ratio": median(_ratios(runs, "p50_us")),
        "p99_ratio": median(_ratios(runs, "p99_us")),
        "p99_ratios": _ratios(runs, "p99_us"),
        "others": median([run["others"] for found in runs.values() for run in found]),
        "behind_p99_us": median([run["behind_p99_us"] for found in runs.values() for run in found]),
        "failed": sum(run["failed"] for found in runs.values() for run in found),
        "half_load": {name: after[name] - before[name] for name in ("answered", "shadowed", "shed", "dropped")},
        "overload": overload,
        "runs": runs,
    }


def _overload(script: Script, url: str, seconds: int, advance: Callable[[str], None]) -> dict[str, float]:
    """Returns what more clients than can be served at once are told, and what became of the shadows."""
    before = baseline_serving.balance(url)
    with Load(script, url, OVERLOAD_CONNECTIONS, seconds) as load:
        found = load.result()
    after = baseline_serving.balance(url)
    advance(f"overload: {found['requests_s']:,.0f} requests/s")
    return {**found, **{name: after[name] - before[name] for name in ("answered", "shadowed", "shed", "dropped")}}


def _ratios(runs: dict[str, list[dict[str, float]]], figure: str) -> list[float]:
    return [there[figure] / here[figure] for here, there in zip(runs[PLAIN], runs[SHADOWED], strict=True)]


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"
