"""Appends numbered lines of random sizes, each with its checksum, to a ring until all are in or it is killed.

python -m tests.server.cluster.hammer MEMORY WAKE CAPACITY COUNT SEED
"""

import os
import random
import sys
import zlib

from server.cluster.memory import Memory


def line(number: int, size: int) -> bytes:
    """Returns a line that says which it is and what it must look like."""
    text = b"%d:" % number + b"x" * size
    return b"%d:" % zlib.crc32(text) + text


def main(memory: int, wake: int, capacity: int, count: int, seed: int) -> None:
    """Appends; a full ring is tried again, an empty one is given time to be found empty now and then."""
    ring = Memory(memory, 1, capacity).producer(0)
    rng = random.Random(seed)
    for number in range(count):
        text = line(number, rng.choice((0, 1, 10, 700, 700, 700, 3000)))
        while not ring.append(text):
            pass
        if ring.rouse():
            os.write(wake, b"!")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
