"""An order to forget, sent to the server that writes the log."""

from pathlib import Path

import httpx
import msgspec

from server.eventlog.erasure import Order
from server.logbook.errors import LogbookError
from server.routes.client import plain


class Forgot(msgspec.Struct, frozen=True, kw_only=True):
    """What a server has removed, or would; see server.endpoints.forgetting."""

    requests: int
    events: int
    shipped: int
    set_aside: int
    damaged: int
    dry_run: bool


def order_forgetting(
    url: str, token: str | None, ca: Path | None, order: Order, reason: str | None, *, dry_run: bool
) -> Forgot:
    """Returns what a server has removed of its log, or would.

    Args:
        url: where it answers.
        token: an API token with the scope ``admin``.
        ca: certificates, as PEM, of which one must have signed the server's.
        order: whose events.
        reason: why.
        dry_run: only say what would go.

    Raises:
        LogbookError: it does not answer, or refuses.
    """
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    body = {**msgspec.structs.asdict(order), "reason": reason}
    query = {"dry_run": "true"} if dry_run else {}
    try:
        # It reads the whole log first, which takes as long as it takes.
        timeout = httpx.Timeout(None, connect=5.0)
        verify: bool | str = True if ca is None else str(ca)
        with httpx.Client(headers=headers, timeout=timeout, verify=verify) as client:
            reply = client.post(f"{url.rstrip('/')}/v1/log/forget", json=body, params=query)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise LogbookError(f"{url}: expected a server that answers, got: {plain(str(error))}") from error
    if reply.status_code != 200:
        raise LogbookError(f"{url}: expected it to forget, got status {reply.status_code}: {plain(reply.text)}")
    try:
        return msgspec.json.decode(reply.content, type=Forgot)
    except msgspec.DecodeError as error:
        raise LogbookError(f"{url}: expected a Tiltyard server, got something else: {error}") from error
