"""Requests a second and latency of the server, beside a bare uvicorn app that answers a constant.

Contestants alternate round by round, each alone on core 0, wrk on core 1: the server, the bare app,
and the server with a challenger that shadows every request. What this does not show: networks, other
models, several rows a request, other Python servers.
"""

import json
import re
import sqlite3
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.load import answers, need_wrk, post, wrk
from benchmarks.machine import free_port, median, pinned, rss_mb, running, tiltyard, wait_until
from benchmarks.models import FLOATS, SEED, pack_matrix_models
from server.contract import log_schema
from server.execution.session import load_version

CONNECTIONS = (1, 16, 64)
OURS, BARE, SHADOWED = "tiltyard", "bare uvicorn", "tiltyard, shadowed"
CONTESTANTS = (OURS, BARE, SHADOWED)
WARM_UP = {"connections": 16, "seconds": 1}
PATH = "/v2/models/bench/infer"


def steps(rounds: int) -> int:
    """Returns how often ``measure`` will call ``advance``."""
    return rounds * len(CONTESTANTS) * len(CONNECTIONS)


def measure(folder: Path, rounds: int, seconds: int, advance: Callable[[str], None]) -> dict[str, Any]:
    """Returns medians per contestant and number of connections, and the balance of answers and events."""
    need_wrk()
    plain, shadowed = folder / "plain", folder / "shadowed"
    pack_matrix_models(plain)
    pack_matrix_models(shadowed, versions=2)
    route = {"champion": "1", "challengers": [{"version": "2"}]}
    (shadowed / "bench" / "route.json").write_text(json.dumps(route))
    row = np.random.default_rng(SEED).normal(size=FLOATS).round(6)
    body = request_body(row)
    script = post(folder, PATH, body.encode())
    expected = _expected(plain, row)
    runs: list[dict[str, Any]] = []
    memory: list[float] = []
    balances: list[dict[str, float]] = []
    for round_ in range(rounds):
        for contestant in CONTESTANTS:
            port = free_port()
            url = f"http://127.0.0.1:{port}"
            outbox = folder / f"{len(runs)}.db"
            if contestant == BARE:
                command = [sys.executable, "-m", "benchmarks.bare_app", str(folder / "answer.json"), str(port)]
            else:
                models = str(shadowed if contestant == SHADOWED else plain)
                command = tiltyard("serve", "--models", models, "--outbox", str(outbox), "--port", str(port))
            log = folder / "contestant.log"
            with running(pinned(0, command), log) as process:
                wait_until(partial(answers, url), process, log)
                answer = _ask(url, body, expected)
                if contestant == OURS:
                    (folder / "answer.json").write_bytes(answer)  # the bare app answers these very bytes
                wrk(script, url, WARM_UP["connections"], WARM_UP["seconds"])
                for connections in CONNECTIONS:
                    figures = wrk(script, url, connections, seconds)
                    runs.append({"round": round_, "contestant": contestant, "connections": connections, **figures})
                    advance(f"round {round_ + 1}: {contestant}, {connections} connections")
                if contestant == OURS:
                    memory.append(rss_mb(process))
                if contestant != BARE:
                    counted = {"contestant": contestant, "round": round_, **balance(url)}
            if contestant != BARE:
                balances.append({**counted, "in_the_log": _events_in(outbox)})
                _check_balance(balances[-1])
    return {
        "seed": SEED,
        "rounds": rounds,
        "seconds": seconds,
        "warm_up": WARM_UP,
        "body_bytes": len(body),
        "answer_bytes": (folder / "answer.json").stat().st_size,
        "medians": _medians(runs),
        "rss_mb": median(memory),
        "balance": _sum(balances, OURS),
        "balance_shadowed": _sum(balances, SHADOWED),
        "runs": runs,
    }


