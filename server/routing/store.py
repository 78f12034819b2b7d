"""The routes of all models, read from ``MODELS/<model>/route.json``."""

from collections.abc import Sequence
from pathlib import Path

from server.errors import RouteError
from server.routing.document import Route, decode_route

ROUTE_FILE = "route.json"


def read_route(folder: Path, versions: Sequence[str]) -> Route | None:
    """Returns a model's route document, None when there is none.

    Args:
        folder: the model's folder, MODELS/<model>.
        versions: the versions found there, those that were refused included.

    Raises:
        RouteError: the document cannot be read or names a version that is not there.
    """
    path = folder / ROUTE_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RouteError(f"{path}: expected a readable file, got: {error.strerror}") from error
    try:
        route = decode_route(data)
    except RouteError as error:
        raise RouteError(f"{path}: {error}") from error
    for version in (route.champion, *(challenger.version for challenger in route.challengers)):
        if version not in versions:
            raise RouteError(f"{path}: expected versions among {list(versions)}, got {version!r}")
    return route
