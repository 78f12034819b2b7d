"""The demo as a user starts it: the command, real flights, a real server and monitor."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from server.demo.processes import free_port

DEMO = [sys.executable, "-m", "server.cli", "demo", "--flights", "2000"]


def arguments(folder: Path) -> list[str]:
    return ["--folder", str(folder), "--port", str(free_port(0)), "--monitor-port", str(free_port(0))]


def test_ends_after_the_table_with_status_0(tmp_path: Path) -> None:
    """`--exit` replays the year, prints a row a month and says who won, and leaves no process behind."""
    run = subprocess.run([*DEMO, "--exit", *arguments(tmp_path / "demo")], capture_output=True, text=True, timeout=120)

    assert (run.returncode, run.stderr) == (0, "")
    rows = re.findall(r"^ (Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +(\d+) ", run.stdout, re.MULTILINE)
    assert len(rows) == 10
    assert sum(int(flights) for _, flights in rows) in range(1990, 2001)
    assert "The challenger (gradient boosting) had the higher AUC in" in run.stdout
    assert "server and monitor have stopped cleanly" in run.stdout


def test_a_stop_from_outside_stops_server_and_monitor(tmp_path: Path) -> None:
    """Asked to end while it stays up, the demo ends its two commands first and then itself, with status 0."""
    ports = arguments(tmp_path / "demo")
    with subprocess.Popen([*DEMO, *ports], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if "Ctrl-C stops both" in line:
                break
        run.send_signal(signal.SIGINT)
        rest = run.stdout.read()

    assert (run.returncode, rest.strip()) == (0, "server and monitor have stopped cleanly")
    for port in (int(ports[3]), int(ports[5])):
        assert free_port(port) == port


@pytest.mark.parametrize("name", ["precious.txt", ".git"])
def test_never_deletes_a_folder_that_is_not_its_own(tmp_path: Path, name: str) -> None:
    """A folder with anything of the user's in it is refused and left as it was."""
    (tmp_path / name).touch()

    run = subprocess.run([*DEMO, "--exit", "--folder", str(tmp_path)], capture_output=True, text=True, timeout=60)

    assert run.returncode == 1
    assert "expected none or one of an earlier demo" in " ".join(run.stdout.split())
    assert os.listdir(tmp_path) == [name]
