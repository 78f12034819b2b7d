"""Tools that a test needs and a machine may lack."""

import os
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Skips the test; fails it where everything must be there, as on the machine that checks each change."""
    if os.environ.get("TILTYARD_TESTS_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
