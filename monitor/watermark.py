"""How far event time has come, over all partitions of the log. Pure."""

from collections.abc import Iterable
from typing import NamedTuple


class Clock(NamedTuple):
    """A partition's own watermark, the highest event time of its predictions, and whether it was read to its end."""

    watermark_us: int | None
    at_end: bool


def watermark(clocks: Iterable[Clock]) -> int | None:
    """Returns the event time that every partition has reached; None while one has not begun.

    The least of the partitions' watermarks; but a partition that was read to its end has nothing that is older
    to come, so it counts as the greatest of all: an idle one must not hold the others back.

    >>> watermark([Clock(60, at_end=False), Clock(40, at_end=False)])
    40
    >>> watermark([Clock(60, at_end=False), Clock(40, at_end=True), Clock(None, at_end=True)])
    60
    >>> watermark([Clock(60, at_end=True), Clock(None, at_end=False)])
    """
    every = list(clocks)
    greatest = max((clock.watermark_us for clock in every if clock.watermark_us is not None), default=None)
    least = greatest
    for clock in every:
        if clock.at_end:
            continue
        if clock.watermark_us is None or least is None:
            return None
        least = min(least, clock.watermark_us)
    return least
