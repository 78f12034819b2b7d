"""``POST /v1/log/forget``: the right to erasure, for the log of a server that runs."""

import asyncio
from datetime import UTC, datetime

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from server.audit import forget_line
from server.endpoints.replies import json_response
from server.endpoints.wire import read_body, read_head
from server.errors import InvalidRequestError
from server.eventlog.erasure import Order, erase_set_aside, find
from server.protocol.json_body import decode_json
from server.service import Service


class ForgetRequest(Order, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body: whose events, and why."""

    reason: str | None = None


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed, or with ``dry_run`` would be.

    ``shipped`` is how many of the events a Kafka topic has as well, which is not reached from here; ``set_aside`` how
    many entries of the file of events that no broker takes; ``damaged`` how many chunks could not be searched.
    """

    requests: int
    events: int
    shipped: int
    set_aside: int
    damaged: int
    dry_run: bool


_decoder = msgspec.json.Decoder(ForgetRequest)


class Forgetting:
    """The admin API of the log."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def forget(self, request: Request) -> Response:
        """``POST /v1/log/forget``: events of requests, by their ids or by a value in a column."""
        service = self._service
        body = await read_body(read_head(request.scope), request.receive, service.settings.limits)
        order = decode_json(_decoder, body)
        if order.fault is not None:
            raise InvalidRequestError(f"forget: {order.fault}")
        dry_run = request.query_params.get("dry_run", "false").lower()
        if dry_run not in ("true", "false"):
            raise InvalidRequestError("dry_run: expected true or false, got another value")
        await service.log.committed()
        path = service.settings.outbox
        found, _ = await asyncio.to_thread(find, path, order)
        set_aside = 0
        if dry_run == "false" and found.events:
            after = {"events": found.events, "requests": len(found.requests), "column": order.column}
            line = forget_line(request.state.caller, order.reason, after, datetime.now(UTC))
            await service.log.append_durably([line])
            service.metrics.audits.inc()
            await service.log.forget(found)
            set_aside = await asyncio.to_thread(erase_set_aside, path, found)
        return json_response(
            Forgotten(
                requests=len(found.requests),
                events=found.events,
                shipped=found.shipped,
                set_aside=set_aside,
                damaged=found.damaged,
                dry_run=dry_run == "true",
            )
        )
