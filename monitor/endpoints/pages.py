"""``/metrics`` for Prometheus, and ``/``: the status page and its files."""

from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from monitor.exporter import Exporter

_PAGE = Path(__file__).parent.parent / "page"


def routes(exporter: Exporter) -> list[BaseRoute]:
    """Returns the routes. A scrape judges panes, so Starlette gives it a thread."""

    def metrics(_: Request) -> Response:
        return Response(exporter.scrape(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def page(_: Request) -> Response:
        return FileResponse(_PAGE / "index.html")

    return [Route("/metrics", metrics), Route("/", page), Mount("/page", StaticFiles(directory=_PAGE))]
