"""Two servers that differ in nothing but their lane, and what both make of the same bytes."""

import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.lanes.raw import LAST, Connection, Step, statuses
from tests.server.live_server import Running

ALIKE_WITHIN_S = 5.0
"""How long a count or an event may come after its answer."""

_UUID7 = rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"
_ANSWER_OWN = (
    (re.compile(rb"\r\ndate: [^\r]+"), b"\r\ndate: DATE"),
    (re.compile(_UUID7), b"UUID"),
    # Seconds until a token has a request again: one may have passed.
    (re.compile(rb"\r\nretry-after: \d{3,}\r\n"), b"\r\nretry-after: LONG\r\n"),
)
_EVENT_OWN = (
    (re.compile(rb'"time":"20[2-9][^"]+"'), b'"time":"NOW"'),
    (re.compile(rb'"latency_us":\d+'), b'"latency_us":0'),
    # Of a request without an id the bucket follows from the generated one.
    (re.compile(rb'("subject":"' + _UUID7 + rb'".*?)"bucket":[0-9.e-]+'), rb'\1"bucket":0'),
    (re.compile(_UUID7), b"UUID"),
)
# Whether the end of a connection finds a request begun or still waiting for its turn is a matter of moments.
_GONE = 'code="499"'
_PREDICTION = b'"type":"tiltyard.prediction.v1"'
_SERIES = re.compile(
    r"^(tiltyard_(?:requests_total|request_seconds_count|queue_seconds_count|batch_rows_sum|fallbacks_total"
    r"|feedback_total|audits_total|events_total|event_backlog)(?:\{.*\})?) (\S+)$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Said:
    """What a server sent over a connection, without what differs from one request to its like."""

    text: bytes

    @property
    def outline(self) -> str:
        """Returns the statuses, and whether the connection was still open at the end: `200 404 open`."""
        found = statuses(self.text)
        is_open = self.text.endswith(b'{"live":true}')
        return " ".join([*map(str, found[:-1] if is_open else found), "open" if is_open else "closed"])


@dataclass(frozen=True)
class Seen:
    """Events as they stand in the log, without what is every event's own, and counts by their series."""

    events: list[bytes]
    counts: dict[str, float]


@dataclass
class Lane:
    """One server: its connections, its log as far as it was read, its counts."""

    running: Running
    trust: Path | None = None
    _events: list[bytes] = field(default_factory=list)
    _asides: list[bytes] = field(default_factory=list)
    _offset: int = 0
    _counts: dict[str, float] = field(default_factory=dict)
    _before: dict[str, float] = field(default_factory=dict)

    @property
    def port(self) -> int:
        port = self.running.client.base_url.port
        assert port is not None
        return port

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        connection = Connection(self.port, self.trust)
        with closing(connection.socket):
            yield connection

    def converse(self, steps: tuple[Step, ...], answers: int, last: bytes) -> Said:
        """Returns what comes back for these steps; once so many answers have begun, `last` is sent."""
        with self.connection() as connection:
            connection.take(*steps)
            connection.wait_for_answers(answers)
            connection.take(last)
            return self.said(connection)

    def said(self, connection: Connection) -> Said:
        """Returns everything that came over a connection, which the server ends."""
        return Said(without(_ANSWER_OWN, connection.rest()))

    def look(self) -> Seen | None:
        """Returns what was logged and counted since the last ``forget``; None while events wait for their commit."""
        found = _SERIES.findall(self.running.client.get("/metrics").text)
        counts = {series: float(value) for series, value in found if _GONE not in series}
        if counts["tiltyard_event_backlog"]:
            return None
        self._read()
        self._counts = counts
        answered = {
            series: value - self._before.get(series, 0)
            for series, value in counts.items()
            if series.startswith("tiltyard_requests_total") and 'role="shadow"' not in series
        }
        return Seen(list(self._events), {series: value for series, value in answered.items() if value})

    def look_at_all(self) -> Seen | None:
        """Returns all counts and, in no order, the events that come when they like: shadows and changes."""
        return None if self.look() is None else Seen(sorted(self._asides), self._counts)

    def forget(self) -> None:
        """Begins to look anew."""
        self._events, self._before = [], self._counts

    def _read(self) -> None:
        """Reads on in the log."""
        with closing(sqlite3.connect(f"file:{self.running.outbox}?mode=ro", uri=True)) as connection:
            rows = connection.execute(
                "SELECT count, payload FROM chunks WHERE first_offset >= ? ORDER BY first_offset", (self._offset,)
            ).fetchall()
        for count, payload in rows:
            self._offset += count
            for line in payload.splitlines():
                plain = without(_EVENT_OWN, line)
                (self._events if _PREDICTION in line else self._asides).append(plain)


class Pair:
    """The reference, which answers in ASGI, and the fast lane."""

    def __init__(self, reference: Lane, fast: Lane) -> None:
        self.lanes = (reference, fast)

    def ask(self, *steps: Step, last: bytes = LAST) -> str:
        """Returns the outline of what both answer to the same bytes, having held everything against each other.

        Args:
            steps: what is sent over one connection, and waited for.
            last: sent when everything is answered; b"" where the server ends the connection by itself.
        """
        reference, fast = self.lanes
        expected = reference.converse(steps, 0, last)
        answers = len(statuses(expected.text)) - expected.outline.endswith("open")
        try:
            # The last answer must come although nothing follows its request.
            given = fast.converse(steps, answers, last)
            assert expected.text == given.text, f"asked {steps!r}"
        finally:
            self.compare(steps)
        return expected.outline

    def compare(self, about: object) -> None:
        """Holds events and counts against each other; what comes when it likes is left for the end."""
        expected, given = self._looks(Lane.look)
        for lane in self.lanes:
            lane.forget()
        assert expected == given, f"after {about!r}: {differences(expected, given)}"

    def compare_all(self) -> None:
        """Holds all counts, and the events that come when they like, against each other."""
        expected, given = self._looks(Lane.look_at_all)
        assert expected == given, differences(expected, given)

    def _looks(self, look: Callable[[Lane], Seen | None]) -> tuple[Seen | None, Seen | None]:
        """Returns what is seen of both lanes, as soon as it is the same or too late."""
        deadline = time.monotonic() + ALIKE_WITHIN_S
        reference, fast = self.lanes
        while True:
            found = look(reference), look(fast)
            if (found[0] is not None and found[0] == found[1]) or time.monotonic() > deadline:
                return found


def differences(expected: Seen | None, given: Seen | None) -> str:
    """Returns what one lane has logged or counted and the other has not."""
    if expected is None or given is None:
        return f"events wait for their commit for more than {ALIKE_WITHIN_S:g} s"
    counts = [
        (name, expected.counts.get(name), given.counts.get(name))
        for name in sorted(expected.counts.keys() | given.counts.keys())
        if expected.counts.get(name) != given.counts.get(name)
    ]
    events = [event for event in expected.events if event not in given.events]
    events_too = [event for event in given.events if event not in expected.events]
    return f"counts {counts}, events only of ASGI {events}, only of the fast lane {events_too}"


def without(own: tuple[tuple[re.Pattern[bytes], bytes], ...], text: bytes) -> bytes:
    """Returns a text without what is every answer's or event's own."""
    for pattern, instead in own:
        text = pattern.sub(instead, text)
    return text
