"""Load from wrk, and whether a server answers."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.machine import pinned

LOAD_CORE = 1
# An open end: whoever starts such a load also stops it.
LONGEST_S = 3600


@dataclass(frozen=True)
class Script:
    """What wrk posts again and again, and where."""

    file: Path
    path: str


def need_wrk() -> None:
    """Ends the program with advice where wrk is not installed."""
    if shutil.which("wrk") is None:
        sys.exit("this benchmark needs wrk: apt-get install wrk, or brew install wrk")


def post(folder: Path, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Script:
    """Returns a script that posts a body of any bytes."""
    content = folder / f"body-{abs(hash(body))}"
    content.write_bytes(body)
    lines = ["wrk.method = 'POST'", "wrk.headers['Content-Type'] = 'application/json'"]
    lines += [f"wrk.headers['{name}'] = '{value}'" for name, value in (headers or {}).items()]
    lines += [f"local file = io.open('{content}', 'rb')", "wrk.body = file:read('*a')", "file:close()"]
    script = content.with_suffix(".lua")
    script.write_text("\n".join(lines) + "\n")
    return Script(script, path)


def answers(url: str) -> bool:
    """Says whether the server at a URL is ready."""
    try:
        return httpx.get(f"{url}/v2/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def wrk(script: Script, url: str, connections: int, seconds: int, core: int | None = LOAD_CORE) -> dict[str, float]:
    """Returns requests a second, p50 and p99 of a load; any answer but a good one ends the program."""
    with Load(script, url, connections, seconds, core) as load:
        found = load.result()
    if found["failed"]:
        sys.exit(f"expected only good answers, got {found['failed']:.0f} others of {found['requests']:.0f}")
    return found


def open_loop(
    port: int, path: str, body: Path, rate: float, seconds: int, connections: int, seed: int
) -> dict[str, float]:
    """Returns what a load that does not wait for answers measured; see benchmarks/open_loop.py."""
    command = [sys.executable, "-m", "benchmarks.open_loop", str(port), path, str(body)]
    command += [str(rate), str(seconds), str(connections), str(seed)]
    done = subprocess.run(pinned(LOAD_CORE, command), stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


class Load:
    """A load that runs until it is stopped, or its seconds have passed."""

    def __init__(
        self, script: Script, url: str, connections: int, seconds: int = LONGEST_S, core: int | None = LOAD_CORE
    ) -> None:
        """core: the one that wrk is held to, None for any."""
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script.file)]
        command.append(f"{url}{script.path}")
        self._process = subprocess.Popen(
            command if core is None else pinned(core, command), stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> "Load":
        return self

    def __exit__(self, *given: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()

    def stop(self) -> dict[str, float]:
        """Ends the load now, and returns its result."""
        self._process.send_signal(signal.SIGINT)
        return self.result()

    def result(self) -> dict[str, float]:
        """Returns what wrk measured, once it has ended."""
        said, _ = self._process.communicate()
        return measured(said)


def measured(said: str) -> dict[str, float]:
    """Returns requests, failed ones among them, requests a second, and p50 and p99 in microseconds of wrk's summary."""
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    count = re.search(r"(\d+) requests in", said)
    latency = {name: re.search(rf"{name}%\s+([\d.]+)(us|ms|s)", said) for name in ("50", "99")}
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    failed = sum(map(int, broken.groups() if broken else ())) + int(bad[1] if bad else 0)
    if rate is None or count is None or latency["50"] is None or latency["99"] is None:
        sys.exit(f"expected wrk's summary, got: {said}")
    return {
        "requests": float(count[1]),
        "failed": float(failed),
        "requests_s": float(rate[1]),
        "p50_us": _microseconds(*latency["50"].groups()),
        "p99_us": _microseconds(*latency["99"].groups()),
    }


def _microseconds(value: str, unit: str) -> float:
    return float(value) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]
