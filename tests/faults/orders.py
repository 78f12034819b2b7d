"""Logs that hold the same facts in another order, or more than once."""

import random
from collections.abc import Sequence
from datetime import timedelta

import msgspec

from server.contract.events import Labelled, Prediction, decode_event, encode_event

YEAR = timedelta(days=365)


def delivered_again(lines: Sequence[bytes], chance: random.Random) -> list[bytes]:
    """Returns every event twice or more: its copies stand anywhere behind it."""
    places = [(float(place), line) for place, line in enumerate(lines)]
    for place, line in enumerate(lines):
        places += [(chance.uniform(place, len(lines)), line) for _ in range(chance.choice((1, 1, 2)))]
    return [line for _, line in sorted(places, key=lambda item: item[0])]


def labels_first(lines: Sequence[bytes]) -> list[bytes]:
    """Returns all labels, in their order, before all else."""
    labels, others = _parted(lines)
    return [*labels, *others]


def labels_a_year_late(lines: Sequence[bytes]) -> list[bytes]:
    """Returns all labels, in their order, after all else and a prediction that was made a year later."""
    labels, others = _parted(lines)
    return [*others, a_year_later(lines), *labels]


def a_year_later(lines: Sequence[bytes]) -> bytes:
    """Returns a prediction of a request of its own, a year after the last one of the log."""
    last = max((event for event in map(decode_event, lines) if isinstance(event, Prediction)), key=lambda e: e.time)
    name = "a-year-later"
    return encode_event(msgspec.structs.replace(last, id=name, subject=name, partitionkey=name, time=last.time + YEAR))


def _parted(lines: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Returns labels and all else."""
    labels: list[bytes] = []
    others: list[bytes] = []
    for line in lines:
        (labels if isinstance(decode_event(line), Labelled) else others).append(line)
    return labels, others
