"""Who is let in: the caller's token, its rate, and how many requests run at once.

A plain object that every way into the server calls before it reads a body.
"""

import time

from server.errors import OverloadedError
from server.protection.guard import Guard
from server.protection.tokens import Scope


class Admission:
    """Counts the requests being worked on and refuses those there is no room for.

    ``arrivals`` is how often bytes have come on any connection.
    """

    def __init__(self, guard: Guard, concurrent_requests: int) -> None:
        """guard: knows the tokens; concurrent_requests: how many may be worked on at once."""
        self._guard = guard
        self._limit = concurrent_requests
        self.present = 0
        self.arrivals = 0

    def arrived(self) -> None:
        """Notes that something has come from a client: whoever can wait lets it be worked on first."""
        self.arrivals += 1

    def check(self, authorization: bytes | None, scope: Scope | None) -> str:
        """Returns the caller's name, "" where nobody needs a token.

        Args:
            authorization: the header's value.
            scope: what the token must be for, None for any.

        Raises:
            UnauthorizedError, ForbiddenError, RateLimitedError: as the guard decides.
        """
        return self._guard.admit(authorization, scope, time.monotonic())

    def enter(self, authorization: bytes | None, scope: Scope) -> str:
        """Returns the caller's name and counts its request until ``leave``.

        Raises:
            OverloadedError: as many requests run as may.
            UnauthorizedError, ForbiddenError, RateLimitedError: as the guard decides.
        """
        caller = self.check(authorization, scope)
        if self.present >= self._limit:
            raise OverloadedError(f"expected at most {self._limit} requests at once, got more: try again later")
        self.present += 1
        return caller

    def leave(self) -> None:
        """Ends the count of a request that was let in."""
        self.present -= 1
