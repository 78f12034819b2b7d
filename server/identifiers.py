"""Request and event ids: UUID version 7, so that ids sort by the time they were made."""

import os
import time

_DIGITS = 19
_DRAWN = 256
_VARIANT = {f"{digit:x}": "89ab"[digit % 4] for digit in range(16)}

# A system call an id would be most of its price. Taking from a list is one step, so threads never share a draw.
_drawn: list[str] = []
os.register_at_fork(after_in_child=_drawn.clear)


def uuid7() -> str:
    """Returns a new UUIDv7 (RFC 9562) of the present millisecond: 48 bits of time, 74 of chance."""
    try:
        digits = _drawn.pop()
    except IndexError:
        digits = _draw()
    return format_uuid7(time.time_ns() // 1_000_000, digits)


def format_uuid7(unix_ms: int, digits: str) -> str:
    """Returns the UUIDv7 of a time and 19 random digits, of 0 to f; of the fourth two bits are used.

    Example:
        >>> format_uuid7(0x017F22E279B0, "cc318c4dc0c0c07398f")
        '017f22e2-79b0-7cc3-98c4-dc0c0c07398f'
    """
    moment = f"{unix_ms:012x}"
    return f"{moment[:8]}-{moment[8:]}-7{digits[:3]}-{_VARIANT[digits[3]]}{digits[4:7]}-{digits[7:]}"


def _draw() -> str:
    """Returns digits for an id, and puts more aside."""
    drawn = os.urandom(_DRAWN * _DIGITS // 2).hex()
    _drawn.extend(drawn[place : place + _DIGITS] for place in range(_DIGITS, len(drawn), _DIGITS))
    return drawn[:_DIGITS]
