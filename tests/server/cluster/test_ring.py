"""The ring: nothing lost, nothing twice, nothing torn, in order, whoever dies."""

import itertools
import mmap
import os
import random
import select
import subprocess
import sys
import zlib
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.cluster.memory import Memory, create_memory
from server.cluster.ring import HEADER_BYTES, Consumer, Producer

CAPACITY = 64

operations = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 80)),
        st.tuples(st.just("append"), st.integers(0, 12)),
        st.tuples(st.just("append_all"), st.lists(st.integers(0, 30), max_size=4)),
        st.tuples(st.just("drain"), st.integers(0, 5)),
        st.tuples(st.just("drain"), st.just(1000)),
        st.tuples(st.just("replace"), st.just(None)),
    ),
    max_size=60,
)


def ring(capacity: int = CAPACITY) -> tuple[Producer, Consumer, mmap.mmap]:
    memory = mmap.mmap(-1, HEADER_BYTES + capacity)
    return Producer(memory, 0, capacity), Consumer(memory, 0, capacity), memory


@settings(max_examples=300, deadline=None)
@given(operations)
def test_a_ring_is_a_bounded_queue(steps: list[tuple[str, object]]) -> None:
    """Any appends, drains and successors: lines come out as they went in, and what has no room is counted."""
    producer, consumer, memory = ring()
    waiting: deque[bytes] = deque()
    appended = dropped = number = 0
    for what, how in steps:
        number += 1
        room = CAPACITY - sum(len(text) + 1 for text in waiting)
        if what == "append":
            text = bytes([65 + number % 26]) * int(str(how))
            fits = len(text) + 1 <= room
            assert producer.append(text) == fits
            waiting.extend([text] * fits)
            appended += fits
            dropped += not fits
        elif what == "append_all":
            texts = [bytes([97 + number % 26]) * size for size in how]  # type: ignore[attr-defined]
            fits = sum(len(text) + 1 for text in texts) <= room
            assert producer.append_all(texts) == fits
            waiting.extend(texts * fits)
            appended += len(texts) * fits
        elif what == "drain":
            left = int(str(how))
            found = []

            def accept(text: bytes) -> bool:
                nonlocal left
                left -= 1
                if left >= 0:
                    found.append(text)  # noqa: B023  # used up before the next step
                return left >= 0

            took_all = consumer.drain(accept)
            assert took_all == (len(found) == len(waiting))
            assert found == [waiting.popleft() for _ in found]
        else:
            producer = Producer(memory, 0, CAPACITY)
            consumer.settle()
        assert (consumer.appended_events, consumer.dropped_events) == (appended, dropped)
        assert (consumer.empty, consumer.drained_events) == (not waiting, appended - len(waiting))


def test_an_empty_ring_starts_over_so_that_its_far_pages_stay_untouched() -> None:
    """Ten times its size goes through a ring of 64 MiB, and the memory never has more than its first pages."""
    descriptor = create_memory(1, 64 << 20)
    memory = Memory(descriptor, 1, 64 << 20)
    producer, consumer = memory.producer(0), memory.consumer(0)

    for _ in range(64):
        for _ in range(1000):
            assert producer.append(b"x" * 700)
        assert consumer.drain(lambda line: True)

    assert consumer.tail == 64 * 1000 * 701
    assert os.fstat(descriptor).st_blocks * 512 < 1 << 20
    os.close(descriptor)


def test_a_line_larger_than_a_chunk_comes_out_whole() -> None:
    """Lines of several megabytes among small ones, across the ring's end."""
    producer, consumer, _ = ring(8 << 20)
    lines = [b"a" * 10, b"b" * 3_000_000, b"c", b"d" * 1_000_000]
    found: list[bytes] = []

    for _ in range(5):
        for line in lines:
            assert producer.append(line)
        assert not consumer.drain(lambda line: len(line) < 1_000_000 and not found.append(line))
        assert consumer.drain(lambda line: not found.append(line))

    assert found == lines * 5


def test_a_killed_producer_leaves_an_exact_count() -> None:
    """Killed between its count and its publication, it has counted a line that never was: settling mends it."""
    producer, consumer, memory = ring()
    for line in (b"one", b"two", b"three"):
        assert producer.append(line)
    assert not consumer.drain(lambda line: line == b"one")
    producer._words[2] += 1  # what the kill left

    consumer.settle()

    assert (consumer.appended_events, consumer.drained_events) == (3, 1)
    successor = Producer(memory, 0, CAPACITY)
    assert successor.append(b"four")
    found: list[bytes] = []
    assert consumer.drain(lambda line: not found.append(line))
    assert found == [b"two", b"three", b"four"]


class Hammer:
    """A process that appends, and the end that drains it."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._memory = create_memory(1, capacity)
        self.consumer = Memory(self._memory, 1, capacity).consumer(0)
        self._wake, self._waker = os.pipe()

    def start(self, count: int, seed: int) -> "subprocess.Popen[bytes]":
        numbers = (self._memory, self._waker, self._capacity, count, seed)
        return subprocess.Popen(
            [sys.executable, "-m", "tests.server.cluster.hammer", *map(str, numbers)],
            pass_fds=(self._memory, self._waker),
        )

    def sleep(self) -> None:
        """Returns when the producer wakes it; a wake that was lost fails the test."""
        if self.consumer.doze():
            assert select.select([self._wake], [], [], 20)[0], "nobody woke the consumer"
            os.read(self._wake, 1000)

    def close(self) -> None:
        for descriptor in (self._memory, self._wake, self._waker):
            os.close(descriptor)


@pytest.mark.parametrize("capacity", [4096, 1 << 20])
def test_two_processes_hammer_one_ring(capacity: int) -> None:
    """Every line arrives once, in order and unharmed, and no wake is lost, in a tight ring and in a roomy one."""
    hammer = Hammer(capacity)
    found: list[bytes] = []
    count = 60_000

    with hammer.start(count, seed=1) as process:
        while hammer.consumer.drain(lambda line: not found.append(line)) and len(found) < count:
            hammer.sleep()
        assert process.wait(20) == 0

    hammer.close()
    assert [int(line.split(b":")[1]) for line in found] == list(range(count))
    assert all(int(line.split(b":", 1)[0]) == zlib.crc32(line.split(b":", 1)[1]) for line in found)


def test_a_producer_killed_anywhere_tears_nothing() -> None:
    """Killed again and again in the middle of appending, each life leaves an unbroken run of whole lines."""
    hammer = Hammer(1 << 20)
    rng = random.Random(5)
    found: list[bytes] = []
    lives = 8

    for seed in range(lives):
        enough = len(found) + rng.randrange(1, 20_000)
        with hammer.start(10_000_000, seed) as process:
            while hammer.consumer.drain(lambda line: not found.append(line)) and len(found) < enough:
                hammer.sleep()
            process.kill()
        assert hammer.consumer.drain(lambda line: not found.append(line))
        hammer.consumer.settle()
        assert hammer.consumer.appended_events == hammer.consumer.drained_events == len(found)

    hammer.close()
    numbers = [int(line.split(b":")[1]) for line in found]
    assert numbers.count(0) == lives
    assert all(number in (0, before + 1) for before, number in itertools.pairwise(numbers))
    assert all(int(line.split(b":", 1)[0]) == zlib.crc32(line.split(b":", 1)[1]) for line in found)
