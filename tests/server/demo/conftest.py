from collections.abc import Iterator

import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from server.demo.flights import load_flights


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine scikit-learn's threads wait for each other longer than they work."""
    with threadpool_limits(limits=1, user_api="openmp"):
        yield


@pytest.fixture(scope="session")
def flights() -> pd.DataFrame:
    """The whole year, read once."""
    return load_flights()
