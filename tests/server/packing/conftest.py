import numpy as np
import pandas as pd
import pytest


@pytest.fixture(scope="session")
def table() -> pd.DataFrame:
    """300 rows with every kind of column and a target for every task.

    ``word`` and ``amount`` have gaps, ``place``, ``size``, ``length`` and ``flag`` none.
    """
    random = np.random.default_rng(7)
    rows = 300
    table = pd.DataFrame(
        {
            "place": random.choice(["north", "south", "west"], rows),
            "word": random.choice(["red", "green", None], rows),
            "size": random.integers(0, 9, rows),
            "length": random.normal(10, 3, rows).round(2),
            "amount": np.where(random.random(rows) < 0.1, np.nan, random.normal(size=rows).round(3)),
            "flag": random.random(rows) < 0.4,
        }
    )
    strength = table["length"] + table["size"] + random.normal(size=rows)
    table["yes"] = (strength > 14).to_numpy()
    table["number"] = table["yes"].astype(int)
    table["verdict"] = np.where(strength > 16, "high", np.where(strength > 12, "middle", "low"))
    table["level"] = np.digitize(strength, [12, 16])
    table["price"] = 100 * strength
    table["at"] = pd.date_range("2024-01-01", periods=rows, freq="h", tz="UTC")
    return table
