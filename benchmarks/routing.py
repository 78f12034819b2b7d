"""What the choice of a version costs a request, how fast units are assigned, and how soon every worker obeys a change.

Choosing: the server's own ``choose`` in this process, held to one core, without and with a split, in turns; and
requests a second of two servers, one without and one with a split between two equal graphs, in turns. Obeying: a
server of four workers, many connections over all of them, each asking for the route's revision without pause; the time
from sending a change until the last connection shows it. What this does not show: units that are columns or headers,
several servers, a Kafka cluster.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.load import answers, need_wrk, post, wrk
from benchmarks.machine import free_port, median, pinned, running, this_process_pinned, tiltyard, wait_until
from benchmarks.models import FLOATS, SEED, pack_matrix_models
from server.app import build_service
from server.eventlog.outbox import Outbox
from server.model_route import ModelRoute, choose
from server.payload import Caller
from server.routing.assignment import bucket_of, lanes_of
from server.routing.document import Challenger, Route, format_route
from server.routing.ranges import lay_out
from server.routing.wanted import Wanted
from server.settings import Settings

PATH = "/v2/models/bench/infer"
CONNECTIONS = 16
WORKERS = 4
ASKING = 32
CALLS = 100_000
CHANGES = 20
PLAIN, SPLIT = "no split", "one split"
ROUTES = {
    PLAIN: Route(champion="1"),
    SPLIT: Route(champion="1", challengers=[Challenger(version="2", mode="split", share=0.1)]),
}


def steps(rounds: int) -> int:
    """Returns how often ``measure`` will call ``advance``."""
    return 3 * rounds + rounds * len(ROUTES)


def measure(folder: Path, rounds: int, seconds: int, advance: Callable[[str], None]) -> dict[str, Any]:
    """Returns the cost of choosing, assignments a second, and the times until a change was obeyed everywhere."""
    need_wrk()
    for name, route in ROUTES.items():
        pack_matrix_models(folder / name, versions=2)
        (folder / name / "bench" / "route.json").write_bytes(format_route(route))
    return {
        "seed": SEED,
        "rounds": rounds,
        "seconds": seconds,
        "choosing": _choosing(folder, rounds, advance),
        "serving": _serving(folder, rounds, seconds, advance),
        "obeying": _obeying(folder, rounds, advance),
    }


class _Payload:
    """A request as far as the choice looks at it."""

    event_time = None
    parameters = None
    caller = Caller(0, None, lambda: False, lambda name: None)

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id

    def rows(self, signature: object) -> Any:
        """Is not called: the unit is the request's id."""
        raise AssertionError


