"""A stop while requests run: both lanes answer what had begun and nothing else, and end with status 0."""

import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from server.contract.events import Prediction
from tests.lanes.pair import Lane, Pair, Said
from tests.lanes.raw import Awaited, Step, head, post
from tests.lanes.requests import GRID, grid, json
from tests.server.live_server import read_events, wait_for

CONTENT = json(grid(id="held"))
HEAD = head("POST", GRID, f"Content-Length: {len(CONTENT)}", "Expect: 100-continue")
GO_ON = Awaited(b"100 Continue\r\n\r\n")
GOOD = post(GRID, grid(id="good"))
# What comes before the signal and after it, and what the client has got in the end.
CLIENTS: list[tuple[list[Step], bytes, str]] = [
    ([HEAD, GO_ON], CONTENT, "100 200 closed"),
    ([HEAD, GO_ON], CONTENT + GOOD, "100 200 closed"),
    ([HEAD, GO_ON], b"{" * len(CONTENT), "100 400 closed"),
    ([HEAD, GO_ON], CONTENT[:-1], "100 503 closed"),
    ([GOOD + HEAD, GO_ON], CONTENT, "200 100 200 closed"),
    ([GOOD + HEAD, GO_ON], CONTENT[:-1], "200 100 503 closed"),
    ([GOOD, Awaited(b"]}")], b"", "200 closed"),
    ([GOOD, Awaited(b"]}"), GOOD[:40]], b"", "200 closed"),
]


def test_a_stop(start: Callable[..., Pair]) -> None:
    """The same bytes to every client and the same events, whether the rest of its request still comes or not."""
    pair = start(drain_s="1")

    with ThreadPoolExecutor() as pool:
        expected, given = pool.map(stopped, pair.lanes)
    statuses = [lane.running.process.wait(20) for lane in pair.lanes]

    assert expected == given
    assert [outline for _, _, outline in CLIENTS] == [said.outline for said in expected]
    assert [0, 0] == statuses
    assert logged(pair.lanes[0]) == logged(pair.lanes[1])


def stopped(lane: Lane) -> list[Said]:
    """Returns what every client got of a server that was told to stop."""
    with ExitStack() as stack:
        connections = [stack.enter_context(lane.connection()) for _ in CLIENTS]
        for connection, (before, _, _) in zip(connections, CLIENTS, strict=True):
            connection.take(*before)
        lane.running.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not listens(lane), "the listener to close")
        for connection, (_, after, _) in zip(connections, CLIENTS, strict=True):
            connection.take(after)
        return [lane.said(connection) for connection in connections]


def listens(lane: Lane) -> bool:
    try:
        socket.create_connection(("127.0.0.1", lane.port), 1).close()
    except OSError:
        return False
    return True


def logged(lane: Lane) -> list[tuple[str, int]]:
    """Returns ids and statuses of what was answered, in no order: clients were served as they came."""
    events = read_events(lane.running.outbox)
    return sorted((event.subject, event.data.status) for event in events if isinstance(event, Prediction))
