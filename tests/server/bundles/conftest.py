"""Stores of every kind, empty."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.bundles.places import Folder, Memory, Place, Web


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """An empty store behind a local HTTP server."""
    made = Web(tmp_path)
    yield made
    made.close()


@pytest.fixture(params=["folder", "memory", "http"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty store of every kind."""
    if request.param == "http":
        return request.getfixturevalue("web")  # type: ignore[no-any-return]  # pytest does not say
    return Folder(tmp_path) if request.param == "folder" else Memory(tmp_path)