def _choosing(folder: Path, rounds: int, advance: Callable[[str], None]) -> dict[str, Any]:
    """Returns the time of a choice without and with a split, and assignments a second, on one core."""
    payloads = [_Payload(f"customer-{i}") for i in range(1000)] * (CALLS // 1000)
    whole = lay_out(ROUTES[SPLIT], None)
    lanes = lanes_of(whole)
    units = [payload.request_id for payload in payloads]
    took: dict[str, list[float]] = {name: [] for name in ROUTES}
    rates = []
    with this_process_pinned(0), _resolved(folder) as routes:
        for round_ in range(rounds):
            for name, route in routes.items():
                began = time.perf_counter()
                for payload in payloads:
                    choose(route, None, payload)
                took[name].append((time.perf_counter() - began) / CALLS * 1e6)
            advance(f"round {round_ + 1}: choosing")
            began = time.perf_counter()
            for unit in units:
                lanes.owner(bucket_of("bench", unit))
            rates.append(CALLS / (time.perf_counter() - began))
            advance(f"round {round_ + 1}: assigning")
    return {
        "calls": CALLS,
        "plain_us": median(took[PLAIN]),
        "split_us": median(took[SPLIT]),
        "added_us": median([split - plain for plain, split in zip(took[PLAIN], took[SPLIT], strict=True)]),
        "assignments_s": median(rates),
        "runs": {**took, "assignments_s": rates},
    }


@contextmanager
def _resolved(folder: Path) -> Iterator[dict[str, ModelRoute]]:
    """Yields both routes as a server resolves them, over bundles it has loaded."""
    with ExitStack() as stack:
        settings = Settings(models=str(folder / PLAIN), outbox=folder / "choosing.db")
        log = Outbox(settings.outbox, settings.events)
        stack.callback(log.close)
        service = build_service(settings, log)
        stack.callback(service.swapper.close)
        found = {}
        for name, route in ROUTES.items():
            service.traffic.refresh("bench", Wanted(route=lay_out(route, None)))
            found[name] = service.traffic.routes["bench"]
        yield found


def _serving(folder: Path, rounds: int, seconds: int, advance: Callable[[str], None]) -> dict[str, Any]:
    """Returns requests a second without and with a split; both servers live, one at a time is asked."""
    row = np.random.default_rng(SEED).normal(size=FLOATS).round(6).tolist()
    request = {"inputs": [{"name": "input", "shape": [1, FLOATS], "datatype": "FP32", "data": row}]}
    script = post(folder, PATH, json.dumps(request).encode())
    rates: dict[str, list[float]] = {name: [] for name in ROUTES}
    with ExitStack() as stack:
        urls = {name: stack.enter_context(_server(folder, name, 1, core=0)) for name in ROUTES}
        for url in urls.values():
            wrk(script, url, CONNECTIONS, 1)
        for round_ in range(rounds):
            for name in list(ROUTES)[:: 1 if round_ % 2 == 0 else -1]:
                rates[name].append(wrk(script, urls[name], CONNECTIONS, seconds)["requests_s"])
                advance(f"round {round_ + 1}: {name}, {CONNECTIONS} connections")
    return {
        "connections": CONNECTIONS,
        "requests_s": {name: median(found) for name, found in rates.items()},
        "added_us": median(
            [1e6 / split - 1e6 / plain for plain, split in zip(rates[PLAIN], rates[SPLIT], strict=True)]
        ),
        "runs": rates,
    }


def _obeying(folder: Path, rounds: int, advance: Callable[[str], None]) -> dict[str, Any]:
    """Returns how long it took until every worker obeyed a change, from the moment it was sent."""
    found: list[float] = []
    answered: list[float] = []
    with _server(folder, SPLIT, WORKERS) as url:
        for round_ in range(rounds):
            for share in np.linspace(0.01, 0.5, CHANGES).round(3):
                until, answer = asyncio.run(_change(url, float(share) + round_ / 1000))
                found.append(until)
                answered.append(answer)
            advance(f"round {round_ + 1}: {CHANGES} changes")
    return {
        "workers": WORKERS,
        "connections": ASKING,
        "changes": len(found),
        "answered_ms": median(answered) * 1000,
        "median_ms": median(found) * 1000,
        "p95_ms": float(np.quantile(found, 0.95)) * 1000,
        "longest_ms": max(found) * 1000,
        "runs_s": found,
    }


async def _change(url: str, share: float) -> tuple[float, float]:
    """Changes a share; returns the seconds until the last connection showed it, and until it was answered."""
    async with _Clients(url) as clients:
        base = (await clients[0].get("/v1/models/bench/route")).headers["etag"]
        began = time.perf_counter()

        async def watch(client: httpx.AsyncClient) -> float:
            while (await client.get("/v1/models/bench/route")).headers["etag"] == base:
                pass
            return time.perf_counter() - began

        watching = [asyncio.create_task(watch(client)) for client in clients[1:]]
        body = {"shares": {"2": share}}
        answer = await clients[0].post("/v1/models/bench/shares", json=body, headers={"if-match": base})
        answer.raise_for_status()
        took = time.perf_counter() - began
        return max(await asyncio.gather(*watching)), took


class _Clients:
    """Clients of one connection each, which stays with the worker that accepted it."""

    def __init__(self, url: str) -> None:
        limits = httpx.Limits(max_connections=1)
        self._clients = [httpx.AsyncClient(base_url=url, timeout=30, limits=limits) for _ in range(ASKING + 1)]

    async def __aenter__(self) -> list[httpx.AsyncClient]:
        await asyncio.gather(*(client.get("/v2/health/live") for client in self._clients))
        return self._clients

    async def __aexit__(self, *given: object) -> None:
        for client in self._clients:
            await client.aclose()


@contextmanager
def _server(folder: Path, name: str, workers: int, core: int | None = None) -> Iterator[str]:
    """Runs a server over the bundles of a name and yields its URL, once all its workers accept."""
    port = free_port()
    command = tiltyard(
        "serve",
        "--models",
        str(folder / name),
        "--outbox",
        str(folder / f"{name} {port}.db"),
        "--port",
        str(port),
        "--workers",
        str(workers),
    )
    log = folder / f"{name}.log"
    with running(command if core is None else pinned(core, command), log) as process:
        url = f"http://127.0.0.1:{port}"
        wait_until(partial(answers, url), process, log)
        wait_until(
            lambda: workers == 1 or f"tiltyard_workers {workers}.0" in httpx.get(f"{url}/metrics").text, process, log
        )
        yield url
