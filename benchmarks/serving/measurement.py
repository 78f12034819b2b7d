"""Rounds of all contestants, one at a time on core 0, the load on core 1."""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks import load
from benchmarks.models import FLOATS, SEED
from benchmarks.serving import forms, process_tree, vegeta
from benchmarks.serving.contestant import Contestant, Ground
from benchmarks.serving.live import ContestantFailedError, Live, running
from benchmarks.serving.plan import QUIET_CORES, Load, Part
from benchmarks.serving.ports import low_port

WARM_UP_S, WARM_UP_CONNECTIONS = 1, 16
HALF = 0.5
TRIES = 3


@dataclass
class Found:
    """What has been measured so far.

    Attributes:
        runs: one record a closed loop. open_loops: one a fixed rate.
        skipped: why a contestant has no figures, by its name, alone or with the part; it is not tried again there.
    """

    runs: list[dict[str, Any]] = field(default_factory=list)
    open_loops: list[dict[str, Any]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def question(rows: int) -> NDArray[np.float32]:
    """Returns x: float32, (rows, 30), the same in every run."""
    return np.random.default_rng(SEED).normal(size=(rows, FLOATS)).round(6).astype(np.float32)


def truth(graph: Path, x: NDArray[np.float32]) -> forms.Values:
    """Returns what onnxruntime itself says about x: flat values by output."""
    session = onnxruntime.InferenceSession(graph)
    names = [output.name for output in session.get_outputs()]
    return {name: values.ravel() for name, values in zip(names, session.run(names, {"input": x}), strict=True)}


def constant_answer(graph: Path) -> bytes:
    """Returns an answer to one row as the server would give it, for the ceiling to send."""
    values = truth(graph, question(1))
    label, probabilities = values["label"], values["probabilities"]
    outputs = [
        {"name": "label", "shape": [1], "datatype": "INT64", "data": label.tolist()},
        {"name": "probabilities", "shape": [1, 2], "datatype": "FP32", "data": probabilities.tolist()},
    ]
    identity = "0193a2b4-0000-7000-8000-000000000000"
    answer = {"model_name": "bench", "model_version": "1", "id": identity, "outputs": outputs}
    return json.dumps(answer, separators=(",", ":")).encode()


def measure_round(
    number: int, parts: list[Part], ground: Ground, folder: Path, seconds: int, found: Found, say: Callable[[str], None]
) -> None:
    """Adds one round to what was found: every part, every contestant; every second round in the opposite order."""
    for part in parts:
        order = part.contestants if number % 2 == 0 else tuple(reversed(part.contestants))
        for who in order:
            there = f"{who.name}, part {part.name}"
            if who.name in found.skipped or there in found.skipped:
                continue
            place = folder / f"{part.name}-{number}-{part.contestants.index(who)}"
            place.mkdir()
            try:
                runs = _measure(number, part, who, ground, place, seconds, found)
            except ContestantFailedError as error:
                found.skipped[there] = str(error)
                say(f"round {number + 1}, {part.name}: {who.name} is skipped: {error}")
            else:
                rates = ", ".join(f"{run['requests_s']:,.0f}" for run in runs)
                say(f"round {number + 1}, {part.name}: {who.name}: {rates} requests/s")
            shutil.rmtree(place)  # a log of several GB would come together


def _measure(
    number: int, part: Part, who: Contestant, ground: Ground, folder: Path, seconds: int, found: Found
) -> list[dict[str, Any]]:
    """Adds what one contestant did in one part, and returns its closed loops."""
    runs: list[dict[str, Any]] = []
    port = low_port()
    began = time.monotonic()
    graph = ground.graph(part.estimator)
    with running(who, who.launch(ground, part.estimator, folder, port), port, folder, question(1)) as live:
        about = {"round": number, "part": part.name, "contestant": who.name, "start_s": time.monotonic() - began}
        live.check(who.forms[0], question(1), truth(graph, question(1)))
        warm = live.script(who.forms[0], question(1))
        with load.Load(warm, live.url, WARM_UP_CONNECTIONS, WARM_UP_S) as running_load:
            running_load.result()
        saturation = 0.0
        for wanted in part.loads:
            form = who.form(wanted.form)
            if form is None:
                continue
            x = question(wanted.rows)
            live.check(form, x, truth(graph, x))
            run = quietest(partial(_closed_loop, live, form, x, wanted, seconds))
            runs.append({**about, **run})
            saturation = max(saturation, run["requests_s"])
        if part.open_loop and (program := vegeta.find_vegeta()) is not None:
            run = quietest(partial(_open_loop, live, program, saturation * HALF, seconds))
            found.open_loops.append({**about, **run})
    found.runs += runs
    return runs


def quietest(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns the first run beside which strangers used next to nothing, or the quietest of ``TRIES``."""
    runs: list[dict[str, Any]] = []
    while not runs or (runs[-1]["others"] > QUIET_CORES and len(runs) < TRIES):
        runs.append(measure())
    return {**min(runs, key=lambda run: float(run["others"])), "tries": len(runs)}


def _closed_loop(live: Live, form: forms.Form, x: NDArray[np.float32], wanted: Load, seconds: int) -> dict[str, Any]:
    script = live.script(form, x)
    with _Used(live.process.pid) as used, load.Load(script, live.url, wanted.connections, seconds) as running_load:
        figures = running_load.result()
    return {
        "form": wanted.form,
        "rows": wanted.rows,
        "connections": wanted.connections,
        **figures,
        **used.each(figures["requests"]),
    }


def _open_loop(live: Live, program: str, rate: float, seconds: int) -> dict[str, Any]:
    form, x = live.contestant.forms[0], question(1)
    body, headers = form.body(x)
    file = live.folder / "open-loop-body"
    file.write_bytes(body)
    headers = {"Content-Type": "application/json", **headers, **live.launch.headers}
    url = live.url + live.contestant.path
    with _Used(live.process.pid) as used:
        figures = vegeta.attack(program, url, file, headers, rate, seconds, connections=64)
    return {"asked_rate": rate, **figures, **used.each(figures["requests"])}


class _Used:
    """What a contestant's processes used while the body ran, and what others took away meanwhile."""

    def __init__(self, root: int) -> None:
        self._root = root

    def __enter__(self) -> "_Used":
        self._before = self._look()
        return self

    def __exit__(self, *given: object) -> None:
        now, cpu_s, others_s, steal_s = (
            after - before for before, after in zip(self._before, self._look(), strict=True)
        )
        self._cpu_s = cpu_s
        self._figures = {
            "rss_mb": process_tree.rss_mb(process_tree.tree(self._root)),
            "others": others_s / now,
            "steal": steal_s / now / (os.cpu_count() or 1),
        }

    def _look(self) -> tuple[float, float, float, float]:
        """Returns the time, and the CPU time of the contestant, of strangers, and of the machine's host."""
        cpu_s = process_tree.cpu_s(process_tree.tree(self._root))
        # All that this program started is below it: contestant, load and broker.
        strangers_s = process_tree.busy_s() - process_tree.cpu_s(process_tree.tree(os.getpid()))
        return time.monotonic(), cpu_s, strangers_s, process_tree.steal_s()

    def each(self, requests: float) -> dict[str, float]:
        """Returns CPU a request, memory at the end, how many cores strangers used, and the part that was stolen."""
        return {"cpu_us": self._cpu_s / max(requests, 1) * 1e6, **self._figures}
