"""Several servers that share routes through a real broker: one call to any of them reaches all."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from server.contract.events import Audited
from server.identifiers import uuid7
from tests.kafka.broker import Broker
from tests.server.live_server import Running, tensors, url_of, wait_for

ROUTE = "/v1/models/flight/route"
SPLIT = {"champion": "1", "challengers": [{"version": "2", "mode": "split", "share": 0.5}], "salt": "s"}


class Cluster:
    """Servers on bundles and logs of their own, with one topic of one broker."""

    def __init__(self, folder: Path, packed: Path, broker: Broker, stack: ExitStack) -> None:
        self.folder = folder
        self.broker = broker
        self.topic = f"routes-{uuid7()}"
        self._packed = packed
        self._stack = stack

    def start(self, name: str, workers: int = 1, document: str | None = None) -> Running:
        """Starts a server of its own folder, which is kept from an earlier start of that name."""
        models = self.folder / name / "models"
        if not models.exists():
            shutil.copytree(self._packed, models, ignore=shutil.ignore_patterns("*route*"))
        if document is not None:
            (models / "flight" / "route.json").write_text(document)
        outbox = self.folder / name / "outbox.db"
        command = [sys.executable, "-m", "server.cli", "serve", "--port", "0", "--models", str(models)]
        process = self._stack.enter_context(
            subprocess.Popen(
                [*command, "--outbox", str(outbox), "--workers", str(workers)],
                stderr=subprocess.PIPE,
                text=True,
                env={
                    **os.environ,
                    "TILTYARD_KAFKA__BOOTSTRAP_SERVERS": self.broker.bootstrap_servers,
                    "TILTYARD_KAFKA__ROUTES_TOPIC": self.topic,
                    "TILTYARD_FLUSH_S": "0.5",  # what the broker lacks at the end is not waited for
                },
            )
        )
        self._stack.callback(process.kill)
        client = self._stack.enter_context(httpx.Client(base_url=url_of(process), timeout=30))
        return Running(process, client, outbox)


@pytest.fixture
def cluster(tmp_path: Path, packed: Path, broker: Broker) -> Iterator[Cluster]:
    """Ended with the test."""
    with ExitStack() as stack:
        yield Cluster(tmp_path, packed, broker, stack)


def change(running: Running, base: int, share: float) -> httpx.Response:
    url = running.client.base_url.join("/v1/models/flight/shares")
    return httpx.post(url, json={"shares": {"2": share}}, headers={"if-match": f'"{base}"'}, timeout=60)


def revisions(running: Running) -> set[str]:
    """Returns what several new connections show, whichever worker takes them."""
    url = running.client.base_url.join(ROUTE)
    return {httpx.get(url, timeout=30).headers["etag"] for _ in range(8)}


def held_by(running: Running, revision: int) -> Callable[[], bool]:
    return lambda: revisions(running) == {f'"{revision}"'}


def test_one_call_reaches_every_worker_of_every_server(cluster: Cluster) -> None:
    """Without a hand; both logs have the audit event, under one id; history is the same on both."""
    one, other = cluster.start("one"), cluster.start("other", workers=2)
    put = one.client.put(ROUTE, json=SPLIT, headers={"if-match": '"0"'}, params={"reason": "shared"})
    wait_for(held_by(other, 1), "the route at the other server")
    back = change(other, 1, 0.2)
    wait_for(held_by(one, 2), "the change at the first server")

    histories = [each.client.get(f"{ROUTE}/history").json() for each in (one, other)]
    assert (put.status_code, back.status_code) == (200, 200)
    assert histories[0] == histories[1]
    assert [(each["revision"], each["reason"]) for each in histories[0]] == [(2, None), (1, "shared")]
    for each in (one, other):
        wait_for(lambda each=each: len(audits(each)) >= 2, "both audit events")
    assert audits(one) == audits(other)


def audits(running: Running) -> list[tuple[str, str]]:
    return [(event.id, event.data.action) for event in running.events() if isinstance(event, Audited)]


def test_of_writers_at_different_servers_one_wins(cluster: Cluster) -> None:
    """20 at once, at three servers: one 200, the rest 412, and all servers show the winner's share."""
    servers = [cluster.start(name) for name in ("a", "b", "c")]
    servers[0].client.put(ROUTE, json=SPLIT, headers={"if-match": '"0"'}).raise_for_status()
    for each in servers:
        wait_for(held_by(each, 1), "the first route")

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda i: change(servers[i % 3], 1, (i + 1) / 100), range(20)))

    assert Counter(each.status_code for each in answers) == {200: 1, 412: 19}
    won = next(i for i, each in enumerate(answers) if each.status_code == 200)
    for each in servers:
        wait_for(held_by(each, 2), "the winner's route")
        assert each.client.get(ROUTE).json()["challengers"][0]["share"] == (won + 1) / 100


