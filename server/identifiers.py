"""Request and event ids: UUID version 7, so that ids sort by the time they were made."""

import os
import time

_DIGITS = 19
_DRAWN = 256
# What follows the time, as RFC 9562 writes it, x being chance and y one of the four variants; and a space, for a text
# is split faster than it is sliced.
_TAIL = b"-7xxx-yxxx-xxxxxxxxxxxx "
_PLACES = [place for place, letter in enumerate(_TAIL) if letter in b"xy"]
_VARIANT = bytes.maketrans(b"0123456789abcdef", b"89ab" * 4)

# A system call an id would be most of its price, and so would the writing of each alone. Taking from a list is one
# step, so threads never share a draw.
_tails: list[str] = []
os.register_at_fork(after_in_child=_tails.clear)
# The last millisecond and its text, in one value so that no thread sees half of a change.
_moment = 0, "00000000-0000"


def uuid7() -> str:
    """Returns a new UUIDv7 (RFC 9562) of the present millisecond: 48 bits of time, 74 of chance."""
    global _moment
    try:
        tail = _tails.pop()
    except IndexError:
        tail = _draw()
    unix_ms = time.time_ns() // 1_000_000
    at_ms, text = _moment
    if at_ms != unix_ms:
        text = time_text(unix_ms)
        _moment = unix_ms, text
    return text + tail


def time_text(unix_ms: int) -> str:
    """Returns the part of a UUIDv7 that is its time.

    Example:
        >>> time_text(0x017F22E279B0)
        '017f22e2-79b0'
    """
    digits = f"{unix_ms:012x}"
    return f"{digits[:8]}-{digits[8:]}"


def random_texts(digits: bytes) -> list[str]:
    """Returns the parts of UUIDv7s that are chance, of 19 digits of 0 to f each; of the fourth two bits are used.

    Example:
        >>> random_texts(b"cc318c4dc0c0c07398f")
        ['-7cc3-98c4-dc0c0c07398f']
    """
    letters = bytearray(_TAIL * (len(digits) // _DIGITS))
    for order, place in enumerate(_PLACES):
        column = digits[order::_DIGITS]
        letters[place :: len(_TAIL)] = column.translate(_VARIANT) if _TAIL[place] == ord("y") else column
    return letters.decode().split()


def _draw() -> str:
    """Returns what follows the time in an id, and puts more aside."""
    drawn = random_texts(os.urandom(_DRAWN * _DIGITS // 2).hex().encode())
    last = drawn.pop()
    _tails.extend(drawn)
    return last
