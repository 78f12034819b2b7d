"""The environments that peers run in."""

import subprocess
from pathlib import Path

import pytest

from benchmarks.serving import environments


def test_an_environment_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is built is said; the same requirements find it again, others do not."""
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    (tmp_path / "peer.txt").write_text("")
    said: list[str] = []

    first = environments.peer_python("peer", said.append, tmp_path / "kept")
    again = environments.peer_python("peer", said.append, tmp_path / "kept")
    (tmp_path / "peer.txt").write_text("# other\n")
    other = environments.peer_python("peer", said.append, tmp_path / "kept")

    prefix = subprocess.run([first, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True)
    assert Path(prefix.stdout.strip()) == first.parents[1]
    assert first == again != other
    assert [text.split(":")[0] for text in said] == ["peer", "peer"]


def test_an_environment_that_cannot_be_built_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason names the peer and what could not be installed, and the next try starts afresh."""
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    (tmp_path / "peer.txt").write_text("./no-such-folder\n")

    for _ in range(2):
        with pytest.raises(environments.EnvironmentUnavailableError, match=r"(?s)^peer: .*no-such-folder"):
            environments.peer_python("peer", lambda text: None, tmp_path / "kept")
