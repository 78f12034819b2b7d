"""The books themselves: what is missing is told from what may be missing."""

from dataclasses import dataclass, field

import pytest

from tests.faults.balance import Contents, loss
from tests.faults.load import Answered


@dataclass
class Noted:
    """What clients were promised."""

    answered: list[list[Answered]]
    accepted: set[str] = field(default_factory=set)


def logged(*requests: str) -> Contents:
    """Returns a log of these predictions and one label."""
    return Contents(len(requests), 0, set(requests), {"label"}, {}, {})


BEFORE = [Answered(f"r{number}", 10.0 + number / 1000, 9.0) for number in range(4)]
AFTER = [Answered("s0", 12.0, 11.0)]
CRASH = 10.004


def test_the_end_of_a_connection_may_be_lost_in_a_crash() -> None:
    """Those are counted, with the age of the oldest."""
    found = loss(Noted([BEFORE + AFTER]), logged("r0", "r1", "s0"), [CRASH], durable=False, dropped=0)

    assert (found.stated, found.beyond, round(found.oldest_s, 6)) == (2, [], 0.002)


@pytest.mark.parametrize(
    ("requests", "crashes", "durable", "missing"),
    [
        (("r0", "r2", "r3", "s0"), [CRASH], False, ["r1"]),  # one in the middle
        (("r0", "r1", "r2", "s0"), [CRASH], True, ["r3"]),  # it waited for its commit
        (("r0", "r1", "r2", "r3"), [CRASH], False, ["s0"]),  # after the crash
        (("r0", "r1", "r2", "s0"), [], False, ["r3"]),  # no crash at all
    ],
    ids=["middle", "commit", "after", "none"],
)
def test_anything_else_was_promised(
    requests: tuple[str, ...], crashes: list[float], durable: bool, missing: list[str]
) -> None:
    """It is named."""
    found = loss(Noted([BEFORE + AFTER]), logged(*requests), crashes, durable=durable, dropped=0)

    assert (found.stated, found.beyond) == (0, missing)


def test_a_label_that_was_accepted_is_never_lost() -> None:
    """Whatever crashed: it was on disk before the 202."""
    found = loss(Noted([BEFORE], {"label", "gone"}), logged("r0"), [CRASH], durable=False, dropped=0)

    assert (found.stated, found.beyond) == (3, ["gone"])


def test_what_was_shed_must_have_been_counted() -> None:
    """As many answers may be missing as the server says it dropped, and not one more."""
    shed = loss(Noted([BEFORE]), logged("r0", "r2"), [], durable=False, dropped=2)
    uncounted = loss(Noted([BEFORE]), logged("r0", "r2"), [], durable=False, dropped=1)

    assert (shed.shed, shed.beyond) == (2, [])
    assert (uncounted.shed, uncounted.beyond) == (0, ["r1", "r3"])
