"""The environments that clients run in."""

import subprocess
from pathlib import Path

import pytest

from tests.clients.environment import EnvironmentUnavailableError, client_python


def test_environment_is_built_once(tmp_path: Path) -> None:
    """An environment is its own, is kept for the same requirements, and is another for others."""
    requirements = tmp_path / "nothing.txt"
    requirements.write_text("")

    python = client_python(requirements, tmp_path / "kept")
    (python.parent / "mark").touch()
    again = client_python(requirements, tmp_path / "kept")
    requirements.write_text("# other")
    other = client_python(requirements, tmp_path / "kept")

    prefix = subprocess.run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True)
    assert python.parents[1] == Path(prefix.stdout.strip())
    assert python == again
    assert (again.parent / "mark").exists()
    assert python != other
    assert not (other.parent / "mark").exists()


def test_environment_that_cannot_be_built(tmp_path: Path) -> None:
    """Requirements that cannot be installed are an error that says why, and the next try starts afresh."""
    requirements = tmp_path / "broken.txt"
    requirements.write_text("./no-such-folder")

    for _ in range(2):
        with pytest.raises(EnvironmentUnavailableError, match="no-such-folder"):
            client_python(requirements, tmp_path / "kept")
