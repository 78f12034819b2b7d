"""API tokens: a file of names, hashes, scopes and rates.

A token is 256 random bits, so one round of SHA-256 at rest is enough: slow hashes protect secrets that can
be guessed, and these cannot (NIST SP 800-63B asks for them where the secret is memorised).
"""

import hashlib
import hmac
import logging
import secrets
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import msgspec

from server.errors import SettingsError, UnauthorizedError

logger = logging.getLogger(__name__)

Scope = Literal["infer", "feedback", "admin", "metrics"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_PREFIX = "tyd_"
_WRITABLE_BY_OTHERS = 0o022
# Headers that are remembered, and bytes of one: a token can come in many, as letters' case and spaces are free.
_KNOWN = 1024
_KNOWN_BYTES = 256
_START = 8  # bytes of a hash; two tokens that share them would be the first such pair of anyone's


class Token(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One token: who has it, the hexadecimal SHA-256 of it, what it is for, and its requests a second at most.

    ``burst`` is how many requests may come at once; without it a second's worth, one at least.
    """

    name: str
    sha256: str
    scopes: list[Scope]
    requests_per_s: float | None = None
    burst: int | None = None


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    token: list[Token] = []


def new_token() -> str:
    """Returns a fresh token."""
    return _PREFIX + secrets.token_urlsafe(32)


def hash_of(token: str) -> str:
    """Returns what the file keeps of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_tokens(path: Path) -> list[Token]:
    """Returns the tokens in a file.

    Raises:
        SettingsError: it cannot be read, or an entry is not what it must be; the message names it.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        tokens = msgspec.convert(content, _File).token
    except OSError as error:
        raise SettingsError(f"tokens {path}: expected a file that can be read, got: {error.strerror}") from error
    except (ValueError, msgspec.ValidationError) as error:  # not TOML, not UTF-8, or not of this shape
        raise SettingsError(f"tokens {path}: {error}") from error
    names: set[str] = set()
    hashes: set[str] = set()
    for place, token in enumerate(tokens):
        fault = _fault(token, names, hashes)
        if fault:
            raise SettingsError(f"tokens {path}: entry {place + 1} ({token.name!r}): expected {fault}")
        names.add(token.name)
        hashes.add(token.sha256.lower())
    return tokens


def _fault(token: Token, names: set[str], hashes: set[str]) -> str | None:
    if not token.name or token.name in names:
        return "a name of its own, got an empty one or another entry's"
    if len(token.sha256) != 64 or not set(token.sha256.lower()) <= set("0123456789abcdef"):
        return "sha256 as 64 hexadecimal digits, got something else"
    if token.sha256.lower() in hashes:
        return "a hash of its own, got another entry's"
    if not token.scopes:
        return f"at least one scope of {', '.join(SCOPES)}, got none"
    if token.requests_per_s is not None and not 0 < token.requests_per_s < float("inf"):
        return f"requests_per_s above 0, got {token.requests_per_s}"
    if token.burst is not None and (token.burst < 1 or token.requests_per_s is None):
        return f"a burst of 1 or more beside requests_per_s, got {token.burst}"
    return None


class Tokens:
    """The tokens that are valid now, out of a file that may change."""

    def __init__(self, path: Path) -> None:
        """Reads the file.

        Raises:
            SettingsError: as ``read_tokens``.
        """
        self._path = path
        self._seen = self._state()
        self._by_start = _by_start(read_tokens(path))
        # Hashing a token is most of the price of letting it in. Nothing is learnt from how long a look-up takes: it
        # compares bytes only where two headers have the same hash, whose key is this process's secret.
        self._known: dict[bytes | None, Token] = {}
        self._warn_of_writers()

    @property
    def all(self) -> list[Token]:
        """Returns every valid token."""
        return list(self._by_start.values())

    def reload_if_changed(self) -> bool:
        """Reads the file again when it is another one than before; returns whether it was obeyed.

        One that has become faulty or has gone changes nothing: the gates stay as they are.
        """
        state = self._state()
        if state == self._seen:
            return False
        self._seen = state
        try:
            self._by_start = _by_start(read_tokens(self._path))
            self._known = {}
        except SettingsError as error:
            logger.error("%s; the tokens read before stay valid", error)
            return False
        logger.info("tokens %s: read again, %d tokens", self._path, len(self._by_start))
        self._warn_of_writers()
        return True

    def authenticate(self, authorization: bytes | None) -> Token:
        """Returns the token that an Authorization header shows.

        Raises:
            UnauthorizedError: there is no header, it is no bearer token, or the token is unknown.
        """
        known = self._known.get(authorization)
        return self._look_up(authorization) if known is None else known

    def _look_up(self, authorization: bytes | None) -> Token:
        if authorization is None:
            raise UnauthorizedError("expected a token: Authorization: Bearer TOKEN, got no such header")
        scheme, _, secret = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            raise UnauthorizedError("expected a token: Authorization: Bearer TOKEN, got another scheme")
        digest = hashlib.sha256(secret.strip()).digest()
        # Looked up by a part of the hash, which nobody can steer; the whole is compared in constant time.
        found = self._by_start.get(digest[:_START])
        if found is None or not hmac.compare_digest(bytes.fromhex(found.sha256), digest):
            raise UnauthorizedError("expected a token that is known, got another one")
        if len(authorization) <= _KNOWN_BYTES:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[authorization] = found
        return found

    def _state(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _warn_of_writers(self) -> None:
        try:
            mode = self._path.stat().st_mode
        except OSError:  # it went the moment after it was read
            return
        if mode & _WRITABLE_BY_OTHERS:
            logger.warning("tokens %s: others than its owner may write it, and so let themselves in", self._path)


def _by_start(tokens: list[Token]) -> Mapping[bytes, Token]:
    return {bytes.fromhex(token.sha256)[:_START]: token for token in tokens}
