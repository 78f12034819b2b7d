"""Keys are placed as Java's client places them: Kafka's own test vectors, aiokafka's hash, and many at once."""

import pytest
from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from server.contract.partition import partition_of, partitions_of

# UtilsTest.testMurmur2 of Apache Kafka: the hash as a signed 32-bit integer.
VECTORS = [
    (b"21", -973932308),
    (b"foobar", -790332482),
    (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    (b"abc", 479470107),
]


@pytest.mark.parametrize(("key", "hashed"), VECTORS)
def test_kafkas_own_vectors_hold(key: bytes, hashed: int) -> None:
    """The partition is the positive part of the published hash, by the number of partitions."""
    for partitions in (1, 2, 12, 97, 1_000):
        assert partition_of(key, partitions) == (hashed & 0x7FFFFFFF) % partitions


@given(st.lists(st.binary(max_size=70)), st.integers(1, 10_000))
def test_many_keys_of_any_length_are_placed_as_one_by_one(keys: list[bytes], partitions: int) -> None:
    """Each as aiokafka places it by itself, in the order that was asked."""
    assert partitions_of(keys, partitions) == [(murmur2(key) & 0x7FFFFFFF) % partitions for key in keys]
