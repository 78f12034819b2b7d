"""Whatever happens to server, log and monitor: nothing that was promised is lost, and nothing is counted twice."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.catalogue import FAULTS, Fault, Past, Scene
from tests.faults.kafkas import Kafkas
from tests.faults.models import pack_models
from tests.faults.unavailable import ForbiddenError, UnavailableError
from tests.required import missing

pytestmark = pytest.mark.skipif(
    not Path("/proc/self").exists(), reason="finds processes in /proc, which this system does not have"
)

_SEED = 17
FEW = [fault for fault in FAULTS if fault.few]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundles that all faults are tried on."""
    return pack_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def kafkas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafkas]:
    """The brokers that faults of Kafka are tried on."""
    with ExitStack() as stack:
        yield Kafkas(tmp_path_factory.mktemp("kafkas"), stack)


@pytest.fixture(scope="module")
def past() -> list[Past]:
    """A log that was served, once the first fault has asked for one."""
    return []


@pytest.mark.parametrize("fault", FEW, ids=[fault.name for fault in FEW])
def test_the_balance_holds(fault: Fault, models: Path, kafkas: Kafkas, past: list[Past], tmp_path: Path) -> None:
    """Nothing is lost beyond what `async` states, nothing counted twice, and the findings are the undisturbed ones."""
    scene = Scene(tmp_path, models, fault.few, _SEED, kafkas, past)
    with scene.stack:
        try:
            balance = fault.play(fault.name, scene)
        except ForbiddenError as error:
            pytest.skip(str(error))  # nothing that could be installed would help
        except UnavailableError as error:
            missing(str(error))

    sys.stdout.write(f"{balance}\n")
    balance.check()
