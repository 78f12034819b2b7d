"""Which requests' events are kept where the log is a sample: a pure function of the request id.

So prediction, shadow and label of a request are kept or left out together, on every replica and after every
restart, and a producer of labels in another language can do the same.
"""

from hashlib import sha256
from struct import Struct
from typing import Final

MOST_EVERY: Final = 10_000
"""The largest ``every``, and so the largest weight of an event: sums of squared weights stay within 64 bits."""

_first_8_bytes = Struct(">Q").unpack_from


def in_sample(request_id: str, every: int) -> bool:
    """Returns whether a request belongs to the sample of one request in ``every``.

    None does where ``every`` is 0. Else it does where the first 8 bytes, big-endian, of SHA-256("tiltyard:sample:" +
    request id in UTF-8) are divisible by ``every``. A sample of one in 100 is therefore part of that of one in 10.

    >>> [in_sample(f"r{number}", 4) for number in range(8)]
    [True, True, False, False, False, True, False, False]
    """
    if every <= 1:
        return every == 1
    number: int = _first_8_bytes(sha256(f"tiltyard:sample:{request_id}".encode()).digest())[0]
    return number % every == 0
