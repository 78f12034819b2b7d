"""Compressed bodies, honest and not."""

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import EncodingError, InvalidRequestError, TiltyardError, TooLargeError
from server.protocol.compression import Encoding, choose_encoding, compress, decompress
from server.protocol.status import status_of

MIB = 1024 * 1024


def raw_deflate(body: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(body) + stream.flush()


WRITERS = {
    "gzip": ("gzip", gzip.compress),
    "gzip in two members": ("gzip", lambda body: gzip.compress(body[:5]) + gzip.compress(body[5:])),
    "deflate": ("deflate", zlib.compress),
    "deflate without its header": ("deflate", raw_deflate),
    "ours as gzip": ("gzip", lambda body: compress(body, "gzip")),
    "ours as deflate": ("deflate", lambda body: compress(body, "deflate")),
}


@pytest.mark.parametrize("writer", WRITERS)
@given(st.binary(max_size=300) | st.integers(0, 300_000).map(lambda size: bytes(range(256)) * (size // 256)))
def test_what_was_compressed_comes_back(writer: str, body: bytes) -> None:
    """In both encodings, deflate with zlib's header or without, gzip in one member or several."""
    encoding, write = WRITERS[writer]

    assert decompress(write(body), encoding, MIB) == body


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(("size", "taken"), [(9_999, True), (10_000, True), (10_001, False)])
def test_the_limit_is_on_what_comes_out(writer: str, size: int, taken: bool) -> None:
    """Taken below and at it, refused above."""
    encoding, write = WRITERS[writer]

    if taken:
        assert len(decompress(write(bytes(size)), encoding, 10_000)) == size
    else:
        with pytest.raises(TooLargeError, match="expected a body of at most 10000 bytes once decompressed"):
            decompress(write(bytes(size)), encoding, 10_000)


@pytest.mark.parametrize("writer", ["gzip", "deflate"])
def test_a_bomb_is_found_out_before_it_is_one(writer: str) -> None:
    """64 MiB of zeros in 64 KiB: no more is made than the limit and a piece."""
    encoding, write = WRITERS[writer]
    bomb = write(bytes(64 * MIB))
    tracemalloc.start()

    with pytest.raises(TooLargeError):
        decompress(bomb, encoding, 2 * MIB)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak_bytes < 6 * MIB


@pytest.mark.parametrize("writer", WRITERS)
def test_a_body_that_ends_early_is_refused(writer: str) -> None:
    """Wherever it was cut."""
    encoding, write = WRITERS[writer]
    whole = write(b"some bytes of a body")
    first_member = len(gzip.compress(b"some "))

    for size in range(len(whole)):
        if (writer, size) != ("gzip in two members", first_member):
            with pytest.raises(InvalidRequestError, match=r"ends early|expected a body compressed with"):
                decompress(whole[:size], encoding, MIB)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("rest", [b"x", b"\0" * 10, b"\x1f\x8b"])
def test_a_body_that_goes_on_is_refused(writer: str, rest: bytes) -> None:
    """What stands behind the end is no part of it."""
    encoding, write = WRITERS[writer]
    with pytest.raises(InvalidRequestError, match=r"bytes after it|ends early|expected a body compressed with"):
        decompress(write(b"body") + rest, encoding, MIB)


def test_gzip_members_without_end_are_refused() -> None:
    """Each costs a step: ten thousand are enough for files of a gigabyte, and take no time."""
    empty = gzip.compress(b"")

    assert decompress(empty * 10_000, "gzip", MIB) == b""
    with pytest.raises(InvalidRequestError, match="bytes after it"):
        decompress(empty * 10_001, "gzip", MIB)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "x" * 1000])
def test_another_encoding_is_refused(encoding: str) -> None:
    """By its name, which is not echoed at length."""
    with pytest.raises(EncodingError, match="expected gzip, deflate or identity, got") as caught:
        decompress(b"", encoding, MIB)
    assert len(str(caught.value)) < 200


@given(st.binary(max_size=60), st.sampled_from(["gzip", "deflate"]), st.booleans())
def test_no_bytes_are_a_fault_of_ours(body: bytes, encoding: Encoding, damage: bool) -> None:
    """Any bytes, and any damage to a compressed body, are decompressed or refused."""
    if damage:
        whole = compress(b"a body that is compressed", encoding)
        body = whole[: len(body)] + body + whole[len(body) + 1 :]
    try:
        assert len(decompress(body, encoding, 1000)) <= 1000
    except TiltyardError as error:
        assert status_of(error) in (400, 413)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("GZip;Q=1", "gzip"),
        ("deflate, gzip", "gzip"),
        ("gzip;q=0.5, deflate;q=0.8", "deflate"),
        ("gzip;q=0", None),
        ("gzip;q=0.0, deflate", "deflate"),
        ("br", None),
        ("br, gzip;q=0.1", "gzip"),
        ("*", "gzip"),
        ("*;q=0", None),
        ("gzip;q=0, *", "deflate"),
        ("identity", None),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.5, gzip", "gzip"),
        ("identity, gzip", "gzip"),
        ("identity;q=0, gzip;q=0.1", "gzip"),
        ("gzip;q=high", None),
        ("gzip;q=nan", None),
        (", ,;;=,", None),
    ],
)
def test_the_client_chooses_the_encoding(accept: str, expected: str | None) -> None:
    """By its weights; a body as it is where it says so or says nonsense."""
    assert choose_encoding(accept) == expected
