"""A token bucket: so many requests a second, and some at once."""

import math

from server.errors import RateLimitedError


class RateLimit:
    """Lets in ``burst`` requests at once and ``rate`` a second over time; time is an argument."""

    def __init__(self, rate: float, burst: float, now_s: float) -> None:
        """rate: requests a second; burst: how many at once, 1 at least; now_s: of a monotonic clock."""
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at_s = now_s

    def take(self, now_s: float) -> None:
        """Takes one request's worth.

        Raises:
            RateLimitedError: nothing is left; it says in how many seconds there will be.
        """
        self._left = min(self._burst, self._left + max(0.0, now_s - self._at_s) * self._rate)
        self._at_s = max(self._at_s, now_s)
        if self._left < 1.0:
            wait_s = math.ceil((1.0 - self._left) / self._rate)
            raise RateLimitedError(f"expected at most {self._rate:g} requests a second of this token, got more", wait_s)
        self._left -= 1.0
