"""What a server and all its children use, from /proc (Linux; nothing is found elsewhere)."""

import contextlib
import os
import signal
from pathlib import Path

PROC = Path("/proc")


def tree(root: int) -> list[int]:
    """Returns the ids of a process and all its descendants that live."""
    children: dict[int, list[int]] = {}
    for folder in PROC.glob("[0-9]*"):
        if (fields := _stat(int(folder.name))) is not None:
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found = [root] if _stat(root) is not None else []
    for process in found:  # grows while it is walked
        found += children.get(process, [])
    return found


def cpu_s(processes: list[int]) -> float:
    """Returns the CPU time that processes have used, their ended and awaited children included."""
    ticks = 0
    for process in processes:
        if (fields := _stat(process)) is not None:
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def rss_mb(processes: list[int]) -> float:
    """Returns the resident memory of processes in MB; pages that several share count for each."""
    pages = 0
    for process in processes:
        if (fields := _stat(process)) is not None:
            pages += int(fields[21])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def busy_s() -> float:
    """Returns for how long, over all cores, anything has run since the machine started."""
    user, nice, system, _, _, irq, softirq = _all_cores()[:7]
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def steal_s() -> float:
    """Returns for how long, over all cores, the machine's host has given its cores to others since it started."""
    return _all_cores()[7] / os.sysconf("SC_CLK_TCK")


def _all_cores() -> list[int]:
    text = (PROC / "stat").read_text() if (PROC / "stat").exists() else "cpu" + " 0" * 8
    return [int(field) for field in text.split("\n", 1)[0].split()[1:9]]


def kill(processes: list[int]) -> None:
    """Ends processes that live still."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _stat(process: int) -> list[str] | None:
    """Returns the fields behind the command's name, None for a process that has gone."""
    try:
        return (PROC / str(process) / "stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
