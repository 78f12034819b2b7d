"""The memory that supervisor and workers share: a board, and a ring for each worker's place."""

import mmap
import os
import sys
import tempfile

from server.cluster.board import BOARD_BYTES, Board
from server.cluster.ring import HEADER_BYTES, Consumer, Producer, Ring


def create_memory(slots: int, queue_bytes: int) -> int:
    """Returns a descriptor of new memory, all zero; only what is touched takes room."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("tiltyard")
    else:
        descriptor, name = tempfile.mkstemp()
        os.unlink(name)
    os.ftruncate(descriptor, BOARD_BYTES + slots * (HEADER_BYTES + _capacity(queue_bytes)))
    return descriptor


class Memory:
    """The shared memory as this process has it mapped."""

    def __init__(self, descriptor: int, slots: int, queue_bytes: int) -> None:
        """descriptor: from create_memory, which was told the same numbers."""
        self._capacity = _capacity(queue_bytes)
        self._map = mmap.mmap(descriptor, BOARD_BYTES + slots * (HEADER_BYTES + self._capacity))
        self.board = Board(self._map)
        self.rings = [Ring(self._map, self._start(slot), self._capacity) for slot in range(slots)]

    def producer(self, slot: int) -> Producer:
        """Returns the appending end of a slot's ring; at any time one process has it."""
        return Producer(self._map, self._start(slot), self._capacity)

    def consumer(self, slot: int) -> Consumer:
        """Returns the draining end of a slot's ring."""
        return Consumer(self._map, self._start(slot), self._capacity)

    def _start(self, slot: int) -> int:
        return BOARD_BYTES + slot * (HEADER_BYTES + self._capacity)


def _capacity(queue_bytes: int) -> int:
    """Returns the bytes of one ring: whole pages, so that every ring's words lie on pages of their own."""
    return -(-queue_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
