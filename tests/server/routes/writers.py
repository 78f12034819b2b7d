"""A writer of routes in a process of its own: that dies in the middle, finds the disk full, or is one of many.

``python -m tests.server.routes.writers HOW NUMBER FOLDER`` tries one change of `flight` from revision 1.
"""

import os
import resource
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from server.errors import RouteStoreError, StaleRouteError
from server.routes.folder import RouteFolder
from server.routing.document import Challenger, Route
from server.routing.revision import Revision

START = datetime(2026, 3, 1, tzinfo=UTC)
WON, STALE, REFUSED, DIED = 0, 3, 4, 5


def revision(number: int, name: str = "", action: Any = "shares") -> Revision:
    """Returns a change of revision number - 1; the share tells it from others."""
    share = number / 100
    challengers = [Challenger(version="2", mode="split", share=share, ranges=[(0.0, share)])]
    return Revision(
        id=f"change-{number}{name}",
        model="flight",
        base=number - 1,
        time=START,
        by=name or "ann",
        action=action,
        route=Route(champion="1", challengers=challengers, revision=number),
    )


def change(folder: Path, name: str) -> int:
    """Returns how a change of revision 1 ended."""
    routes = RouteFolder(folder)
    try:
        routes.append(revision(2, name), routes.read("flight")[0])
    except StaleRouteError:
        return STALE
    except RouteStoreError as error:
        sys.stderr.write(str(error))
        return REFUSED
    return WON


def die_at(step: int) -> None:
    """Ends the process before the given call of those that bring something to the disk."""
    left = step

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if not left:
                os._exit(DIED)
            return function(*arguments, **named)

        return call

    os.fsync, os.replace = counted(os.fsync), counted(os.replace)


def race(folder: Path, count: int) -> None:
    """Prints how many of some processes, which all saw the same revision, won and how many were told they are late."""
    seen = RouteFolder(folder).read("flight")[0]
    gate, opener = os.pipe()
    children = []
    for child in range(count):
        if not (pid := os.fork()):
            os.read(gate, 1)
            try:
                RouteFolder(folder).append(revision(2, f"-{child}"), seen)
            except StaleRouteError:
                os._exit(STALE)
            os._exit(WON)
        children.append(pid)
    os.write(opener, b"." * count)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    sys.stdout.write(f"{codes.count(WON)} {codes.count(STALE)}")


if __name__ == "__main__":
    how, number, where = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    if how == "race":
        race(where, number)
        sys.exit()
    if how == "die":
        die_at(number)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))
    sys.exit(change(where, ""))
