"""A server to command: its model `flight-delay` has 1 as champion, 2 as shadow, 3 with 5 %, at revision 7."""

from collections.abc import Iterator

import pytest

from tests.server.routes.admin_double import Double


@pytest.fixture
def double() -> Iterator[Double]:
    """The server itself, for what only a test may do to it."""
    double = Double()
    double.start()
    yield double
    double.stop()


@pytest.fixture
def admin_url(double: Double) -> str:
    """Where it answers, to whoever asks."""
    return double.url