def test_a_server_that_comes_later_serves_the_shared_route_from_its_first_answer(cluster: Cluster) -> None:
    """Whatever newer version or older document its folder brings along, which changes nothing for the others."""
    one = cluster.start("one")
    one.client.put(ROUTE, json={"champion": "1"}, headers={"if-match": '"0"'}).raise_for_status()

    late = cluster.start("late")
    with_document = cluster.start("image", document='{"champion": "2", "revision": 1}')

    infer = "/v2/models/flight/infer"
    answers = [each.client.post(infer, json=tensors()).json()["model_version"] for each in (late, with_document)]
    assert answers == ["1", "1"]
    assert [each.client.get(ROUTE).headers["etag"] for each in (one, late, with_document)] == ['"1"'] * 3


def test_an_edited_document_reaches_the_others(cluster: Cluster) -> None:
    """As a revision by "file"; the document itself stays as it was edited."""
    one, other = cluster.start("one"), cluster.start("other")
    one.client.put(ROUTE, json=SPLIT, headers={"if-match": '"0"'}).raise_for_status()
    wait_for(held_by(other, 1), "the first route")
    path = cluster.folder / "one" / "models" / "flight" / "route.json"
    path.write_text('{"champion": "2", "salt": "s"}')

    wait_for(held_by(other, 2), "the edited route at the other server")

    assert other.client.get(ROUTE).json()["champion"] == "2"
    assert [each["by"] for each in other.client.get(f"{ROUTE}/history").json()] == ["file", ""]


def test_while_the_broker_is_away_changes_are_refused_and_the_last_route_serves(cluster: Cluster) -> None:
    """503 that says so, also after a restart; once it is back, changes hold again without a hand."""
    one = cluster.start("one")
    one.client.put(ROUTE, json={"champion": "1"}, headers={"if-match": '"0"'}).raise_for_status()
    cluster.broker.stop()
    try:
        refused = change_champion(one, 1, "2")
        still = one.client.post("/v2/models/flight/infer", json=tensors()).json()["model_version"]
        one.process.terminate()
        assert one.process.wait(30) == 0
        again = cluster.start("one")
        after = again.client.post("/v2/models/flight/infer", json=tensors()).json()["model_version"]
        warnings = again.client.get("/health").json()["warnings"]
        ready = again.client.get("/v2/health/ready").status_code
    finally:
        cluster.broker.start()
    wait_for(lambda: change_champion(again, 1, "2").status_code == 200, "a change that holds")

    assert (refused.status_code, "retry-after" in refused.headers) == (503, True), refused.text
    assert (still, after, ready) == ("1", "1", 200)
    assert any(cluster.topic in warning for warning in warnings), warnings
    wait_for(held_by(again, 2), "the change")


def change_champion(running: Running, base: int, version: str) -> httpx.Response:
    headers = {"if-match": f'"{base}"'}
    return running.client.post("/v1/models/flight/promote", json={"version": version}, headers=headers)
