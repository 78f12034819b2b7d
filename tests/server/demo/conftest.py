import pandas as pd
import pytest

from server.demo.flights import load_flights


@pytest.fixture(scope="session")
def flights() -> pd.DataFrame:
    """The whole year, read once."""
    return load_flights()
