"""A client of the routes of a running server.

AdminError           the server refused, or what answers is no Tiltyard server
└── AwayError        it does not answer at present; asking again later may help
"""

import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from server.errors import TiltyardError
from server.routing.changes import Difference
from server.routing.document import Route

T = TypeVar("T")

_ETAG = re.compile(r'(?:W/)?"(\d{1,16})"')  # a proxy that compresses makes it a weak one
_TOKEN = re.compile(r"[\x21-\x7e]+")
_LONGEST = 1000
_CONNECT_S = 5.0
# A proxy for the world outside, as HTTP_PROXY names it, does not reach this machine.
_DIRECT: Mapping[str, None] = {"all://localhost": None, "all://127.0.0.1": None, "all://[::1]": None}


class AdminError(TiltyardError):
    """What was asked for was not done. ``faults`` are those of a route, one by one, where the server named some."""

    def __init__(self, message: str, faults: Sequence[str] = ()) -> None:
        """message: a sentence."""
        super().__init__(message)
        self.faults = list(faults)


class AwayError(AdminError):
    """The server does not answer at present."""


@dataclass(frozen=True, slots=True)
class Held:
    """The route that holds, and its revision; 0 where the newest version is champion by default."""

    route: Route
    revision: int


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a change did, or would do: the route after it, and how that differs from the one before."""

    route: Route
    difference: Difference
    dry_run: bool


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One revision of the history: who did what when, and the route since then."""

    revision: int
    time: datetime
    action: str
    by: str = ""
    reason: str | None = None
    route: Route


@dataclass(frozen=True, slots=True)
class Change:
    """A change to ask for, as it is sent."""

    method: Literal["PUT", "POST"]
    target: Literal["route", "shares", "promote", "rollback"]
    body: bytes
    media_type: str = "application/json"
    query: Mapping[str, str] = field(default_factory=dict)


def setting(document: bytes, form: Literal["json", "toml"], reason: str | None) -> Change:
    """Returns the change to another document, whose bytes the server judges."""
    return Change("PUT", "route", document, f"application/{form}", {} if reason is None else {"reason": reason})


def sharing(shares: Mapping[str, float], reason: str | None) -> Change:
    """Returns the change of some challengers' shares."""
    return _posting("shares", {"shares": shares}, reason)


def promoting(version: str, reason: str | None) -> Change:
    """Returns the change that makes a version the champion."""
    return _posting("promote", {"version": version}, reason)


def rolling_back(revision: int, reason: str | None) -> Change:
    """Returns the change back to an earlier revision."""
    return _posting("rollback", {"revision": revision}, reason)


class _Refusal(msgspec.Struct, frozen=True):
    error: str
    faults: list[str] = []


class _Models(msgspec.Struct, frozen=True):
    models: list[str]


