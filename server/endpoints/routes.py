"""``/v1/models/{model}/route``: who shares a model's traffic, and changing that.

Every change says which revision it is of, so that of two people who change the same route at once one is told.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from server.endpoints.replies import json_response
from server.endpoints.wire import read_body, read_head
from server.errors import InvalidRequestError, RouteError, UnconditionalError
from server.protocol.json_body import decode_json
from server.route_control import Changed
from server.routing.changes import Difference, difference, promoted, replaced, restored, with_shares
from server.routing.document import Route, decode_route
from server.routing.revision import Action
from server.service import Service


class SharesRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST …/shares``: a new share for each version named."""

    shares: dict[str, float]
    reason: str | None = None


class PromoteRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST …/promote``."""

    version: str
    reason: str | None = None


class RollbackRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST …/rollback``: the earlier revision whose route is to hold again."""

    revision: int
    reason: str | None = None


class RouteChange(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a change: the route that holds now, or with ``dry_run`` would, and what that changes."""

    route: Route
    difference: Difference
    dry_run: bool


class RouteRevision(msgspec.Struct, frozen=True, kw_only=True):
    """One change in a route's history."""

    revision: int
    time: datetime
    by: str
    action: Action
    reason: str | None
    route: Route


_shares_decoder = msgspec.json.Decoder(SharesRequest)
_promote_decoder = msgspec.json.Decoder(PromoteRequest)
_rollback_decoder = msgspec.json.Decoder(RollbackRequest)
_TOML = ("application/toml", "text/toml", "text/x-toml")
_LONGEST_REASON = 2000


class RouteEndpoints:
    """The admin API of routes."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def show(self, request: Request) -> Response:
        """``GET /v1/models/{model}/route``: the route that is obeyed, its revision as entity tag."""
        route = self._service.traffic.document(request.path_params["model"])
        headers = {"etag": _tag(route)}
        if _tag(route) in _tags(request.headers.get("if-none-match", "")):
            return Response(status_code=304, headers=headers)
        return json_response(route, headers=headers)

    async def replace(self, request: Request) -> Response:
        """``PUT /v1/models/{model}/route``: a whole document, in JSON or TOML."""
        form: Literal["json", "toml"] = "toml" if _is_toml(request) else "json"
        wanted = decode_route(await self._body(request), form)
        reason = request.query_params.get("reason")
        return await self._change(request, "set", reason, lambda former: replaced(former, wanted))

    async def shares(self, request: Request) -> Response:
        """``POST /v1/models/{model}/shares``: other shares for some challengers."""
        wanted = decode_json(_shares_decoder, await self._body(request))
        return await self._change(request, "shares", wanted.reason, lambda former: with_shares(former, wanted.shares))

    async def promote(self, request: Request) -> Response:
        """``POST /v1/models/{model}/promote``: another champion."""
        wanted = decode_json(_promote_decoder, await self._body(request))
        return await self._change(request, "promote", wanted.reason, lambda former: promoted(former, wanted.version))

    async def rollback(self, request: Request) -> Response:
        """``POST /v1/models/{model}/rollback``: an earlier route, as a new revision."""
        wanted = decode_json(_rollback_decoder, await self._body(request))
        revisions = await self._service.routes.history(request.path_params["model"])
        earlier = {revision.number: revision.route for revision in revisions}
        if wanted.revision not in earlier:
            raise RouteError(f"rollback: expected a revision of {_span(list(earlier))}, got {wanted.revision}")
        route = earlier[wanted.revision]
        return await self._change(request, "rollback", wanted.reason, lambda former: restored(former, route))

    async def history(self, request: Request) -> Response:
        """``GET /v1/models/{model}/route/history``: every revision, newest first."""
        limit = request.query_params.get("limit", "1000")
        if not limit.isdecimal() or not 1 <= int(limit) <= 10_000:
            raise InvalidRequestError("limit: expected a number from 1 to 10000, got another value")
        revisions = await self._service.routes.history(request.path_params["model"])
        return json_response(
            [
                RouteRevision(
                    revision=each.number,
                    time=each.time,
                    by=each.by,
                    action=each.action,
                    reason=each.reason,
                    route=each.route,
                )
                for each in revisions[: int(limit)]
            ]
        )

    async def _change(
        self, request: Request, action: Action, reason: str | None, make: Callable[[Route], Route]
    ) -> Response:
        if reason is not None and len(reason) > _LONGEST_REASON:
            raise InvalidRequestError(f"reason: expected at most {_LONGEST_REASON} characters, got {len(reason)}")
        dry_run = _flag(request, "dry_run")
        changed = await self._service.routes.change(
            request.path_params["model"],
            _base(request),
            make,
            action=action,
            by=request.state.caller,
            reason=reason,
            dry_run=dry_run,
        )
        holds = changed.before if dry_run else changed.after
        return json_response(_told(changed, dry_run), headers={"etag": _tag(holds)})

    async def _body(self, request: Request) -> bytes:
        return await read_body(read_head(request.scope), request.receive, self._service.settings.limits)


def _told(changed: Changed, dry_run: bool) -> RouteChange:
    return RouteChange(route=changed.after, difference=difference(changed.before, changed.after), dry_run=dry_run)


def _base(request: Request) -> int | None:
    """Returns the revision that a change is of, None for whichever holds."""
    condition = request.headers.get("if-match")
    if condition is None:
        raise UnconditionalError('expected a header If-Match with the revision to change, such as "7", got none')
    if condition.strip() == "*":
        return None
    tags = _tags(condition)
    if len(tags) != 1 or not tags[0][1:-1].isdecimal() or len(tags[0]) > 18:
        raise InvalidRequestError('header If-Match: expected one revision in quotes, such as "7", got another value')
    return int(tags[0][1:-1])


def _tags(header: str) -> list[str]:
    """Returns the strong entity tags of a header, in their quotes."""
    found = [tag.strip() for tag in header.split(",")]
    return [tag for tag in found if len(tag) > 2 and tag.startswith('"') and tag.endswith('"')]


def _tag(route: Route) -> str:
    return f'"{route.revision}"'


def _flag(request: Request, name: str) -> bool:
    value = request.query_params.get(name, "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise InvalidRequestError(f"{name}: expected true or false, got another value")
    return value in ("true", "1")


def _is_toml(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() in _TOML


def _span(revisions: list[int]) -> str:
    return f"{min(revisions)} to {max(revisions)}" if revisions else "a route that has been changed, it has none yet"
