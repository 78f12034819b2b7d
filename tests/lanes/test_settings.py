"""What settings change for those who score: the same in both lanes."""

import json as stdlib_json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lanes.conftest import started
from tests.lanes.pair import Lane, Pair
from tests.lanes.raw import LAST, Answered, Awaited, again, chunked, head, pieces, post
from tests.lanes.requests import (
    DELAY,
    ECHO,
    FLIGHT,
    GRID,
    binary,
    delay,
    echo,
    flight,
    flight_with,
    grid,
    json,
    raw_rows,
)
from tests.server.certificates import Authority
from tests.server.live_server import wait_for

GOOD = post(GRID, grid())
ROWS = "/v1/models/flight/predict"
ROW = {"carrier": "UA", "temp": 12.5, "hour": 17, "distance": 900}
BODY_LIMIT = 2048
HURRY_S = 0.3


@pytest.fixture(scope="module")
def narrow(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both allow little: bytes, rows, elements, nesting, and time."""
    limits = {
        "body_bytes": BODY_LIMIT,
        "decompressed_bytes": 4096,
        "header_bytes": 1024,
        "header_s": HURRY_S,
        "body_s": HURRY_S,
        "idle_s": HURRY_S,
        "elements": 20,
        "rows": 8,
        "nesting": 6,
    }
    settings = {f"limits__{name}": str(value) for name, value in limits.items()}
    with started(models, tmp_path_factory.mktemp("narrow"), settings) as both:
        yield both
        both.compare_all()


def long_head(size: int) -> bytes:
    """Returns a good request whose target and headers count as so many bytes."""
    counted = len(GRID) + len("Host: h\r\n") + len(f"Content-Length: {len(json(grid()))}\r\n") + len("X: \r\n")
    return post(GRID, grid(), "X: " + "x" * (size - counted))


NESTED = {"deep": {"deep": {"deep": {"deep": [[0]]}}}}  # six levels
NARROW = {
    "body at the limit": ("200 open", post(GRID, json(grid()).ljust(BODY_LIMIT))),
    "body beyond it": ("413 open", post(GRID, json(grid()).ljust(BODY_LIMIT + 1))),
    "body beyond it, good one behind": ("413 200 open", post(GRID, json(grid()).ljust(BODY_LIMIT + 1)) + GOOD),
    "body far beyond it": ("200 413 200 open", GOOD + post(GRID, b" " * 200_000) + GOOD),
    "chunks at the limit": ("200 open", chunked(GRID, json(grid()).ljust(BODY_LIMIT), 1000)),
    "chunks beyond it": ("413 200 open", chunked(GRID, json(grid()).ljust(BODY_LIMIT + 1), 1000) + GOOD),
    "one chunk beyond it": ("413 200 open", chunked(GRID, b" " * 100_000, 100_000) + GOOD),
    "expecting beyond it": ("413 200 open", post(GRID, b" " * 3000, "Expect: 100-continue") + GOOD),
    "chunks expecting beyond it": ("100 413 200 open", chunked(GRID, b" " * 3000, 999, "Expect: 100-continue") + GOOD),
    "elements": ("400 open", binary(GRID, raw_rows(*[(1, 2)] * 11), 0)),
    "rows": ("400 open", post(GRID, grid(*[(1, 2)] * 9))),
    "rows of names": ("400 open", post(ROWS, {"rows": [{"hour": 1}] * 9})),
    "nesting at the limit": ("200 open", post(GRID, grid(parameters=NESTED))),
    "nesting beyond it": ("400 open", post(GRID, grid(parameters={"deep": NESTED}))),
    "head at the limit": ("200 open", long_head(1024)),
    "head beyond it": ("431 closed", long_head(1025)),
    "head beyond it behind others": ("200 200 431 closed", GOOD + GOOD + long_head(1025) + GOOD),
    "head without end": ("431 closed", b"POST " + GRID.encode() + b" HTTP/1.1\r\nX: " + b"y" * 50_000),
    "target beyond it": ("431 closed", post(GRID + "?" + "q" * 2000, grid())),
    "trailers beyond it": ("200 431 closed", GOOD + chunked(GRID, grid(), 50, end=b"X: y\r\n" * 5000)),
}


@pytest.mark.parametrize(("outline", "data"), NARROW.values(), ids=NARROW)
@pytest.mark.parametrize("size", [None, 700], ids=["at once", "in pieces"])
def test_limits_of_size(narrow: Pair, outline: str, data: bytes, size: int | None) -> None:
    """At the limit answered, beyond it refused, and where HTTP allows it the connection goes on."""
    assert outline == narrow.ask(*([data] if size is None else pieces(data, max(size, len(data) // 20))))


SLOW = {
    "nothing": ("closed", b""),
    "half a head": ("408 closed", GOOD[:30]),
    "half a body": ("408 closed", GOOD[:-10]),
    "a good one and nothing": ("200 closed", GOOD),
    "a good one and half a head": ("200 408 closed", GOOD + b"POST /v2"),
    "good and bad ones and half a body": ("200 400 200 408 closed", GOOD + post(GRID, b"{") + GOOD + GOOD[:-1]),
    "half a chunk": ("408 closed", chunked(GRID, grid(), 50)[:-30]),
    "chunks without an end": ("408 closed", chunked(GRID, grid(), 50)[:-2]),
    "a body that was expected": ("100 408 closed", post(GRID, grid(), "Expect: 100-continue")[:-1]),
    "empty lines": ("closed", b"\r\n\r\n"),
    "an offer and half a body": (
        "408 closed", post(GRID, grid(), "Connection: Upgrade", "Upgrade: h2c")[:-5],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("outline", "data"), SLOW.values(), ids=SLOW)
def test_limits_of_time(narrow: Pair, outline: str, data: bytes) -> None:
    """What does not come is not waited for: 408 behind the answers before it, or no word where nothing had begun."""
    assert outline == narrow.ask(data, last=b"")


@pytest.fixture(scope="module")
def hiding(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both hide columns in every way and log one request in three."""
    folder = tmp_path_factory.mktemp("hiding")
    (folder / "key").write_bytes(b"0123456789abcdef\n")
    columns = {"carrier": "hash", "flight/distance": "mask", "grid/hour": "drop", "delay/distance": "mask"}
    settings = {
        "events__columns": stdlib_json.dumps(columns),
        "events__hash_key": str(folder / "key"),
        "events__sample_every": "3",
    }
    with started(models, folder, settings) as both:
        yield both
        both.compare_all()


def test_hidden_columns_and_a_sample(hiding: Pair) -> None:
    """Thirty requests to each model: who is kept, and what of them, and that refusals stay and say nothing."""
    sent: list[bytes] = []
    for number in range(30):
        name = f"request-{number}"
        sent += [
            post(FLIGHT, flight(id=name)),
            post(GRID, grid((number, 2.5), id=name)),
            post(DELAY, delay(24, id=name, parameters={"customer": number})),
            post(ROWS, {"id": name, "rows": [ROW]}),
            post("/v2/models/by-input/infer", flight(id=name)),
            post(FLIGHT, {**flight_with("distance", data=["secret"]), "id": name}),
        ]

    assert " ".join(["200 200 200 200 200 400"] * 30 + ["open"]) == hiding.ask(*sent)


def test_answers_that_wait_for_their_commit(start: Callable[..., Pair]) -> None:
    """They keep their order among those that wait for nothing, with the client's own time, and large inputs cut."""
    pair = start(events__durability="commit", events__client_time="true", events__input_bytes="150")
    then = {"parameters": {"time": "2013-03-01T08:00:00-05:00"}}
    requests = [
        post(GRID, grid(id="a", **then)),
        post(GRID, b"{"),
        post(FLIGHT, flight(id="b", **then)),
        post(GRID, grid(id="c", parameters={"time": "noon"})),
        head("GET", "/v2/health/ready"),
        post(DELAY, delay(24, parameters={"customer": 1, **then["parameters"]})),
        post("/v2/models/nobody/infer", grid()),
        binary(ECHO, *echo("binary")),
        chunked(GRID, grid(id="d"), 20, "Connection: close"),
    ]

    assert "200 400 200 400 200 200 404 200 200 closed" == pair.ask(b"".join(requests))
    assert "200 400 200 400 200 200 404 200 200 closed" == pair.ask(*requests)
    assert "200 200 200 200 open" == pair.ask(*again(GOOD, 4))
    assert "200 200 400 200 open" == pair.ask(*again(GOOD, 1), Answered(1), GOOD + post(GRID, b"{") + GOOD)
    pair.compare_all()


def test_with_workers(start: Callable[..., Pair]) -> None:
    """Whichever process answers: over eight connections, good and bad requests of every endpoint."""
    pair = start(workers="2")
    mixed = [GOOD, post(GRID, b"{"), post(FLIGHT, flight()), post(ROWS, {"id": "r", "rows": [ROW]}), GOOD[:-1] + b"{"]

    for _ in range(8):
        assert "200 400 200 200 400 open" == pair.ask(*mixed)
    pair.compare_all()


def test_only_errors_are_logged(start: Callable[..., Pair]) -> None:
    """With a sample of none."""
    pair = start(events__sample_every="0")

    assert "200 400 200 open" == pair.ask(GOOD + post(GRID, grid(id="wrong", inputs=[])) + post(FLIGHT, flight()))
    pair.compare_all()


def test_a_log_without_room(start: Callable[..., Pair]) -> None:
    """`block` answers 503 before any work is done, as often as it is asked."""
    pair = start(
        file_blocks="600",
        events__when_full="block",
        events__queue_bytes=str(1 << 20),
    )
    large = grid(*[(number, 900.5) for number in range(3000)], id="large")

    def full(lane: Lane) -> bool:
        return lane.running.client.post(GRID, json=large).status_code == 503

    assert "200 200 200 open" == pair.ask(*again(GOOD))
    for lane in pair.lanes:
        wait_for(lambda lane=lane: full(lane), "a full log")  # type: ignore[misc]  # bound at once
    steps = (GOOD + GOOD + head("GET", "/v2/health/live?x") + post(GRID, b"{") + GOOD, Answered(5), GOOD)
    expected, given = (lane.converse(steps, 6, LAST) for lane in pair.lanes)

    assert "503 503 200 400 503 503 open" == expected.outline
    assert expected == given


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def test_over_tls(start: Callable[..., Pair], authority: Authority) -> None:
    """In one write, in pieces, pipelined, expecting, refused, closing, and garbage behind."""
    signed = authority.sign("server")
    pair = start(trust=authority.certificate, tls__certificate=str(signed.certificate), tls__key=str(signed.key))
    large = post(GRID, grid(*[(1.5, 2.5)] * 3000))
    expecting = post(GRID, grid(), "Expect: 100-continue")
    closing = post(GRID, grid(id="c"), "Connection: close")

    assert "200 200 200 open" == pair.ask(*again(GOOD))
    assert "200 200 open" == pair.ask(*pieces(GOOD + GOOD, 40))
    assert "200 400 200 200 open" == pair.ask(GOOD + post(GRID, b"{") + large + GOOD)
    assert "100 200 open" == pair.ask(expecting[:-5], Awaited(b"100 Continue\r\n\r\n"), expecting[-5:])
    assert "200 200 closed" == pair.ask(GOOD + closing + GOOD)
    assert "200 400 closed" == pair.ask(GOOD + b"GARBAGE\r\n\r\n")
    pair.compare_all()
