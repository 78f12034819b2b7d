"""Which partition of a topic a request's events are in: murmur2 of the key, as Java's client and aiokafka have it.

Whoever writes labels into the topic must place them so, or they miss their predictions. librdkafka's clients
(confluent-kafka, kcat) do with ``partitioner=murmur2_random``; their default is another hash.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


def partition_of(key: bytes, partitions: int) -> int:
    """Returns the partition of one key, from 0.

    >>> partition_of(b"0190a5f0-7b1c-7000-8000-000000000001", 12)
    6
    """
    return int(partitions_of([key], partitions)[0])


def partitions_of(keys: Sequence[bytes], partitions: int) -> list[int]:
    """Returns the partition of each key; many at once cost a fraction of as many calls."""
    hashes = np.empty(len(keys), np.uint32)
    by_length: dict[int, list[int]] = {}
    for place, key in enumerate(keys):
        by_length.setdefault(len(key), []).append(place)
    for length, places in by_length.items():
        joined = b"".join([keys[place] for place in places])
        hashes[places] = _murmur2(np.frombuffer(joined, np.uint8).reshape(len(places), length))
    found: list[int] = ((hashes & np.uint32(0x7FFFFFFF)) % np.uint32(partitions)).tolist()
    return found


def _murmur2(keys: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Returns the hash of each row. keys: uint8, (keys, bytes); arithmetic is of 32 bits and wraps."""
    count, length = keys.shape
    m = np.uint32(_M)
    whole = length // 4
    words = np.ascontiguousarray(keys[:, : 4 * whole]).view("<u4").astype(np.uint32)
    hashes = np.full(count, (_SEED ^ length) & _MASK, np.uint32)
    for place in range(whole):
        word = words[:, place] * m
        word ^= word >> np.uint32(24)
        hashes = hashes * m ^ word * m
    if length % 4:
        for place in range(4 * whole, length):
            hashes ^= keys[:, place].astype(np.uint32) << np.uint32(8 * (place % 4))
        hashes *= m
    hashes ^= hashes >> np.uint32(13)
    hashes *= m
    hashes ^= hashes >> np.uint32(15)
    return hashes