class RouteClient:
    """Asks one server, over connections that it keeps. Every method may raise AdminError."""

    def __init__(self, url: str, token: str | None = None, ca: Path | None = None, timeout_s: float = 30.0) -> None:
        """Connects to nothing yet.

        Args:
            url: where the server answers, ``http://`` or ``https://``.
            token: an API token with the scope ``admin``.
            ca: certificates, as PEM, of which one must have signed the server's; the system's without.
            timeout_s: for which each step of a request may wait.

        Raises:
            AdminError: one of these cannot be used; a token is never named.
        """
        self._url = _checked(url)
        if token is not None and not _TOKEN.fullmatch(token):
            raise AdminError("token: expected visible ASCII characters without spaces, got others")
        self._http = httpx.Client(
            base_url=self._url,
            headers={} if token is None else {"authorization": f"Bearer {token}"},
            verify=True if ca is None else _trusting(ca),
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_S)),
            mounts=_DIRECT,
        )

    def close(self) -> None:
        """Closes its connections."""
        self._http.close()

    def read(self, model: str) -> Held:
        """Returns the route that holds."""
        return self._held(self._send(model, "GET", "route"))

    def read_unless(self, model: str, revision: int) -> Held | None:
        """Returns the route that holds, None when it is still that of a revision."""
        response = self._send(model, "GET", "route", headers={"if-none-match": f'"{revision}"'})
        return None if response.status_code == 304 else self._held(response)

    def change(self, model: str, change: Change, revision: int, *, dry_run: bool) -> Answer:
        """Changes the route.

        Args:
            model: its name.
            change: what to do.
            revision: of the route that is changed; when another holds, nothing is done.
            dry_run: only say what would change.
        """
        query = {**change.query, "dry_run": "true"} if dry_run else dict(change.query)
        headers = {"if-match": f'"{revision}"', "content-type": change.media_type}
        response = self._send(
            model, change.method, change.target, content=change.body, params=query, headers=headers, writes=not dry_run
        )
        return self._decoded(response, Answer)

    def history(self, model: str, limit: int) -> list[Entry]:
        """Returns the newest revisions, the newest first."""
        return self._decoded(self._send(model, "GET", "route/history", params={"limit": str(limit)}), list[Entry])

    def _send(self, model: str, method: str, target: str, *, writes: bool = False, **rest: Any) -> httpx.Response:
        with self._connected(f"see `tiltyard route show {model}` for whether it was changed" if writes else ""):
            response = self._http.request(method, f"/v1/models/{quote(model, safe='')}/{target}", **rest)
        if response.status_code in (200, 304):
            return response
        raise self._refusal(model, response)

    def _held(self, response: httpx.Response) -> Held:
        revision = _revision(response)
        if revision is None:
            raise self._stranger("without the ETag of a route")
        return Held(self._decoded(response, Route), revision)

    def _decoded(self, response: httpx.Response, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(response.content, type=kind)
        except msgspec.DecodeError as error:
            raise self._stranger(f"something else than expected: {error}") from error

    def _refusal(self, model: str, response: httpx.Response) -> AdminError:
        status = response.status_code
        said = _said(response)
        if status >= 500 or status == 429:
            wait = response.headers.get("retry-after", "")
            again = f"; try again in {wait} s" if wait.isdigit() else ""
            return AwayError(f"{self._url} answered {status}{_after('' if said is None else said.error)}{again}")
        if status == 404:
            return self._not_found(model, said)
        if said is None:
            location = plain(response.headers.get("location", ""))
            return self._stranger(f"{status}" + (f", a redirection to {location}" if location else " without a reason"))
        if status in (401, 403):
            return AdminError(
                f"{self._url} answered {status}{_after(said.error)}; a token with the scope admin comes from "
                "--token-file or TILTYARD_TOKEN"
            )
        if status == 412:
            present = _revision(response)
            now = "" if present is None else f": revision {present} holds"
            return AdminError(
                f"somebody changed the route of {model!r} meanwhile{now}; this change was not made "
                f"(`tiltyard route show {model}` shows what holds)"
            )
        return AdminError(f"{self._url} answered {status}{_after(said.error)}", [plain(each) for each in said.faults])

    def _not_found(self, model: str, said: _Refusal | None) -> AdminError:
        try:
            models = msgspec.json.decode(self._http.get("/v2/models").content, type=_Models).models
        except (httpx.HTTPError, msgspec.DecodeError):
            return self._stranger("404 without a reason") if said is None else AdminError(plain(said.error))
        if model not in models:
            return AdminError(f"expected a model of {self._url}, among {_listed(models)}, got {model!r}")
        return AdminError(f"{self._url} has the model {model!r}, and answered 404{_after(said.error if said else '')}")

    def _stranger(self, what: str) -> AdminError:
        return AdminError(f"expected a Tiltyard server at {self._url}, got an answer {what}")

    @contextmanager
    def _connected(self, doubt: str) -> Iterator[None]:
        """Turns what can go wrong on the way into one sentence, with a doubt where the request may have arrived."""
        doubt = f"; {doubt}" if doubt else ""
        try:
            yield
        except (httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise AwayError(f"cannot connect to {self._url}: it took too long") from error
        except httpx.ConnectError as error:
            fault = _tls_fault(error)
            if fault is not None:
                raise AdminError(f"cannot trust {self._url}: {fault}") from error
            raise AwayError(f"cannot connect to {self._url}: {_last(error)}") from error
        except httpx.TimeoutException as error:
            raise AwayError(f"{self._url} did not answer in time{doubt}") from error
        except httpx.RemoteProtocolError as error:
            tls = "" if self._url.startswith("https") else "; does it want https?"
            raise AwayError(f"{self._url} ended the connection without an answer in HTTP{tls}{doubt}") from error
        except httpx.HTTPError as error:
            raise AwayError(f"the connection to {self._url} broke: {_last(error)}{doubt}") from error


def plain(text: str) -> str:
    """Returns a text from elsewhere as one line that no terminal takes for commands.

    Example:
        >>> plain("red\\x1b[31m")
        'red�[31m'
    """
    cut = text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
    return "".join(
        each if each.isprintable() else " " if each in "\n\t" else "\N{REPLACEMENT CHARACTER}" for each in cut
    )


def _posting(target: Literal["shares", "promote", "rollback"], body: dict[str, Any], reason: str | None) -> Change:
    return Change("POST", target, msgspec.json.encode(body if reason is None else {**body, "reason": reason}))


def _checked(url: str) -> str:
    """Returns a URL that can be asked and shown."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise AdminError(f"expected a URL such as http://127.0.0.1:8080, got {plain(url)!r}: {error}") from error
    if parsed.userinfo:
        raise AdminError("expected a URL without a password in it, got one with; a token has its own option")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise AdminError(f"expected a URL such as http://127.0.0.1:8080, got {plain(url)!r}")
    return url.rstrip("/")


def _trusting(ca: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:  # SSLError is one
        raise AdminError(f"{ca}: expected certificates as PEM, got: {_last(error)}") from error


def _tls_fault(error: BaseException) -> str | None:
    """Returns what is wrong with a server's TLS, None when something else is."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ssl.SSLCertVerificationError):
            return f"{found.verify_message}; --ca names a file with the authority of its certificate"
        if isinstance(found, ssl.SSLError):
            return f"it does not speak TLS as expected ({found.reason}); does it want http?"
        found = found.__cause__ or found.__context__
    return None


def _last(error: BaseException) -> str:
    """Returns what the system said, without the numbers of errors."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.strerror:
            return found.strerror
        found = found.__cause__ or found.__context__
    return plain(str(error)) or type(error).__name__


def _revision(response: httpx.Response) -> int | None:
    found = _ETAG.fullmatch(response.headers.get("etag", ""))
    return None if found is None else int(found[1])


def _said(response: httpx.Response) -> _Refusal | None:
    try:
        return msgspec.json.decode(response.content, type=_Refusal)
    except msgspec.DecodeError:
        return None


def _after(said: str) -> str:
    return f": {plain(said)}" if said else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(plain(name) for name in names[:20]) + (", …" if len(names) > 20 else "") if names else "none"
