"""Request and event ids: UUID version 7, so that ids sort by the time they were made."""

import os
import time


def uuid7() -> str:
    """Returns a new UUIDv7 (RFC 9562) of the present millisecond: 48 bits of time, 74 of chance."""
    random = int.from_bytes(os.urandom(10), "big")
    return format_uuid7(time.time_ns() // 1_000_000, random)


def format_uuid7(unix_ms: int, random: int) -> str:
    """Returns the UUIDv7 of a time and at least 74 random bits.

    Example:
        >>> format_uuid7(0x017F22E279B0, 0x0CC3_18C4DC0C0C07398F)
        '017f22e2-79b0-7cc3-98c4-dc0c0c07398f'
    """
    high = (unix_ms << 16) | 0x7000 | ((random >> 64) & 0x0FFF)
    low = 0x8000000000000000 | (random & 0x3FFFFFFFFFFFFFFF)
    digits = f"{high:016x}{low:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
