"""What was promised, what is in the log and what the monitor counted, held against each other."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from server.contract.events import Labelled, Prediction, Shadow, decode_event
from tests.faults.load import Load
from tests.faults.models import MODEL

STATED_MS = 1000.0
"""How old an answer that a crash takes may be: groups are committed every 5 ms, and later on a machine that is busy."""


class Loss(NamedTuple):
    """Answers that are in no log: shed and counted, lost as `async` says of a crash, or promised and lost."""

    shed: int
    stated: int
    beyond: list[str]
    oldest_s: float
    """How long before a crash the oldest of the stated ones was answered."""


class Contents(NamedTuple):
    """What a log holds."""

    events: int
    """Different events."""
    doubled: int
    """Deliveries of an event beyond its first."""
    requests: set[str]
    """Those whose prediction is there."""
    labels: set[str]
    """The event ids of labels."""
    answers: dict[str, int]
    """Different answers, by version."""
    labelled: dict[str, int]
    """Answers whose label is there, by version."""


class Balance(msgspec.Struct, kw_only=True):
    """The books of one fault after all its rounds."""

    fault: str
    log: str
    rounds: int
    answered: int
    labels: int
    logged: int
    dropped: int
    in_topic: int | None
    shed: int
    lost_stated: int
    oldest_lost_ms: float
    lost: int
    doubled_in_log: int
    folded: int
    doubled: int
    missed: int
    findings_equal: bool
    examples: list[str] = []
    seconds: float = 0.0

    def __str__(self) -> str:
        topic = "" if self.in_topic is None else f" · in topic {self.in_topic}"
        return (
            f"{self.fault} ({self.log}, {self.rounds} rounds, {self.seconds:.0f} s): answered {self.answered} · "
            f"labels accepted {self.labels} · logged {self.logged}{topic} · "
            f"dropped {self.dropped}, answers of them {self.shed} · "
            f"lost as async states {self.lost_stated}, the oldest {self.oldest_lost_ms:.1f} ms before · "
            f"lost {self.lost} · delivered again {self.doubled_in_log} · folded {self.folded} · "
            f"counted twice {self.doubled} · not counted {self.missed} · "
            f"findings {'equal' if self.findings_equal else 'DIFFERENT'}"
        )

    def check(self) -> None:
        """Raises AssertionError unless nothing was lost, nothing counted twice and the findings are the same."""
        faultless = (self.lost, self.doubled, self.missed, self.findings_equal) == (0, 0, 0, True)
        assert self.oldest_lost_ms < STATED_MS, str(self)
        assert faultless, f"{self}; lost: {self.examples}"
        assert self.answered > 0, str(self)


def contents(lines: Iterable[bytes]) -> Contents:
    """Returns what is in the lines of a log."""
    ids: Counter[str] = Counter()
    requests: set[str] = set()
    labels: set[str] = set()
    known: set[str] = set()
    answers: list[tuple[str, str]] = []
    for line in lines:
        event = decode_event(line)
        ids[event.id] += 1
        if ids[event.id] > 1:
            continue
        if isinstance(event, Prediction):
            requests.add(event.subject)
        if isinstance(event, Prediction | Shadow) and event.data.model == MODEL:
            answers.append((event.data.version, event.subject if event.data.status == 200 else ""))
        elif isinstance(event, Labelled):
            labels.add(event.id)
            known.add(event.subject)
    return Contents(
        events=len(ids),
        doubled=ids.total() - len(ids),
        requests=requests,
        labels=labels,
        answers=dict(Counter(version for version, _ in answers)),
        labelled=dict(Counter(version for version, subject in answers if subject in known)),
    )


def loss(load: Load, found: Contents, crashes: Sequence[float], durable: bool, dropped: int) -> Loss:
    """Returns which answers and accepted labels are in no log.

    A crash under `async` may take the last group: of the answers that a client had over one connection, the last
    before the crash, nothing but an unbroken end. Anything else that is missing was promised and lost. No label may be.

    Args:
        crashes: when the log's writer was killed, by the monotonic clock, in order.
        durable: whether answers waited for their commit, so that none may be missing.
        dropped: how many events a server that lived through it all has counted as dropped: so many may be missing.
    """
    labels = sorted(load.accepted - found.labels)
    beyond: list[str] = []
    stated = 0
    oldest_s = 0.0
    for answered in load.answered:
        connections = [list(of) for _, of in itertools.groupby(answered, key=lambda answer: answer.connected_at)]
        for number, life in enumerate(connections):
            missing = [answer for answer in life if answer.request not in found.requests]
            if not missing:
                continue
            until = connections[number + 1][0].connected_at if number + 1 < len(connections) else math.inf
            crash = next((at for at in crashes if life[0].connected_at < at < until), None)
            if durable or crash is None or missing != life[len(life) - len(missing) :]:
                beyond += (answer.request for answer in missing)
            else:
                stated += len(missing)
                oldest_s = max(oldest_s, crash - missing[0].at)
    shed = len(beyond) if not crashes and len(beyond) <= dropped else 0
    return Loss(shed, stated, beyond[shed:] + labels, oldest_s)


def folded(findings: Any, kind: str) -> dict[str, int]:
    """Returns what the monitor has counted in all, by version; kind: `requests` or `labelled`."""
    return {version["version"]: version["total"][kind] for version in findings["versions"] if version["total"][kind]}
