"""What changes while clients repeat their requests: a lane that remembers a head must not remember what it meant."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lanes.conftest import started
from tests.lanes.pair import Lane, Pair
from tests.lanes.raw import LAST, again, post
from tests.lanes.requests import DELAY, GRID, delay, flight, grid
from tests.server.live_server import wait_for

OF_ROUTE = again(post(DELAY, delay(3, parameters={"customer": "a"})))


@pytest.fixture(scope="module")
def changed(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both take what is asked of the admin API."""
    with started(models, tmp_path_factory.mktemp("changed"), {}) as both:
        yield both
        both.compare_all()


def put_route(pair: Pair, model: str, route: dict[str, object]) -> None:
    """Replaces a model's route at both."""
    for lane in pair.lanes:
        client, path = lane.running.client, f"/v1/models/{model}/route"
        client.put(path, json=route, headers={"if-match": client.get(path).headers["etag"]}).raise_for_status()


@pytest.mark.parametrize(
    "route",
    [
        {"champion": "1"},
        {"champion": "2"},
        {"champion": "1", "challengers": [{"version": "2", "mode": "split", "share": 1.0}]},
        {"champion": "1", "challengers": [{"version": "2", "mode": "shadow"}]},
    ],
    ids=["champion", "another champion", "split", "shadow"],
)
def test_another_route(changed: Pair, route: dict[str, object]) -> None:
    """Who answers is decided by the route that holds."""
    assert "200 200 200 open" == changed.ask(*OF_ROUTE)
    put_route(changed, "delay", route)

    assert "200 200 200 open" == changed.ask(*OF_ROUTE)


def test_a_version_that_goes_and_comes(changed: Pair) -> None:
    """While it is away its requests are refused, afterwards they are answered."""
    asked = again(post("/v2/models/by-header/versions/2/infer", flight()))

    def tell(action: str) -> None:
        for lane in changed.lanes:
            path, body = f"/v2/repository/models/by-header/{action}", {"parameters": {"version": "2"}}
            lane.running.client.post(path, json=body).raise_for_status()

    put_route(changed, "by-header", {"champion": "1"})
    assert "200 200 200 open" == changed.ask(*asked)
    tell("unload")
    assert "404 404 404 open" == changed.ask(*asked)
    tell("load")
    assert "200 200 200 open" == changed.ask(*asked)


def test_a_token_that_is_revoked(start: Callable[..., Pair], tmp_path: Path) -> None:
    """Its requests are refused as soon as the file says so, and those of another are let in."""
    file = tmp_path / "tokens.toml"

    def write(*names: str) -> None:
        entries = [
            f'[[token]]\nname = "{name}"\nsha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n'
            'scopes = ["infer", "metrics"]\n'
            for name in names
        ]
        file.write_text("".join(entries))

    def status(lane: Lane, name: str) -> str:
        return lane.converse((post(GRID, grid(), f"Authorization: Bearer {name}"),), 1, LAST).outline

    write("first", "watch")
    pair = start(token="watch", tokens=str(file), watch_s="0.05")
    asked = {name: again(post(GRID, grid(), f"Authorization: Bearer {name}")) for name in ("first", "second")}
    assert "200 200 200 open" == pair.ask(*asked["first"])
    assert "401 401 401 open" == pair.ask(*asked["second"])
    write("second", "watch")
    for lane in pair.lanes:
        wait_for(lambda lane=lane: status(lane, "second") == "200 open", "the new token")  # type: ignore[misc]  # bound at once
        assert ["401 open"] * 3 == [status(lane, "first") for _ in range(3)]
