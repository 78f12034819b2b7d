"""Who is let in, until when, and how many at once: both lanes ask the same gate the same question."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.lanes.conftest import started
from tests.lanes.pair import Lane, Pair
from tests.lanes.raw import LAST, Awaited, Step, again, head, pieces, post
from tests.lanes.requests import GRID, delay, grid, json

EXPECT = "Expect: 100-continue"
GO_ON = Awaited(b"100 Continue\r\n\r\n")


def entry(name: str, scope: str, rest: str = "") -> str:
    """Returns a token file's entry for the token `secret-NAME`."""
    digest = hashlib.sha256(f"secret-{name}".encode()).hexdigest()
    return f'[[token]]\nname = "{name}"\nsha256 = "{digest}"\nscopes = ["{scope}"]\n{rest}\n'


@pytest.fixture(scope="module")
def guarded(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both want a token; that of `slow` is good for three requests in a quarter of an hour."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "tokens.toml").write_text(
        entry("free", "infer")
        + entry("other", "feedback")
        + entry("watch", "metrics")
        + entry("slow", "infer", "requests_per_s = 0.001\nburst = 3")
    )
    settings = {"tokens": str(folder / "tokens.toml")}
    with started(models, folder, settings, token="secret-watch") as both:
        yield both
        both.compare_all()


def with_token(header: str, target: str = GRID) -> bytes:
    return post(target, grid(), header)


@pytest.mark.parametrize(
    ("outline", "headers"),
    [
        ("200 open", ["Authorization: Bearer secret-free"]),
        ("200 open", ["AUTHORIZATION: bearer secret-free"]),
        ("200 open", ["Authorization: Bearer   secret-free  "]),
        ("200 open", ["Authorization: Bearer secret-free"] * 2),
        ("401 open", []),
        ("401 open", ["Authorization:"]),
        ("401 open", ["Authorization: Bearer"]),
        ("401 open", ["Authorization: Bearer nobody"]),
        ("401 open", ["Authorization: Basic secret-free"]),
        ("401 open", ["Authorization: secret-free"]),
        ("400 open", ["Authorization: Bearer secret-free", "Authorization: Bearer nobody"]),
        ("403 open", ["Authorization: Bearer secret-other"]),
        ("403 open", ["Authorization: Bearer secret-watch"]),
    ],
)
@pytest.mark.parametrize(
    "path", [GRID, "/v1/models/grid/predict", "/v2/models/nobody/infer", "/v1/models/grid:predict"]
)
def test_tokens(guarded: Pair, outline: str, headers: list[str], path: str) -> None:
    """Asked before the body is looked at: who is let in gets what the path says, the others always the same."""
    bodies = {"/v1/models/grid/predict": {"id": "t", "rows": []}, "/v1/models/grid:predict": {"instances": []}}
    expected = outline if "nobody" not in path else outline.replace("200", "404")

    assert expected == guarded.ask(post(path, bodies.get(path) or grid(), *headers))


@pytest.mark.parametrize("more", [[EXPECT], []])
def test_a_token_is_asked_for_before_the_body_comes(guarded: Pair, more: list[str]) -> None:
    """A client is refused at once, whether it waits to be told to go on, and the connection is of use all the same."""
    refused = head("POST", GRID, "Content-Length: 5", *more)

    assert "401 200 open" == guarded.ask(
        refused, Awaited(b"401 Unauthorized"), b"abcde" + with_token("Authorization: Bearer secret-free")
    )


def test_refused_and_let_in_behind_each_other(guarded: Pair) -> None:
    """One write: each request brings its own token."""
    tokens = ["free", "nobody", "free", "other", "free"]

    assert "200 401 200 403 200 open" == guarded.ask(
        b"".join(with_token(f"Authorization: Bearer secret-{name}") for name in tokens)
    )


def test_a_rate(guarded: Pair) -> None:
    """The burst passes, what is too much is 429 with the time to wait; a refused body costs as much as a good one."""
    slow, free = "Authorization: Bearer secret-slow", with_token("Authorization: Bearer secret-free")

    assert "200 400 200 429 429 200 open" == guarded.ask(
        with_token(slow) + post(GRID, b"{", slow) + with_token(slow) * 3 + free
    )


def lingering(request: bytes) -> tuple[Step, ...]:
    """Returns a request whose head is read some milliseconds before the body's end comes."""
    start = request.index(b"\r\n\r\n") + 4
    return (request[:start], GO_ON, *pieces(request[start:], 8))


@pytest.mark.parametrize(
    ("parameters", "headers"),
    [
        ({"timeout": 1}, []),
        ({"timeout": 1000}, []),
        ({}, ["X-Request-Timeout-Ms: 1"]),
        ({"timeout": 60_000_000}, ["X-Request-Timeout-Ms: 1"]),
        ({"timeout": 1}, ["X-Request-Timeout-Ms: 60000"]),
    ],
)
@pytest.mark.parametrize("path", [GRID, "/v2/models/delay/infer"])
def test_a_deadline_that_has_passed(pair: Pair, path: str, parameters: dict[str, int], headers: list[str]) -> None:
    """The body took longer than the client wanted to wait: 504, an event, and no run of the graph."""
    request = grid(parameters=parameters) if path == GRID else delay(3, parameters={**parameters, "customer": "a"})

    assert "100 504 open" == pair.ask(*lingering(post(path, request, *headers, EXPECT)))


def test_a_deadline_behind_others(pair: Pair) -> None:
    """It is counted from the arrival of its own head."""
    late = lingering(post(GRID, grid(id="late"), "X-Request-Timeout-Ms: 1", EXPECT))

    assert "200 100 504 200 open" == pair.ask(post(GRID, grid()) + late[0], *late[1:], post(GRID, grid()))


def test_as_many_at_once_as_may(start: Callable[..., Pair]) -> None:
    """With room for two, a third is answered 503 while its body is still to come; then there is room again."""
    pair = start(limits__concurrent_requests="2")
    content = json(grid(id="held"))

    assert "200 200 200 open" == pair.ask(*again(post(GRID, grid())))

    def asked(lane: Lane) -> tuple[str, list[bytes]]:
        with ExitStack() as stack:
            held = [stack.enter_context(lane.connection()) for _ in range(2)]
            for connection in held:
                connection.take(head("POST", GRID, f"Content-Length: {len(content)}", EXPECT), GO_ON)
            third = lane.converse((head("POST", GRID, "Content-Length: 3", EXPECT), Awaited(b"}"), b"abc"), 1, LAST)
            fourth = lane.converse((post(GRID, grid()),), 1, LAST)
            for connection in held:
                connection.take(content, Awaited(b"held"), LAST)
            said = [lane.said(connection).text for connection in held]
            after = lane.converse((post(GRID, grid()),), 1, LAST)
        outlines = ", ".join(each.outline for each in (third, fourth, after))
        return outlines, [third.text, fourth.text, *said, after.text]

    expected, given = (asked(lane) for lane in pair.lanes)

    assert expected == given
    assert "503 open, 503 open, 200 open" == expected[0]
    pair.compare("requests held")
    pair.compare_all()


@pytest.mark.parametrize("begun", [b"", post(GRID, grid())[:-20], head("POST", GRID, EXPECT)[:30]])
def test_clients_that_leave(pair: Pair, begun: bytes) -> None:
    """In the middle of a body or of a head, behind a good request: nothing of the rest is logged or counted."""
    for lane in pair.lanes:
        with lane.connection() as connection:
            connection.take(post(GRID, grid(id="before")), Awaited(b"before"), begun)
            connection.leave()

    pair.compare(begun)
    assert "200 open" == pair.ask(post(GRID, grid()))