def request_body(row: np.ndarray[Any, np.dtype[Any]]) -> str:
    """Returns a request of one row."""
    data = row.tolist()
    return json.dumps({"inputs": [{"name": "input", "shape": [1, FLOATS], "datatype": "FP32", "data": data}]})


def _expected(models: Path, row: np.ndarray[Any, np.dtype[Any]]) -> dict[str, list[Any]]:
    """Returns what the packed graph itself says about the row: values by output."""
    version = load_version(models / "bench" / "1")
    outputs = version.run({"input": row.astype(np.float32)[None, :]})
    return {name: values.ravel().tolist() for name, values in outputs.items()}


def _ask(url: str, body: str, expected: dict[str, list[Any]]) -> bytes:
    """Returns an answer's bytes, having held every value against the packed graph's."""
    response = httpx.post(f"{url}{PATH}", content=body).raise_for_status()
    got = {output["name"]: output["data"] for output in response.json()["outputs"]}
    if got.keys() != expected.keys() or any(not np.allclose(got[n], expected[n], 0, 1e-6) for n in got):
        sys.exit(f"{url}: expected {expected} as the packed graph says, got {got}")
    return response.content


def balance(url: str) -> dict[str, float]:
    """Returns answers and events as the server counts them, once the shadows ran and the last group is committed."""
    found, last = _counts(url), {}
    while found["backlog"] or found != last:
        last, found = found, _counts(url)
    return found


def _counts(url: str) -> dict[str, float]:
    text = httpx.get(f"{url}/metrics").text

    def total(pattern: str) -> float:
        return sum(float(value) for value in re.findall(rf"^{pattern} (\S+)$", text, re.MULTILINE))

    return {
        # 499 is a client that had gone, as wrk's do at the end of a round: it was not answered.
        "answered": total(r'tiltyard_requests_total{code="(?!499)[^}]*role="champion"[^}]*}'),
        "shadowed": total(r'tiltyard_requests_total{code="200",[^}]*role="shadow"[^}]*}'),
        "shed": total(r'tiltyard_requests_total{code="503",[^}]*role="shadow"[^}]*}'),
        "audits": total("tiltyard_audits_total"),
        "logged": total(r'tiltyard_events_total{outcome="logged"}'),
        "dropped": total(r'tiltyard_events_total{outcome="dropped"}'),
        "backlog": total("tiltyard_event_backlog"),
    }


def _events_in(outbox: Path) -> int:
    """Returns how many events the file itself holds, read once its writer has ended."""
    connection = sqlite3.connect(outbox)
    try:
        return int(connection.execute(log_schema.SELECT_BOUNDS).fetchone()[1])
    finally:
        connection.close()


def _check_balance(found: dict[str, float]) -> None:
    made = found["answered"] + found["shadowed"] + found["shed"] + found["audits"]
    if made != found["logged"] + found["dropped"] or found["logged"] != found["in_the_log"]:
        sys.exit(f"expected every answer in the log or counted as dropped, got {found}")


def _sum(balances: list[dict[str, float]], contestant: str) -> dict[str, float]:
    names = ("answered", "shadowed", "shed", "audits", "logged", "dropped", "in_the_log")
    return {name: sum(found[name] for found in balances if found["contestant"] == contestant) for name in names}


def _medians(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for connections in CONNECTIONS:
        by = {
            name: [run for run in runs if run["contestant"] == name and run["connections"] == connections]
            for name in CONTESTANTS
        }
        row: dict[str, Any] = {"connections": connections}
        for name, found in by.items():
            row[name] = {
                figure: median([run[figure] for run in found]) for figure in ("requests_s", "p50_us", "p99_us")
            }
            rates = [run["requests_s"] for run in found]
            row[name].update(lowest=min(rates), highest=max(rates))
            ratios = [run["requests_s"] / bare["requests_s"] for run, bare in zip(found, by[BARE], strict=True)]
            row[name].update(ratio=median(ratios), ratios=ratios)
        rows.append(row)
    return rows
