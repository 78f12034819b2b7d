"""Waiting for other processes, never longer than a broken one deserves."""

import threading
import time
from collections.abc import Callable

PATIENCE_S = 120.0
_LOOK_EVERY_S = 0.02


def until(condition: Callable[[], object], what: str | Callable[[], str], within_s: float = PATIENCE_S) -> None:
    """Returns once the condition holds.

    Args:
        condition: looked at again and again.
        what: names it in the message of the failure; a function tells what was seen last.
        within_s: how long at most.

    Raises:
        AssertionError: it does not hold in time.
    """
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    while not condition():
        if time.monotonic() >= deadline:
            named = what if isinstance(what, str) else what()
            raise AssertionError(f"timed out after {within_s:g} s waiting for {named}")
        pause.wait(_LOOK_EVERY_S)  # another process: there is nothing of ours to wait on
