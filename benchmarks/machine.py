"""What a figure was measured on, and small tools that all measurements share."""

import hashlib
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("onnxruntime", "uvicorn", "uvloop", "httptools", "msgspec", "starlette", "numpy")
START_S = 60.0
ROOT = Path(__file__).parents[1]
MEASURED = ("server", "monitor")


def describe() -> dict[str, str]:
    """Returns the machine and the versions."""
    cpu = next(
        (line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor()
    )
    return {
        "cpu": f"{cpu}, {os.cpu_count()} cores",
        "system": platform.platform(),
        "sources": sources_digest(),
        "load": f"{os.getloadavg()[0]:.2f} before the run",
        "pinning": "taskset" if shutil.which("taskset") else "none: taskset is not installed",
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }


def pinned(core: int, command: list[str]) -> list[str]:
    """Returns a command held to one core, where the system can do that."""
    return ["taskset", "-c", str(core), *command] if shutil.which("taskset") else command


def tiltyard(*arguments: str) -> list[str]:
    """Returns the command line of a subcommand, run by this interpreter."""
    return [sys.executable, "-m", "server.cli", *arguments]


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command while the body runs, its output in a file, and ends it."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, pause_s: float = 0.005) -> None:
    """Returns once ready() is true; a process that ends before, or takes too long, is an error with its log."""
    deadline = time.perf_counter() + START_S
    while not ready():
        if process.poll() is not None or time.perf_counter() > deadline:
            sys.exit(f"{process.args!r} is not ready: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(pause_s)


def rss_mb(process: subprocess.Popen[bytes]) -> float:
    """Returns a process's resident memory in MB (Linux)."""
    status = Path(f"/proc/{process.pid}/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return float("nan")


def sources_digest() -> str:
    """Returns a digest of the code that is measured: figures of code that changed meanwhile are of no code at all."""
    digest = hashlib.sha256()
    for package in MEASURED:
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def free_port() -> int:
    """Returns a port of 127.0.0.1 that nothing listens on: never measure somebody else's server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def this_process_pinned(core: int) -> Iterator[None]:
    """Holds this process to one core while the body runs, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def bystanders(pids: list[int]) -> Iterator[list[float]]:
    """Gives a list that has, once the body has run, how many cores' time went to others than these processes,
    this one and the children that it waited for (Linux; NaN elsewhere)."""
    found: list[float] = []
    began, before = time.perf_counter(), _others_s(pids)
    yield found
    found.append((_others_s(pids) - before) / (time.perf_counter() - began))


def _others_s(pids: list[int]) -> float:
    total = Path("/proc/stat")
    if not total.exists():
        return float("nan")
    tick = os.sysconf("SC_CLK_TCK")
    user, nice, system, _, _, irq, softirq = map(int, total.read_text().split("\n", 1)[0].split()[1:8])
    own = 0
    for pid in (os.getpid(), *pids):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        own += sum(map(int, fields[11:13]))  # its user and system time
        own += sum(map(int, fields[13:15])) if pid == os.getpid() else 0  # and its children's
    return (user + nice + system + irq + softirq - own) / tick


def end_cleanly_when_terminated() -> None:
    """Makes SIGTERM unwind like Ctrl-C, so that what was started is ended and temporary files go."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("benchmarks: terminated"))


def median(values: list[float]) -> float:
    """Returns the median."""
    return statistics.median(values)


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
