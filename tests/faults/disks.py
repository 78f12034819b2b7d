"""Faults of the disk that the log is on, and of its bound in memory."""

import errno
import random
from pathlib import Path

import httpx

from tests.faults.faulty_libc import FaultyLibc
from tests.faults.small_disk import SmallDisk
from tests.faults.stage import Stage
from tests.patience import PATIENCE_S, until

_MOST_ANSWERS = 200


def disk_filled(stage: Stage, disk: SmallDisk, rounds: int, chance: random.Random) -> None:
    """The disk has no room left for a while; the server says so, and goes on answering."""
    for _ in range(rounds):
        stage.load.more(chance.randrange(1, _MOST_ANSWERS))
        disk.fill()
        stage.load.go_on()
        _until_ready(stage, False)
        stage.load.more(chance.randrange(1, _MOST_ANSWERS))
        disk.free()
        _until_ready(stage, True)


def limit_met(stage: Stage, disk: SmallDisk, rounds: int, chance: random.Random) -> None:
    """The disk stays full until the events in memory are as many as may be; then they are shed, or requests refused."""
    for _ in range(rounds):
        stage.load.more(chance.randrange(1, _MOST_ANSWERS))
        refused, dropped = stage.load.refusals[503], stage.dropped()
        disk.fill()
        stage.load.go_on()
        if stage.blocks:
            until(lambda refused=refused: stage.load.refusals[503] > refused + 50, "refusals")
        else:
            until(lambda dropped=dropped: stage.dropped() > dropped + 50, "dropped events")
        stage.load.pause()
        disk.free()
        _until_ready(stage, True)


def disk_slowed(stage: Stage, libc: FaultyLibc, rounds: int, chance: random.Random) -> None:
    """Each write and each sync takes up to a fifth of a second longer."""
    for _ in range(rounds):
        libc.tell(write_s=chance.uniform(0, 0.02), sync_s=chance.uniform(0, 0.2))
        stage.load.more(chance.randrange(1, _MOST_ANSWERS))
        libc.tell()
        stage.load.more(1)


def disk_failing(stage: Stage, libc: FaultyLibc, rounds: int, chance: random.Random) -> None:
    """Writes and syncs fail with an input/output error for a while."""
    for _ in range(rounds):
        stage.load.more(chance.randrange(1, _MOST_ANSWERS))
        libc.tell(error=errno.EIO)
        stage.load.go_on()
        _until_ready(stage, False)
        stage.load.pause()
        libc.tell()
        _until_ready(stage, True)


def clock_moved(stage: Stage, libc: FaultyLibc, rounds: int, chance: random.Random) -> None:
    """The wall clock jumps forwards and backwards by up to a day, under load."""
    for _ in range(rounds):
        stage.load.more(chance.randrange(1, _MOST_ANSWERS))
        libc.tell(clock_s=chance.choice((-1, 1)) * chance.choice((0.5, 60.0, 3600.0, 86400.0)) * chance.random())
    libc.tell()


def _until_ready(stage: Stage, wanted: bool) -> None:
    """Returns once the server says that its log can be written, or that it cannot."""
    url = stage.server.url + "/v2/health/ready"
    until(lambda: (httpx.get(url, timeout=PATIENCE_S).status_code == 200) == wanted, f"readiness to be {wanted}")


def outbox_on(disk: SmallDisk) -> Path:
    """Returns where the log's file is on the small disk."""
    return disk.folder / "outbox.db"
