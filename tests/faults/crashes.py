"""Faults that end a process as a power cut ends it: kill -9 at a moment that nobody chose."""

import os
import random
import signal

from tests.faults.stage import Stage
from tests.patience import until

_MOST_ANSWERS = 60


def server_killed(stage: Stage, rounds: int, chance: random.Random) -> None:
    """The process that writes the log, or with several workers the supervisor, is killed and started again."""
    for _ in range(rounds):
        stage.load.more(chance.randrange(1, _MOST_ANSWERS))
        stage.crash_server()


def worker_killed(stage: Stage, rounds: int, chance: random.Random) -> None:
    """One of several workers is killed; its supervisor replaces it."""
    for _ in range(rounds):
        stage.load.more(chance.randrange(1, _MOST_ANSWERS))
        until(stage.server.workers, "a worker")
        os.kill(chance.choice(stage.server.workers()), signal.SIGKILL)


def monitor_killed(stage: Stage, rounds: int, chance: random.Random) -> None:
    """The monitor is killed while it reads, and goes on from its state."""
    for _ in range(rounds):
        stage.load.more(chance.randrange(1, _MOST_ANSWERS))
        stage.crash_monitor()


def both_killed(stage: Stage, rounds: int, chance: random.Random) -> None:
    """Server and monitor are killed in the same moment."""
    for _ in range(rounds):
        stage.load.more(chance.randrange(1, _MOST_ANSWERS))
        stage.kill_server()
        stage.crash_monitor()
        stage.start_server()
        stage.load.release()
