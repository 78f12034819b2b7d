from typing import Any

import pytest

from monitor.sources.handover import Handover
from monitor.sources.source import Batch, Delivery, Revoked


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def handover(calls: list[str]) -> Handover:
    return Handover(3, lambda: calls.append("wake"), lambda: calls.append("room"))


def _delivery(events: int) -> Delivery:
    return Delivery(0, 0, Batch([(place, b"") for place in range(events)], [], 0, events), None)


def test_messages_come_in_order_with_their_assignment(handover: Handover, calls: Any) -> None:
    """What was put is taken in order, and both sides are told: one to take, one that there is room."""
    first, second = _delivery(1), Revoked()
    handover.put(1, first)
    handover.put(2, second)

    assert [(1, first), (2, second), None] == [handover.take() for _ in range(3)]
    assert ["wake", "wake", "room", "room"] == calls


def test_it_is_full_by_events(handover: Handover) -> None:
    """As many events as were allowed make it full until they are taken; other messages weigh nothing."""
    handover.put(1, Revoked())
    handover.put(1, _delivery(2))
    found = [handover.full]
    handover.put(1, _delivery(1))
    found.append(handover.full)
    handover.take()
    found.append(handover.full)
    handover.take()
    found.append(handover.full)

    assert [False, True, True, False] == found
