"""Where a unit stands in a model's traffic: a pure function that any language can repeat."""

import hashlib


def bucket_of(salt: str, unit: str) -> float:
    """Returns a place in [0, 1): the first 8 bytes, big-endian, of SHA-256(salt + ":" + unit), / 2^64.

    Equal on every replica and after every restart. The top 53 bits decide, so that the quotient
    never rounds up to 1.

    Example:
        >>> round(bucket_of("flight-delay", "customer-7"), 6)
        0.932454
    """
    digest = hashlib.sha256(f"{salt}:{unit}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / (1 << 53)
