"""Requests a second and latency of the server, beside a bare uvicorn app that answers a constant.

Contestants alternate round by round, each alone on core 0, wrk on core 1. What this does not show:
networks, other models, several rows a request, other Python servers.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.machine import median, pinned, rss_mb, running, tiltyard, wait_until
from benchmarks.models import FLOATS, SEED, pack_matrix_models

CONNECTIONS = (1, 16, 64)
PORT = 18_080
PATH = "/v2/models/bench/infer"


def measure(folder: Path, rounds: int, seconds: int) -> dict[str, Any]:
    """Returns medians per contestant and number of connections, and the balance of answers and events."""
    if shutil.which("wrk") is None:
        sys.exit("the serving benchmark needs wrk: apt-get install wrk, or brew install wrk")
    pack_matrix_models(folder / "models")
    body = _request_body()
    script = folder / "post.lua"
    script.write_text(f"wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\nwrk.body = '{body}'\n")
    answer, runs = None, []
    memory, balance = 0.0, {}
    for round_ in range(rounds):
        for contestant in ("tiltyard", "bare uvicorn"):
            if contestant == "tiltyard":
                outbox = folder / f"outbox-{round_}.db"
                command = tiltyard(
                    "serve", "--models", str(folder / "models"), "--outbox", str(outbox), "--port", str(PORT)
                )
            else:
                (folder / "answer.json").write_text(json.dumps(answer))
                command = [sys.executable, "-m", "benchmarks.bare_app", str(folder / "answer.json"), str(PORT)]
            log = folder / "contestant.log"
            with running(pinned(0, command), log) as process:
                wait_until(_answers, process, log)
                got = _ask(body)
                answer = answer or got
                if got["outputs"] != answer["outputs"]:
                    sys.exit(f"{contestant}: expected {answer['outputs']}, got {got['outputs']}")
                _wrk(script, 16, 1)  # warm-up
                for connections in CONNECTIONS:
                    figures = _wrk(script, connections, seconds)
                    runs.append({"round": round_, "contestant": contestant, "connections": connections, **figures})
                if contestant == "tiltyard":
                    memory, balance = rss_mb(process), _balance()
    return {
        "seed": SEED,
        "rounds": rounds,
        "seconds": seconds,
        "body_bytes": len(body),
        "medians": _medians(runs),
        "rss_mb": memory,
        "balance": balance,
        "runs": runs,
    }


def _request_body() -> str:
    row = np.random.default_rng(SEED).normal(size=FLOATS).round(6).tolist()
    return json.dumps({"inputs": [{"name": "input", "shape": [1, FLOATS], "datatype": "FP32", "data": row}]})


def _answers() -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{PORT}/v2/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def _ask(body: str) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.post(f"http://127.0.0.1:{PORT}{PATH}", content=body).raise_for_status().json()
    return answer


def _wrk(script: Path, connections: int, seconds: int) -> dict[str, float]:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script)]
    run = subprocess.run(
        pinned(1, [*command, f"http://127.0.0.1:{PORT}{PATH}"]), capture_output=True, text=True, check=True
    )
    if "Non-2xx" in run.stdout or "Socket errors" in run.stdout:
        sys.exit(f"expected only good answers, got: {run.stdout}")
    latency = {
        name: _microseconds(*re.search(rf"{name}%\s+([\d.]+)(us|ms|s)", run.stdout).groups())  # type: ignore[union-attr]
        for name in ("50", "99")
    }
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", run.stdout).group(1))  # type: ignore[union-attr]
    return {"requests_s": rate, "p50_us": latency["50"], "p99_us": latency["99"]}


def _microseconds(value: str, unit: str) -> float:
    return float(value) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]


def _balance() -> dict[str, float]:
    """Returns answers and events as the server counts them, once the last group is committed."""

    def read() -> dict[str, float]:
        text = httpx.get(f"http://127.0.0.1:{PORT}/metrics").text
        total = lambda pattern: sum(float(value) for value in re.findall(rf"^{pattern} (\S+)$", text, re.MULTILINE))  # noqa: E731
        return {
            "answered": total(r"tiltyard_requests_total{.*}"),
            "logged": total(r'tiltyard_events_total{outcome="logged"}'),
            "dropped": total(r'tiltyard_events_total{outcome="dropped"}'),
            "backlog": total("tiltyard_event_backlog"),
        }

    found = read()
    while found["backlog"]:
        found = read()
    if found["answered"] != found["logged"] + found["dropped"]:
        sys.exit(f"expected every answer logged or counted as dropped, got {found}")
    return found


def _medians(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for connections in CONNECTIONS:
        by = {
            name: [run for run in runs if run["contestant"] == name and run["connections"] == connections]
            for name in ("tiltyard", "bare uvicorn")
        }
        ratios = [
            ours["requests_s"] / bare["requests_s"]
            for ours, bare in zip(by["tiltyard"], by["bare uvicorn"], strict=True)
        ]
        row: dict[str, Any] = {"connections": connections, "ratio": median(ratios)}
        for name, found in by.items():
            row[name] = {
                figure: median([run[figure] for run in found]) for figure in ("requests_s", "p50_us", "p99_us")
            }
        rows.append(row)
    return rows
