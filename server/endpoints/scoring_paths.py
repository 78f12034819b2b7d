"""Which paths score: found without walking through all routes, by both lanes."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from server.endpoints.inference import Inference

_MOST_PATHS = 1024


class Target(NamedTuple):
    """What a path asks for: the endpoint, the model, and the client's choice of a version or None."""

    endpoint: Inference
    model: str
    version: str | None


class ScoringPaths:
    """The paths of the endpoints that score."""

    def __init__(self, endpoints: Sequence[tuple[str, Inference]]) -> None:
        """endpoints: each with its path, in which {model} and {version} stand for a part of any name."""
        self._endpoints = [(_pattern(path), endpoint) for path, endpoint in endpoints]
        self._known: dict[str, Target | None] = {}

    def find(self, path: str) -> Target | None:
        """Returns what a decoded path asks for, None for one that does not score."""
        try:
            return self._known[path]
        except KeyError:
            pass
        if len(self._known) >= _MOST_PATHS:
            self._known.clear()
        found = self._known[path] = self._match(path)
        return found

    def _match(self, path: str) -> Target | None:
        for pattern, endpoint in self._endpoints:
            match = pattern.fullmatch(path)
            if match is not None:
                return Target(endpoint, match["model"], match.groupdict().get("version"))
        return None


class ScoringFirst:
    """An ASGI application that asks endpoints that score before any other."""

    def __init__(self, paths: ScoringPaths, rest: ASGIApp) -> None:
        """rest: answers everything else."""
        self._paths = paths
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or runs the rest's lifespan."""
        if scope["type"] == "http" and scope["method"] == "POST":
            target = self._paths.find(scope["path"])
            if target is not None:
                await target.endpoint.respond(target.model, target.version, scope, receive, send)
                return
        await self._rest(scope, receive, send)


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path)))
