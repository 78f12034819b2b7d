"""Shares in whole billionths, so that sums are exact and a document says the same in every language."""

import math

STEPS = 10**9
"""How many parts [0, 1) has: the step of shares and ranges is 1 / STEPS."""


def in_steps(share: float) -> int:
    """Returns a share in billionths; what lies between two of them is rounded down, so that thirds still add up.

    Example:
        >>> in_steps(0.29), in_steps(1 / 3), in_steps(1 / 6)
        (290000000, 333333333, 166666666)
    """
    exact = share * STEPS
    nearest = round(exact)
    # A decimal of nine places is no binary fraction, so its product may be a hair below the whole it stands for.
    return nearest if abs(exact - nearest) < 1e-3 else math.floor(exact)
