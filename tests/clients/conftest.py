"""The live server that every client's suite talks to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.live import Live, prepare, serve
from tests.server.conftest import packed as packed

# They import clients that are installed in environments of their own, and run there.
collect_ignore = ["suites"]


@pytest.fixture(scope="module")
def live(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("clients")
    prepare(packed, folder)
    with serve(folder) as running:
        yield running
