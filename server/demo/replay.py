"""Sends the flights in the order they happened, and each label when the flight had arrived."""

import http.client
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from server.demo.flights import FEATURES, TARGET
from server.demo.training import MODEL, TRAINED_UNTIL
from server.errors import TiltyardError

HOUR_S = 3600
CONNECTIONS = 8

_encoder = msgspec.json.Encoder()


class ReplayError(TiltyardError):
    """The server did not accept a flight or a label."""


@dataclass(frozen=True, slots=True)
class Step:
    """One hour of the past: predictions asked at its flights' departures, labels of its arrivals."""

    until: datetime
    predictions: list[bytes]
    labels: list[bytes]


@dataclass(slots=True)
class Progress:
    """How far the replay is."""

    moment: datetime
    flights: int = 0
    labels: int = 0


def choose_flights(flights: pd.DataFrame, count: int) -> pd.DataFrame:
    """Returns about ``count`` flights after the training period, evenly spread over the rest of the year."""
    later = flights[flights["departure"] >= TRAINED_UNTIL].reset_index(drop=True)
    if count >= len(later):
        return later
    return later.iloc[np.linspace(0, len(later) - 1, count).astype(np.int64)].reset_index(drop=True)


def steps_of(flights: pd.DataFrame) -> Iterator[Step]:
    """Yields the hours in order, the last ones with labels alone; quiet hours are left out."""
    late = flights[TARGET].tolist()
    departures, arrivals = _seconds(flights["departure"]), _seconds(flights["arrival"])
    asked = _by_hour(departures)
    known = _by_hour(arrivals)
    rows = _rows(flights)
    for hour in sorted(asked.keys() | known.keys()):
        predictions = [
            _encoder.encode({"id": f"flight-{i}", "parameters": {"time": _time(departures[i])}, "rows": [rows[i]]})
            for i in asked.get(hour, ())
        ]
        labels = [
            _encoder.encode({"id": f"flight-{i}", "label": bool(late[i]), "time": _time(arrivals[i])})
            for i in known.get(hour, ())
        ]
        yield Step(until=_time((hour + 1) * HOUR_S), predictions=predictions, labels=labels)


class Replayer:
    """A handful of connections that ask the server, hour after hour."""

    def __init__(self, host: str, port: int, speed: float, pool: ThreadPoolExecutor) -> None:
        """speed: seconds of the past per second of now; 0 is as fast as the server answers."""
        self._host = host
        self._port = port
        self._speed = speed
        self._pool = pool
        self._local = threading.local()

    def run(self, flights: pd.DataFrame, tell: Callable[[Progress], None]) -> Progress:
        """Replays the flights and returns how far it came, all of it unless an error ends it.

        Raises:
            ReplayError: the server refused a flight or a label.
        """
        first = _time(_seconds(flights["departure"])[0])
        progress = Progress(moment=first)
        started = time.monotonic()
        in_flight: deque[Future[None]] = deque()
        for step in steps_of(flights):
            if self._speed:
                due = started + (step.until - first).total_seconds() / self._speed
                time.sleep(max(0.0, due - time.monotonic()))
            for _ in self._pool.map(self._ask, step.predictions):
                progress.flights += 1
            if step.labels:
                in_flight.append(self._pool.submit(self._send_labels, step.labels))
            while len(in_flight) > CONNECTIONS // 2:
                in_flight.popleft().result()
            progress.labels += len(step.labels)
            progress.moment = step.until
            tell(progress)
        for labels in in_flight:
            labels.result()
        return progress

    def _ask(self, body: bytes) -> None:
        self._post(f"/v1/models/{MODEL}/predict", body, 200)

    def _send_labels(self, labels: list[bytes]) -> None:
        self._post("/v1/feedback", b"\n".join(labels), 202)

    def _post(self, path: str, body: bytes, expected: int) -> None:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = http.client.HTTPConnection(self._host, self._port, timeout=30)
        try:
            connection.request("POST", path, body, {"content-type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ReplayError(f"POST {path}: expected an answer, got: {error}") from error
        if response.status != expected:
            raise ReplayError(f"POST {path}: expected status {expected}, got {response.status}: {answer[:300]!r}")


def _seconds(moments: "pd.Series[Any]") -> list[int | None]:
    """Returns UTC times as whole seconds since 1970, None where missing."""
    seconds = (moments - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(seconds=1)
    return [None if pd.isna(value) else int(value) for value in seconds.tolist()]


def _time(seconds: int | None) -> datetime:
    assert seconds is not None
    return datetime.fromtimestamp(seconds, UTC)


def _by_hour(seconds: list[int | None]) -> dict[int, list[int]]:
    """Returns which flights fall into each hour since 1970, those without a time left out."""
    hours: dict[int, list[int]] = {}
    for place, value in enumerate(seconds):
        if value is not None:
            hours.setdefault(value // HOUR_S, []).append(place)
    return hours


def _rows(flights: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns every flight's features as JSON has them: a missing number is null."""
    table = flights[FEATURES].astype(object)
    names = [str(name) for name in table.columns]
    values = table.where(table.notna(), None).to_numpy().tolist()
    return [dict(zip(names, row, strict=True)) for row in values]
