"""A server with one model's routes in memory, that speaks the admin API: for the tests of its client."""

import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Path

from server.errors import RouteError
from server.routing.changes import difference, promoted, replaced, restored, same, version_faults, with_shares
from server.routing.document import Challenger, Guard, Override, Route, decode_route
from server.routing.ranges import lay_out

MODEL = "flight-delay"
VERSIONS = ["1", "2", "3"]
TOKEN = "tyd_double-secret"
FIRST = lay_out(
    Route(
        champion="1",
        challengers=[
            Challenger(version="2"),
            Challenger(version="3", mode="split", share=0.05, guard=Guard(error_rate=0.02, latency_ms=200)),
        ],
        unit="parameter:customer",
        overrides=[Override(header="x-tester", value="red", version="3")],
        revision=7,
    ),
    None,
)


@dataclass
class Double:
    """The server: its route, what it was asked, and what a test lets it do.

    ``before_change`` runs as a change arrives, before it is looked at. ``answer_with`` stands in for every answer.
    """

    tokens: dict[str, list[str]] = field(default_factory=dict)
    before_change: Callable[[], None] = lambda: None
    answer_with: Response | None = None
    certificate: Any = None
    port: int = 0

    def __post_init__(self) -> None:
        self.route = FIRST
        self.history: list[dict[str, Any]] = []
        self.asked: list[Request] = []
        self.bodies: list[bytes] = []
        self.polled = threading.Semaphore(0)
        self._record("set", "somebody", "first trial")
        app = Starlette(
            routes=[
                Path("/v1/models/{model}/route", self._handler(self._route), methods=["GET", "PUT"]),
                Path("/v1/models/{model}/route/history", self._handler(self._history)),
                Path("/v1/models/{model}/{action}", self._handler(self._post), methods=["POST"]),
                Path("/v2/models", self._handler(self._models)),
            ]
        )
        self._app = app

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Answers from now on, again on its former port after a stop."""
        tls = (
            {}
            if self.certificate is None
            else {"ssl_certfile": self.certificate.certificate, "ssl_keyfile": self.certificate.key}
        )
        config = uvicorn.Config(
            self._app, port=self.port, lifespan="off", ws="none", log_config=None, timeout_graceful_shutdown=1, **tls
        )
        listener = config.bind_socket()
        listener.listen()  # whoever connects from now on waits until the thread serves
        self.port = listener.getsockname()[1]
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],))
        self._thread.start()
        self._listener = listener

    def stop(self) -> None:
        """Answers no more."""
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    def change(self, route: Route, action: str = "set", by: str = "rollout", reason: str | None = None) -> None:
        """Changes the route behind the back of whoever asks."""
        self.route = route
        self._record(action, by, reason)

    def _record(self, action: str, by: str, reason: str | None) -> None:
        time = datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(minutes=len(self.history))
        entry = {"revision": self.route.revision, "time": time, "by": by, "action": action, "reason": reason}
        self.history.append({**entry, "route": self.route})

    def _handler(self, ask: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            self.asked.append(request)
            self.bodies.append(await request.body())
            if self.answer_with is not None:
                return self.answer_with
            scopes = self.tokens.get(request.headers.get("authorization", "").removeprefix("Bearer "))
            if self.tokens and scopes is None:
                return _json({"error": "expected a token that is known, got another"}, 401)
            if self.tokens and "admin" not in (scopes or ()):
                return _json({"error": "expected a token of scope admin, got 'reader'"}, 403)
            if request.path_params.get("model", MODEL) != MODEL:
                return _json({"error": "no such model"}, 404)
            return await ask(request)

        return handle

    async def _models(self, request: Request) -> Response:
        return _json({"models": [MODEL, "grid"]})

    async def _history(self, request: Request) -> Response:
        return _json(self.history[::-1][: int(request.query_params.get("limit", 100))])

    async def _route(self, request: Request) -> Response:
        if request.method == "PUT":
            form = "toml" if request.headers["content-type"] == "application/toml" else "json"
            body = self.bodies[-1]
            return self._changed(
                request,
                "set",
                lambda: replaced(self.route, decode_route(body, form)),
                request.query_params.get("reason"),
            )
        try:
            if request.headers.get("if-none-match") == self._etag["etag"]:
                return Response(status_code=304, headers=self._etag)
            return _json(self.route, headers=self._etag)
        finally:
            self.polled.release()

    async def _post(self, request: Request) -> Response:
        body = msgspec.json.decode(self.bodies[-1])
        action = request.path_params["action"]

        def wanted() -> Route:
            if action == "shares":
                return with_shares(self.route, body["shares"])
            if action == "promote":
                return promoted(self.route, body["version"])
            known = {each["revision"]: each["route"] for each in self.history}
            if body["revision"] not in known:
                raise RouteError(f"rollback: expected a revision among {list(known)}, got {body['revision']}")
            return restored(self.route, known[body["revision"]])

        return self._changed(request, action, wanted, body.get("reason"))

    def _changed(self, request: Request, action: str, wanted: Callable[[], Route], reason: str | None) -> Response:
        self.before_change()
        if "if-match" not in request.headers:
            return _json({"error": "expected the header If-Match"}, 428)
        if request.headers["if-match"] != self._etag["etag"]:
            return _json({"error": "another revision holds"}, 412, self._etag)
        try:
            route = wanted()
            faults = version_faults(route, VERSIONS, VERSIONS)
            if faults:
                raise RouteError.of(faults)
        except RouteError as error:
            return _json({"error": str(error), "faults": error.faults}, 422)
        before, dry_run = self.route, request.query_params.get("dry_run") == "true"
        route = before if same(route, before) else route
        if not dry_run and route is not before:
            self.change(route, action, "double", reason)
        return _json({"route": route, "difference": difference(before, route), "dry_run": dry_run}, headers=self._etag)

    @property
    def _etag(self) -> dict[str, str]:
        return {"etag": f'"{self.route.revision}"'}


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")
