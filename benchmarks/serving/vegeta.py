"""An open loop from vegeta: requests at a fixed rate, however slowly they are answered."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.load import LOAD_CORE
from benchmarks.machine import pinned

ADVICE = "go install github.com/tsenart/vegeta/v12@latest"
GO_BIN = Path.home() / "go" / "bin"


def find_vegeta() -> str | None:
    """Returns vegeta's program, None where it is not installed."""
    return shutil.which("vegeta", path=os.pathsep.join([os.environ.get("PATH", os.defpath), str(GO_BIN)]))


def attack(
    program: str, url: str, body: Path, headers: dict[str, str], rate: float, seconds: int, connections: int
) -> dict[str, float]:
    """Returns what an attack measured, see ``parse``, and how many cores the load itself used.

    Args:
        rate: requests a second, rounded to a whole number, at least 1.
        connections: kept open at most; requests beyond wait in vegeta and count as waiting.
    """
    target = "\n".join([f"POST {url}", *(f"{name}: {value}" for name, value in headers.items()), f"@{body}"])
    command = [program, "attack", f"-rate={max(1, round(rate))}/s", f"-duration={seconds}s", "-timeout=10s"]
    # Without a limit of 0 it would keep and hand on the answers' bodies, which costs the load's core.
    command += [f"-connections={connections}", f"-max-connections={connections}", "-max-body=0"]
    before = _children_s()
    sent = subprocess.run(pinned(LOAD_CORE, command), input=target.encode(), stdout=subprocess.PIPE, check=True)
    load_cores = (_children_s() - before) / seconds
    report = [program, "report", "-type=json"]
    said = subprocess.run(report, input=sent.stdout, stdout=subprocess.PIPE, check=True)
    return {**parse(json.loads(said.stdout)), "load_cores": load_cores}


def _children_s() -> float:
    """Returns the CPU time of all ended children of this process."""
    times = os.times()
    return times.children_user + times.children_system


def parse(report: dict[str, Any]) -> dict[str, float]:
    """Returns rate sent, requests, failures, and p50 and p99 in microseconds of vegeta's report."""
    latencies = report["latencies"]
    return {
        "requests": float(report["requests"]),
        "failed": float(round(report["requests"] * (1 - report["success"]))),
        "rate": float(report["rate"]),
        "p50_us": latencies["50th"] / 1e3,
        "p99_us": latencies["99th"] / 1e3,
    }
