"""A Python environment for each peer, built when it is first needed: their requirements clash with each other's."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"
ENVIRONMENTS = Path(__file__).parent / ".environments"


class EnvironmentUnavailableError(Exception):
    """A peer's environment cannot be made here."""


def peer_python(name: str, say: Callable[[str], None], environments: Path = ENVIRONMENTS) -> Path:
    """Returns the interpreter of an environment that holds exactly a peer's requirements.

    Args:
        name: that of the peer's file in ``requirements``.
        say: told when something is built, which takes up to some minutes and a gigabyte.
        environments: the folder that keeps environments between runs, by name and digest.

    Raises:
        EnvironmentUnavailableError: a requirement cannot be installed, as without a network.
    """
    requirements = REQUIREMENTS / f"{name}.txt"
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = environments / f"{name}-{digest}"
    python = folder / "bin" / "python"
    environments.mkdir(parents=True, exist_ok=True)
    with (environments / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs must not build into one folder
        if not (folder / "complete").exists():
            pins = len(requirements.read_text().splitlines())
            say(f"{name}: installing {pins} packages into {folder}")
            shutil.rmtree(folder, ignore_errors=True)  # what a killed build has left
            _uv(name, "venv", "--quiet", "--python", sys.executable, str(folder))
            _uv(name, "pip", "install", "--quiet", "--python", str(python), "--requirement", str(requirements))
            (folder / "complete").touch()
    return python


def _uv(name: str, *arguments: str) -> None:
    command = [str(Path(sys.executable).with_name("uv")), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise EnvironmentUnavailableError(f"{name}: uv {arguments[0]} failed: {done.stdout.strip()[-1000:]}")
