"""What one thread has read, on its way to the thread that folds it: in order, and never much of it."""

import threading
from collections import deque
from collections.abc import Callable

from monitor.sources.source import Delivery, Message, Received


class Handover:
    """A queue between two threads. The writer looks at ``full`` before it reads more of the log.

    Args:
        most_events: events, and records of other monitors, that may wait; a message put is taken in all the same.
        wake: called when there is something to take.
        room: called when something was taken.
    """

    def __init__(self, most_events: int, wake: Callable[[], None], room: Callable[[], None]) -> None:
        self._most_events = most_events
        self._wake = wake
        self._room = room
        self._mutex = threading.Lock()
        self._messages: deque[tuple[int, Message]] = deque()
        self._events = 0

    def put(self, epoch: int, message: Message) -> None:
        """Adds a message of an assignment."""
        with self._mutex:
            self._messages.append((epoch, message))
            self._events += _events_in(message)
        self._wake()

    def take(self) -> tuple[int, Message] | None:
        """Returns the oldest message with its assignment's number, None when there is none."""
        with self._mutex:
            if not self._messages:
                return None
            epoch, message = self._messages.popleft()
            self._events -= _events_in(message)
        self._room()
        return epoch, message

    @property
    def full(self) -> bool:
        """Whether as many events wait as may."""
        with self._mutex:
            return self._events >= self._most_events


def _events_in(message: Message) -> int:
    if isinstance(message, Received):
        return len(message.publication.records)
    return len(message.batch.lines) if isinstance(message, Delivery) else 0
