"""Python environments for clients whose dependencies clash with the server's or with each other's."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"
ENVIRONMENTS = Path(__file__).parents[2] / ".venv-clients"


class EnvironmentUnavailableError(Exception):
    """A client's environment cannot be made here."""


def client_python(requirements: Path, environments: Path = ENVIRONMENTS) -> Path:
    """Returns the interpreter of an environment that holds exactly these requirements, built when there is none yet.

    Args:
        requirements: a file of pinned versions with their hashes.
        environments: the folder that keeps environments between runs, by name and digest.

    Raises:
        EnvironmentUnavailableError: a requirement cannot be installed, as without a network.
    """
    pins = requirements.read_bytes()
    digest = hashlib.sha256(pins + sys.version.encode()).hexdigest()[:12]
    folder = environments / f"{requirements.stem}-{digest}"
    python = folder / "bin" / "python"
    environments.mkdir(exist_ok=True)
    with (environments / f"{requirements.stem}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs of the tests must not build into one folder
        if not (folder / "complete").exists():
            _build(folder, python, requirements)
            (folder / "complete").touch()
    return python


def _build(folder: Path, python: Path, requirements: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # what a killed build has left
    venv.create(folder, symlinks=True)
    # In seconds, where pip takes minutes for the three of them.
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(python), "--require-hashes"]
    done = subprocess.run([*install, "--requirement", str(requirements)], capture_output=True, text=True)
    if done.returncode != 0:
        raise EnvironmentUnavailableError(f"{requirements.stem}: uv failed: {done.stderr.strip()[-2000:]}")
