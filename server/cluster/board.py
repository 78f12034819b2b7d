"""What the supervisor tells all workers at any time: how the one log is doing, and how many workers live."""

from mmap import mmap

BOARD_BYTES = 4096

_ALIVE, _COMMITTED, _DROPPED, _WORKERS, _EXPECTED, _FAILURE_BYTES = range(6)
# One word a slot; the settings allow 64.
_CONNECTIONS = 64
_FAILURE = 1024
_NOBODY = 2**64 - 1


class Board:
    """Numbers and one sentence in shared memory, which everyone reads.

    The supervisor writes them, save each worker's number of connections.
    """

    def __init__(self, memory: mmap) -> None:
        self._memory = memory
        self._words = memoryview(memory)[:_FAILURE].cast("Q")
        self._shown: str | None = None

    def fair(self, slot: int, connections: int) -> bool:
        """Notes how many connections a worker has, and says whether no other has far fewer."""
        self._words[_CONNECTIONS + slot] = connections
        fewest = min(self._words[_CONNECTIONS : _CONNECTIONS + self._words[_EXPECTED]])
        return connections <= fewest + 1 + fewest // 16

    def vacate(self, slot: int) -> None:
        """Notes that no worker in this place takes connections."""
        self._words[_CONNECTIONS + slot] = _NOBODY

    @property
    def alive(self) -> bool:
        """Whether the log's writer works."""
        return self._words[_ALIVE] == 1

    @property
    def committed_events(self) -> int:
        """How many events are in the log."""
        return self._words[_COMMITTED]

    @property
    def dropped_events(self) -> int:
        """How many events reached the log's writer and were lost there."""
        return self._words[_DROPPED]

    @property
    def workers(self) -> tuple[int, int]:
        """How many workers serve, and how many should."""
        return self._words[_WORKERS], self._words[_EXPECTED]

    @property
    def failure(self) -> str | None:
        """Why the log cannot be written at present, None when it can."""
        size = self._words[_FAILURE_BYTES]
        # A text that is replaced by another in these microseconds may be read half; it is for people.
        return self._memory[_FAILURE : _FAILURE + size].decode(errors="replace") if size else None

    def show_log(self, *, alive: bool, committed_events: int, dropped_events: int, failure: str | None) -> None:
        """Shows the state of the log."""
        self._words[_ALIVE] = alive
        # Before the count of commits: whoever sees a loss as settled must not see it as waiting again.
        self._words[_DROPPED] = dropped_events
        self._words[_COMMITTED] = committed_events
        if failure != self._shown:
            text = (failure or "").encode()[: BOARD_BYTES - _FAILURE]
            self._words[_FAILURE_BYTES] = 0
            self._memory[_FAILURE : _FAILURE + len(text)] = text
            self._words[_FAILURE_BYTES] = len(text)
            self._shown = failure

    def show_workers(self, alive: int, expected: int) -> None:
        """Shows how many workers serve, of how many."""
        self._words[_EXPECTED] = expected
        self._words[_WORKERS] = alive
