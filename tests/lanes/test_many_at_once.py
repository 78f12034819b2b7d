"""Many clients at once, whose requests may share a run of the graph: each gets its own answer, whatever the others do.

The fault that this looks for is MLServer's: one cancelled or refused caller of a batch hangs or spoils the rest.
"""

import json as stdlib_json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.lanes.conftest import started
from tests.lanes.pair import Lane, Pair
from tests.lanes.raw import LAST, Awaited, Connection, post, statuses
from tests.lanes.requests import GRID, delay, flight, grid

ROUNDS = 8
CLIENTS = 40
TABLE = "/v2/models/delay/versions/2/infer"
FLOAT_NOISE = 1e-5
"""A row alone and the same row among others differ by as much in onnxruntime."""


def softmax(model: str, number: int, rows: int) -> bytes:
    name = {"mixing-rows": "input"}.get(model, "given")
    data = [[number + row, 0.5 * number * row] for row in range(rows)]
    tensor = {"name": name, "shape": [rows, 2], "datatype": "FP32", "data": data}
    return post(f"/v2/models/{model}/infer", {"id": f"of-{number}", "inputs": [tensor]})


@pytest.fixture(scope="module")
def crowded(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Servers of their own: who leaves is counted as the moment wants it, and is not compared."""
    with started(models, tmp_path_factory.mktemp("crowded"), {}) as both:
        yield both


SOUND: dict[str, Callable[[int], bytes]] = {
    "a table's matrix": lambda number: post(GRID, grid((number, 1.5 * number), id=f"of-{number}")),
    "several rows": lambda number: post(GRID, grid(*[(number, row) for row in range(number % 5)], id=f"of-{number}")),
    "columns": lambda number: post("/v2/models/flight/infer", flight(id=f"of-{number}")),
    "a graph that fails on some": lambda number: post(TABLE, delay(number % 24, id=f"of-{number}")),
    "a split with fallbacks": lambda number: post(
        "/v2/models/delay/infer", delay(number, id=f"of-{number}", parameters={"customer": number})
    ),
    "a fixed number of rows": lambda number: softmax("four", number, 4),
    "rows that change each other": lambda number: softmax("mixing", number, 1 + number % 3),
    "a table's that change each other": lambda number: softmax("mixing-rows", number, 1 + number % 3),
    "rows of names": lambda number: post(
        "/v1/models/delay/predict", {"id": f"of-{number}", "rows": [{"hour": number, "distance": 2.0}]}
    ),
}


def alone(lane: Lane, request: bytes) -> tuple[int, Any]:
    """Returns status and document of a request that nobody else's runs beside."""
    return read(lane.converse((request,), 1, LAST).text)


def read(text: bytes) -> tuple[int, Any]:
    """Returns the first answer's status and document."""
    start = text.index(b"\r\n\r\n") + 4
    document, _ = stdlib_json.JSONDecoder().raw_decode(text[start:].decode())
    return statuses(text)[0], document


def assert_alike(expected: Any, given: Any) -> None:
    """Holds two documents against each other, numbers within the noise of floats."""
    if isinstance(expected, dict) and isinstance(given, dict):
        assert expected.keys() == given.keys()
        for name in expected:
            assert_alike(expected[name], given[name])
    elif isinstance(expected, list) and isinstance(given, list):
        assert len(expected) == len(given)
        for one, other in zip(expected, given, strict=True):
            assert_alike(one, other)
    elif isinstance(expected, float) and isinstance(given, float):
        assert expected == pytest.approx(given, abs=FLOAT_NOISE, rel=FLOAT_NOISE)
    else:
        assert expected == given


def at_once(lane: Lane, requests: list[bytes], spoilers: list[Callable[[Connection], None]]) -> list[tuple[int, Any]]:
    """Returns what each request is answered, of which all but the last byte came before any is complete.

    spoilers: each gets a connection of its own, beside the others', and does its worst when half of them are complete.
    """
    with ExitStack() as stack:
        clients = [stack.enter_context(lane.connection()) for _ in requests]
        others = [stack.enter_context(lane.connection()) for _ in spoilers]
        for client, request in zip(clients, requests, strict=True):
            client.socket.sendall(request[:-1])
        for spoiler, other in zip(spoilers, others, strict=True):
            spoiler(other)
        for client, request in zip(clients, requests, strict=True):
            client.socket.sendall(request[-1:])
        answers = []
        for client in clients:
            client.wait_for_answers(1)
            client.take(LAST)
            answers.append(read(client.rest()))
        return answers


def leaves(path: str, content: dict[str, Any]) -> Callable[[Connection], None]:
    """Leaves when its request is whole, so that nobody waits for its answer."""

    def spoil(connection: Connection) -> None:
        connection.socket.sendall(post(path, content))
        connection.leave()

    return spoil


def leaves_within(path: str, content: dict[str, Any]) -> Callable[[Connection], None]:
    """Leaves in the middle of its body."""

    def spoil(connection: Connection) -> None:
        connection.socket.sendall(post(path, content)[:-9])
        connection.leave()

    return spoil


def sends(path: str, content: dict[str, Any] | bytes, *headers: str) -> Callable[[Connection], None]:
    """Sends something and does not look at the answer."""

    def spoil(connection: Connection) -> None:
        connection.socket.sendall(post(path, content, *headers))

    return spoil


def hurries(path: str, content: dict[str, Any]) -> Callable[[Connection], None]:
    """Has waited longer than it wanted by the time its body is there."""

    def spoil(connection: Connection) -> None:
        request = post(path, content, "X-Request-Timeout-Ms: 1", "Expect: 100-continue")
        connection.take(request[:-1], Awaited(b"100 Continue"), request[-1:])

    return spoil


@pytest.mark.parametrize("lane", [0, 1], ids=["asgi", "fast"])
@pytest.mark.parametrize("sound", SOUND.values(), ids=SOUND)
def test_each_gets_its_own_answer(crowded: Pair, lane: int, sound: Callable[[int], bytes]) -> None:
    """Every answer of a crowd is the one that its request gets alone, while others leave, fail, hurry and err."""
    server = crowded.lanes[lane]
    requests = [sound(number) for number in range(CLIENTS)]
    expected = [alone(server, request) for request in requests]
    path = requests[0].split(b" ", 2)[1].decode()
    body = stdlib_json.loads(requests[0].partition(b"\r\n\r\n")[2])
    spoilers = [
        leaves(path, body),
        leaves_within(path, body),
        sends(path, b"{"),
        sends(path, {**body, "inputs": [], "rows": [{"zz": 1}]}),
        sends(TABLE, delay(99)),
        hurries(path, body),
    ]

    for round_ in range(ROUNDS):
        given = at_once(server, requests, spoilers if round_ % 2 else [])
        assert_alike(expected, given)


@pytest.mark.parametrize("lane", [0, 1], ids=["asgi", "fast"])
def test_only_who_fails_is_told_so(crowded: Pair, lane: int) -> None:
    """In a crowd whose every fifth request makes the graph fail, every fifth is 500 and all others are right."""
    server = crowded.lanes[lane]
    hours = [99 if number % 5 == 2 else number % 24 for number in range(CLIENTS)]
    requests = [post(TABLE, delay(hour, id=f"of-{number}")) for number, hour in enumerate(hours)]
    expected = [alone(server, request) for request in requests]

    assert [500 if hour == 99 else 200 for hour in hours] == [status for status, _ in expected]
    for _ in range(ROUNDS):
        assert_alike(expected, at_once(server, requests, []))
