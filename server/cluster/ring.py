"""A ring of lines in shared memory: one process appends, another drains, and the first may be killed at any time.

Positions count bytes since the ring was made and only grow; a position's place is its distance from
``base``, modulo the capacity. Whenever the ring is empty the producer starts over at place 0, so that
of a large ring usually only the first pages are ever touched.

Every word below has one writer. It is written by one aligned store of eight bytes
(``memoryview.cast("Q")`` copies a native integer of constant size), which no kill and no reader can
see half of. What must be seen in order is kept in order by a fence.
"""

import threading
from collections.abc import Callable, Sequence
from mmap import mmap

HEADER_BYTES = 4096
CHUNK_BYTES = 256 * 1024

# Of the producer, of the consumer, and of both: each on cache lines of its own.
_HEAD, _BASE, _APPENDED, _DROPPED, _LEFT_OUT = 0, 1, 2, 3, 4
_TAIL, _DRAINED = 32, 33
_AWAKE = 64


class _Fence:
    """Calling it keeps every access to memory before it before every access after it, for all processors.

    Releasing a lock is an atomic step that nothing earlier passes, taking it one that nothing later
    passes; the lock is held in between, by whoever made it. Python has no barrier of its own, and
    without one ARM reorders stores, and every processor a load with an earlier store.
    """

    def __init__(self) -> None:
        lock = threading.Lock()
        lock.acquire()
        self.release, self.acquire = lock.release, lock.acquire

    def __call__(self) -> None:
        self.release()
        self.acquire()


class Ring:
    """The words of a ring, and what both its ends can read; ``start`` is its place in the shared memory."""

    def __init__(self, memory: mmap, start: int, capacity: int) -> None:
        self._memory = memory
        self._first = start + HEADER_BYTES
        self._capacity = capacity
        self._words = memoryview(memory)[start : start + HEADER_BYTES].cast("Q")
        self._fence = _Fence()

    @property
    def head(self) -> int:
        """The position after the last line that was appended."""
        return self._words[_HEAD]

    @property
    def tail(self) -> int:
        """The position after the last line that was drained."""
        return self._words[_TAIL]

    @property
    def appended_events(self) -> int:
        """How many lines were appended since the ring was made."""
        return self._words[_APPENDED]

    @property
    def drained_events(self) -> int:
        """How many lines were drained since the ring was made."""
        return self._words[_DRAINED]

    @property
    def dropped_events(self) -> int:
        """How many lines there was no room for since the ring was made."""
        return self._words[_DROPPED]

    @property
    def left_out_events(self) -> int:
        """How many events the sample left out since the ring was made."""
        return self._words[_LEFT_OUT]

    def release(self) -> None:
        """Lets go of the shared memory, so that it can be unmapped."""
        self._words.release()


class Producer(Ring):
    """The end that appends; its successor in another process goes on where it was killed."""

    def __init__(self, memory: mmap, start: int, capacity: int) -> None:
        super().__init__(memory, start, capacity)
        self._head = self.head
        self._base = self._words[_BASE]

    @property
    def free_bytes(self) -> int:
        """How much room there is, the end of each line included."""
        return self._capacity - (self._head - self._words[_TAIL])

    def append(self, line: bytes) -> bool:
        """Appends a line, which holds no line break; returns whether there was room, else counts it as dropped."""
        return self._write(line + b"\n", 1)

    def append_all(self, lines: Sequence[bytes]) -> bool:
        """Appends all lines at once or, where there is no room for them together, none and counts nothing."""
        data = b"".join([line + b"\n" for line in lines])
        return len(data) <= self.free_bytes and self._write(data, len(lines))

    def leave_out(self, events: int) -> None:
        """Counts events that are not appended, since the log is a sample."""
        self._words[_LEFT_OUT] += events

    def rouse(self) -> bool:
        """Returns whether the consumer sleeps and must be woken now; to be called after appending."""
        if self._words[_AWAKE]:
            return False
        self._words[_AWAKE] = 1
        return True

    def _write(self, data: bytes, events: int) -> bool:
        words, head, size, capacity = self._words, self._head, len(data), self._capacity
        tail = words[_TAIL]
        if head == tail and head != self._base:  # the consumer reads nothing until the head moves
            words[_BASE] = self._base = head
        if size > capacity - (head - tail):
            words[_DROPPED] += events
            return False
        place = (head - self._base) % capacity
        start = self._first + place
        if place + size <= capacity:
            self._memory[start : start + size] = data
        else:
            part = capacity - place
            self._memory[start : start + part] = data[:part]
            self._memory[self._first : self._first + size - part] = data[part:]
        # Counted first: a reader sees at most one group too many waiting, never fewer than none. A kill
        # between the two leaves a count that Consumer.settle mends.
        words[_APPENDED] += events
        fence = self._fence
        fence.release()
        fence.acquire()
        words[_HEAD] = self._head = head + size
        # Between this store and the look at _AWAKE: else both ends could miss what the other just did.
        fence.release()
        fence.acquire()
        return True


class Consumer(Ring):
    """The end that drains."""

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return self.head == self.tail

    def drain(self, accept: Callable[[bytes], bool]) -> bool:
        """Hands over lines in order until none is left or one is not accepted; returns whether none is left."""
        head = self.head
        self._fence()
        while self.tail < head:
            if not self._drain_chunk(head, accept):
                return False
            head = self.head
            self._fence()
        return True

    def doze(self) -> bool:
        """Asks to be woken by the next append; returns False when one has happened meanwhile."""
        self._words[_AWAKE] = 0
        self._fence()
        return self.empty

    def settle(self) -> None:
        """Makes the count of appended lines exact after its producer was killed, before it has a successor."""
        waiting = self._copy(self.tail, self.head - self.tail).count(b"\n")
        self._words[_APPENDED] = self._words[_DRAINED] + waiting

    def _drain_chunk(self, head: int, accept: Callable[[bytes], bool]) -> bool:
        tail = self.tail
        lines = self._lines(tail, head)
        taken = 0
        for line in lines:
            if not accept(line):
                break
            tail += len(line) + 1
            taken += 1
        self._words[_DRAINED] += taken
        self._fence()
        self._words[_TAIL] = tail
        return taken == len(lines)

    def _lines(self, tail: int, head: int) -> list[bytes]:
        """Returns whole lines from the tail on, at least one and usually not more than CHUNK_BYTES."""
        size = min(head - tail, CHUNK_BYTES)
        while True:
            chunk = self._copy(tail, size)
            end = chunk.rfind(b"\n")
            if end >= 0:
                return chunk[:end].split(b"\n")
            size = min(head - tail, 2 * size)  # what was published ends with a line's end

    def _copy(self, position: int, size: int) -> bytes:
        place = (position - self._words[_BASE]) % self._capacity
        start = self._first + place
        part = min(size, self._capacity - place)
        return self._memory[start : start + part] + self._memory[self._first : self._first + size - part]
