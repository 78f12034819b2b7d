"""Whether a caller may do what it asks for."""

import ipaddress
import socket

from server.errors import ForbiddenError
from server.protection.rate_limit import RateLimit
from server.protection.tokens import Scope, Token, Tokens


class Guard:
    """Decides by tokens, or without a file of them by where the server listens."""

    def __init__(self, tokens: Tokens | None, exposed: bool, share: float = 1.0) -> None:
        """tokens: None lets everyone in; exposed: the server is reached from elsewhere; share: of each
        token's rate that this process grants, 1 / how many there are."""
        self._tokens = tokens
        self._exposed = exposed
        self._share = share
        self._limits: dict[tuple[str, float, int | None], RateLimit] = {}

    def admit(self, authorization: bytes | None, scope: Scope | None, now_s: float) -> str:
        """Returns the caller's name, "" where nobody needs a token.

        Args:
            authorization: the header's value.
            scope: what the token must be for; None is satisfied by any, and costs nothing of its rate.
            now_s: of a monotonic clock.

        Raises:
            UnauthorizedError: no token, or an unknown one.
            ForbiddenError: a token without the scope, or an admin route of an exposed server without tokens.
            RateLimitedError: the token has used up its requests for now.
        """
        if self._tokens is None:
            if scope == "admin" and self._exposed:
                raise ForbiddenError(
                    "expected a token of scope admin, but no token is configured: beyond the loopback address admin "
                    "routes need one (tiltyard token new NAME --scope admin, then serve with --tokens)"
                )
            return ""
        token = self._tokens.authenticate(authorization)
        if scope is None:
            return token.name
        if scope not in token.scopes:
            raise ForbiddenError(f"expected a token of scope {scope}, got {token.name!r} without it")
        if token.requests_per_s is not None:
            self._limit(token, token.requests_per_s, now_s).take(now_s)
        return token.name

    def _limit(self, token: Token, rate: float, now_s: float) -> RateLimit:
        # By what the limit is made of: a token whose rate is changed in the file gets a new one.
        key = (token.sha256, rate, token.burst)
        limit = self._limits.get(key)
        if limit is None:
            self._limits = {known: each for known, each in self._limits.items() if known[0] != token.sha256}
            burst = rate if token.burst is None else token.burst
            limit = RateLimit(rate * self._share, max(1.0, burst * self._share), now_s)
            self._limits[key] = limit
        return limit


def exposed_host(host: str) -> bool:
    """Says whether an address to listen on is reached from other machines."""
    try:
        found = {str(each[4][0]) for each in socket.getaddrinfo(host or "0.0.0.0", None)}
    except (OSError, UnicodeError):  # binding it will fail and say why
        return True
    return not all(ipaddress.ip_address(address).is_loopback for address in found)
