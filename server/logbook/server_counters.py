"""What a running server says it has done: its ``/metrics``, as far as the log's balance needs them."""

from pathlib import Path
from typing import Final

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from server.logbook.errors import CountersError
from server.routes.client import plain

_TIMEOUT_S: Final = 30.0
# The client had left before it was answered: there is no event.
_GONE: Final = "499"


class Counters(msgspec.Struct, frozen=True):
    """What a server has counted since it started.

    ``answers`` are those of every role, shadows included, that an event was made of; ``outcomes`` what became of
    events, by name; ``waiting`` those without an outcome yet. ``refused_labels`` counts feedback requests answered
    503, whose labels may be in the log all the same.
    """

    answers: int
    labels: int
    audits: int
    outcomes: dict[str, int]
    waiting: int
    refused_labels: int

    @property
    def made(self) -> int:
        """How many events the server has made, by what it did."""
        return self.answers + self.labels + self.audits

    @property
    def settled(self) -> int:
        """How many events have an outcome."""
        return sum(self.outcomes.values())

    @property
    def logged(self) -> int:
        """How many are in the log."""
        return self.outcomes.get("logged", 0)


def read_counters(url: str, token: str | None, ca: Path | None) -> Counters:
    """Returns the present counters of a server.

    Args:
        url: where it answers.
        token: an API token with the scope ``metrics``.
        ca: certificates, as PEM, of which one must have signed the server's.

    Raises:
        CountersError: it does not answer, or not with its metrics.
    """
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    try:
        # Every worker adds up the counters of all; a connection of its own, as any of them may end.
        reply = httpx.get(
            f"{url.rstrip('/')}/metrics", headers=headers, timeout=_TIMEOUT_S, verify=True if ca is None else str(ca)
        )
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise CountersError(f"{url}: expected a server that answers, got: {plain(str(error))}") from error
    if reply.status_code != 200:
        raise CountersError(f"{url}: expected its metrics, got status {reply.status_code}: {plain(reply.text)}")
    try:
        return parse_counters(reply.text)
    except ValueError as error:
        raise CountersError(f"{url}: expected metrics of Prometheus, got: {plain(str(error))}") from error


def parse_counters(text: str) -> Counters:
    """Returns the counters in a text of Prometheus' form, or raises ValueError."""
    answers = labels = audits = waiting = refused_labels = 0
    outcomes: dict[str, int] = {}
    for family in text_string_to_metric_families(text):
        for name, found, value, *_ in family.samples:
            match name:
                case "tiltyard_requests_total" if found["role"] != "none" and found["code"] != _GONE:
                    answers += int(value)
                case "tiltyard_fallbacks_total":  # counted as an answer of the challenger, which no event is made of
                    answers -= int(value)
                case "tiltyard_feedback_total":
                    labels = int(value)
                case "tiltyard_audits_total":
                    audits = int(value)
                case "tiltyard_events_total":
                    outcomes[found["outcome"]] = int(value)
                case "tiltyard_event_backlog":
                    waiting = int(value)
                case "tiltyard_feedback_refused_total" if found["code"] == "503":
                    refused_labels = int(value)
    if "logged" not in outcomes:
        raise ValueError("no tiltyard_events_total among them")
    return Counters(answers, labels, audits, outcomes, waiting, refused_labels)
