"""``python -m tests.faults``: plays every fault, prints its balance, and writes the table to tests/faults/results/."""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.faults import table
from tests.faults.balance import Balance
from tests.faults.catalogue import FAULTS, Fault, Past, Scene
from tests.faults.kafkas import Kafkas
from tests.faults.models import pack_models
from tests.faults.unavailable import UnavailableError


def main() -> int:
    """Plays the faults that are asked for; returns 1 when one of them broke a promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--rounds", type=int, help="rounds of each fault [50, 20 where a broker restarts]")
    parser.add_argument("--seed", type=int, default=1, help="of everything left to chance [1]")
    parser.add_argument("--only", action="append", default=[], help="a fault, or all whose names have this part [all]")
    options = parser.parse_args()
    names = [fault.name for fault in FAULTS]
    chosen = [fault for fault in FAULTS if _asked(fault.name, options.only, names)]
    balances: list[Balance] = []
    broken = 0
    with tempfile.TemporaryDirectory(prefix="tiltyard-faults-") as name, ExitStack() as stack:
        kafkas = Kafkas(Path(name), stack)
        past: list[Past] = []
        models = pack_models(Path(name) / "models")
        for number, fault in enumerate(chosen):
            folder = Path(name) / str(number)
            folder.mkdir()
            try:
                scene = Scene(folder, models, options.rounds or fault.many, options.seed, kafkas, past)
                balances.append(_play(fault, scene))
            except UnavailableError as error:
                sys.stdout.write(f"{fault.name}: skipped: {error}\n")
            except AssertionError as error:
                broken += 1
                sys.stdout.write(f"{fault.name}: BROKEN: {error}\n")
            sys.stdout.flush()
            shutil.rmtree(folder, ignore_errors=True)
    table.write(balances, names)
    return 1 if broken else 0


def _asked(name: str, only: Sequence[str], names: Sequence[str]) -> bool:
    return not only or any(part == name if part in names else part in name for part in only)


def _play(fault: Fault, scene: Scene) -> Balance:
    with scene.stack:
        balance = fault.play(fault.name, scene)
    sys.stdout.write(f"{balance}\n")
    balance.check()
    return balance


if __name__ == "__main__":
    sys.exit(main())
