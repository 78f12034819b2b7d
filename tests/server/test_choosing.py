"""Who answers a request and why, what keeps its version, and the champion that stands in for a challenger."""

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from server.bundles.repository import Repository
from server.contract.events import Answer, Prediction
from server.endpoints.inference import Exchange, NamedRows, Tensors
from server.endpoints.wire import read_head
from server.errors import (
    BundleError,
    ClientGoneError,
    DeadlineError,
    ExecutionError,
    InvalidRequestError,
    NotReadyError,
    OutboxFullError,
    TiltyardError,
)
from server.eventlog.outbox import Outbox
from server.execution.batcher import Batcher
from server.execution.session import Version, load_version
from server.metrics import Metrics
from server.model_route import Choice, choose
from server.routing.assignment import assign, bucket_of
from server.routing.changes import with_shares
from server.routing.document import Challenger, Guard, Override, Route, encode_route
from server.routing.ranges import lay_out
from server.routing.wanted import wanted_of
from server.scoring import Scored, Scorer
from server.settings import EventSettings
from server.traffic import Traffic
from tests.server.failing_graph import replace_files, write_failing
from tests.server.live_server import read_events, tensors
from tests.server.protocol.requests import LIMITS, WRITERS, body_of

GOOD, FAILING = {"hour": 3, "distance": 1.0}, {"hour": 24, "distance": 1.0}
SERVICE: Any = SimpleNamespace(tensor_limits=LIMITS, settings=SimpleNamespace(events=EventSettings()))


def payload(
    body: bytes | dict[str, Any],
    form: Callable[..., Any] = Tensors,
    headers: dict[str, str] | None = None,
    json_length: int | None = None,
    arrived_ns: int | None = None,
    gone: Callable[[], bool] = lambda: False,
) -> Exchange:
    """Returns a request as an endpoint makes it from a body and headers."""
    found = [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    if json_length is not None:
        found.append((b"inference-header-content-length", str(json_length).encode()))
    scope = {"headers": found, "tiltyard.gone": gone, "tiltyard.arrived_ns": arrived_ns or time.perf_counter_ns()}
    made: Exchange = form(body if isinstance(body, bytes) else msgspec.json.encode(body), read_head(scope), SERVICE)
    return made


def rows(*values: dict[str, Any], headers: dict[str, str] | None = None, **members: Any) -> Exchange:
    """Returns a request of rows; without one, of a row that no version fails on."""
    return payload({"rows": values or [GOOD], **members}, NamedRows, headers)


class Bench:
    """A scorer over real versions of one model, with a log of its own, and what guards said."""

    def __init__(self, model: str, versions: list[Path], folder: Path, events: EventSettings | None = None) -> None:
        self.model = model
        self.outbox_path = folder / "outbox.db"
        self.outbox = Outbox(self.outbox_path, events or EventSettings())
        self.repository: Repository[Version] = Repository()
        self.metrics = Metrics(self.outbox)
        self.traffic = Traffic(self.repository, self.metrics)
        for path in versions:
            self.repository.put(model, path.name, load_version(path))
        self.tripped: list[tuple[str, str, str]] = []
        self.scorer = Scorer(
            self.outbox, events or EventSettings(), Batcher(1024, 512), lambda *told: self.tripped.append(told)
        )

    def obey(self, route: Route) -> Route:
        """Takes a route, and returns it whole."""
        whole = lay_out(route, None)
        self.traffic.refresh(self.model, wanted_of(encode_route(whole), None))
        assert self.traffic.faults == {}
        return whole

    def choose(self, request: Exchange, version: str | None = None) -> Choice:
        return choose(self.traffic.route(self.model, version), version, request)

    def score(self, request: Exchange, version: str | None = None) -> Scored:
        return asyncio.run(self.scorer.score(self.traffic.route(self.model, version), version, request))

    def answers(self) -> list[Answer]:
        """Returns what the log has of predictions, once nothing waits."""
        asyncio.run(self.outbox.committed())
        return [event.data for event in read_events(self.outbox_path) if isinstance(event, Prediction)]

    def count(self, series: str, version: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(series, {"model": self.model, "version": version, **labels}) or 0

    def requests(self, version: str, role: str, code: int) -> float:
        return self.count("tiltyard_requests_total", version, role=role, code=str(code))

    def fallbacks(self, version: str = "2") -> float:
        return self.count("tiltyard_fallbacks_total", version)


@pytest.fixture
def flight(packed: Path, tmp_path: Path) -> Iterator[Bench]:
    """`flight` 1, 2 and, the same graph as 1, 3."""
    shutil.copytree(packed / "flight" / "1", tmp_path / "flight" / "3")
    replace_files(tmp_path / "flight" / "3", {})
    made = Bench("flight", [packed / "flight" / "1", packed / "flight" / "2", tmp_path / "flight" / "3"], tmp_path)
    yield made
    made.outbox.close()


@pytest.fixture
def delay(packed: Path, tmp_path: Path) -> Iterator[Bench]:
    """`delay` 1; 2, which fails on hours beyond 23; and 3, which takes the rows of `flight`."""
    write_failing(packed, tmp_path / "models")
    third = tmp_path / "models" / "delay" / "3"
    shutil.copytree(packed / "flight" / "1", third)
    manifest = msgspec.json.decode((third / "bundle.json").read_bytes())
    (third / "bundle.json").write_bytes(msgspec.json.encode(manifest | {"model": "delay"}))
    replace_files(third, {})
    made = Bench("delay", [tmp_path / "models" / "delay" / version for version in "123"], tmp_path)
    yield made
    made.outbox.close()


def split(version: str, share: float, guard: Guard | None = None) -> Challenger:
    return Challenger(version=version, mode="split", share=share, guard=guard)


ALL_TO_2 = Route(champion="1", challengers=[split("2", 1.0)])


def test_units_go_where_the_document_alone_says(flight: Bench) -> None:
    """By request id: version, rule, bucket and propensity of 500 units are those of the pure function."""
    route = flight.obey(Route(champion="1", challengers=[split("2", 0.3), split("3", 0.2)], revision=7))

    for place in range(500):
        choice = flight.choose(payload(tensors(id=f"unit-{place}")))
        expected = assign(route, f"unit-{place}", "flight")
        assert (choice.arm.name, choice.rule, choice.bucket, choice.propensity, choice.unit) == (
            expected.version,
            expected.rule,
            expected.bucket,
            expected.propensity,
            f"unit-{place}",
        )


def test_a_share_that_grows_keeps_who_had_it(flight: Bench) -> None:
    """Requests of 400 customers at 10, 25 and 60 percent: who was with the challenger stays, and the shares hold."""
    route = Route(champion="1", challengers=[split("2", 0.1)], unit="parameter:customer", salt="ramp")
    had: set[int] = set()
    for share in (0.1, 0.25, 0.6):
        route = with_shares(lay_out(route, None), {"2": share})
        flight.obey(route)
        has = {
            customer
            for customer in range(400)
            if flight.choose(payload(tensors(parameters={"customer": customer}))).arm.name == "2"
        }
        assert had <= has
        assert abs(len(has) / 400 - share) < 0.08
        had = has


OVERRIDES = [
    Override(header="X-Tester", value="red", version="2"),
    Override(header="x-beta", value="1", version="3"),
    Override(header="x-tester", value="champion", version="1"),
]


@pytest.mark.parametrize(
    ("headers", "version", "arm", "rule", "role"),
    [
        ({}, None, "2", "split", "challenger"),
        ({"x-tester": "blue"}, None, "2", "split", "challenger"),
        ({"x-tester": "Red"}, None, "2", "split", "challenger"),
        ({"x-tester": "red"}, None, "2", "override", "challenger"),
        ({"x-beta": "1"}, None, "3", "override", "challenger"),
        ({"x-beta": "1", "x-tester": "red"}, None, "2", "override", "challenger"),
        ({"x-tester": "champion"}, None, "1", "override", "champion"),
        ({"x-tester": "red"}, "3", "3", "client", "challenger"),
        ({}, "1", "1", "client", "champion"),
    ],
)
def test_client_before_override_before_split(
    flight: Bench, headers: dict[str, str], version: str | None, arm: str, rule: str, role: str
) -> None:
    """The client's version, then the first override that matches, header's name in any case, then the split."""
    flight.obey(Route(champion="1", challengers=[split("2", 1.0)], overrides=OVERRIDES, revision=4))
    request = payload(tensors(id="a"), headers=headers)

    choice = flight.choose(request, version)
    scored = flight.score(request, version)

    assert (choice.arm.name, choice.rule, choice.arm.role, choice.propensity) == (arm, rule, role, 1.0)
    assert (choice.bucket, choice.unit) == (bucket_of("flight", "a"), "a")
    [answer] = flight.answers()
    assert (answer.version, answer.rule, answer.role, answer.revision, answer.status) == (arm, rule, role, 4, 200)
    assert (scored.version.manifest.version, answer.propensity, answer.bucket) == (arm, 1.0, choice.bucket)


def test_propensities_are_those_of_the_rule(flight: Bench) -> None:
    """Champion and split: their parts of the traffic, which the event has as share too."""
    flight.obey(Route(champion="1", challengers=[split("2", 0.3)]))
    for place in range(40):
        flight.score(payload(tensors(id=str(place))))

    found = {(each.version, each.rule, each.propensity, each.share) for each in flight.answers()}
    assert found == {("1", "champion", 0.7, 0.7), ("2", "split", 0.3, 0.3)}


def test_an_override_to_what_does_not_serve_is_none(flight: Bench) -> None:
    """A version whose bundle was refused answers nobody; such requests go where the others go."""
    flight.repository.refuse("flight", "3", BundleError("damaged"))
    flight.obey(Route(champion="1", overrides=OVERRIDES))

    assert flight.choose(payload(tensors(), headers={"x-beta": "1"})).rule == "champion"


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        ("customer-7", "customer-7"),
        ("Zoë ✈", "Zoë ✈"),
        (7, "7"),
        (-7, "-7"),
        (2**63, "9223372036854775808"),
        (0, "0"),
        (True, "true"),
        (False, "false"),
        ("", None),
        (7.0, None),
        (None, None),
        ([7], None),
        ({"id": 7}, None),
    ],
)
def test_a_parameter_as_unit(flight: Bench, value: object, unit: str | None) -> None:
    """Text, integers and booleans as every language writes them; for anything else the request id stands in."""
    flight.obey(Route(champion="1", challengers=[split("2", 0.5)], unit="parameter:customer"))

    choice = flight.choose(payload(tensors(id="a", parameters={"customer": value})))

    assert (choice.unit, choice.bucket) == (unit or "a", bucket_of("flight", unit or "a"))


def test_without_the_parameter_the_request_id_is_the_unit(flight: Bench) -> None:
    """Other parameters or none; and a request without an id has the one it is given."""
    flight.obey(Route(champion="1", unit="parameter:customer"))

    assert flight.choose(payload(tensors(id="a", parameters={"other": "b"}))).unit == "a"
    assert flight.choose(payload(tensors(id="a"))).unit == "a"
    request = payload(tensors())
    assert flight.choose(request).unit == request.request_id != ""


@pytest.mark.parametrize(
    ("headers", "unit"),
    [
        ({"x-customer": "c7"}, "c7"),
        ({"x-customer": ""}, "a"),
        ({"x-other": "c7"}, "a"),
        ({"x-customer": "Zo\xeb"}, "Zo\ufffd"),
        ({"x-customer": "Zoë".encode().decode("latin-1")}, "Zoë"),
    ],
)
def test_a_header_as_unit(flight: Bench, headers: dict[str, str], unit: str) -> None:
    """Its bytes as UTF-8, whatever case the document writes its name in."""
    flight.obey(Route(champion="1", challengers=[split("2", 0.5)], unit="header:X-Customer"))

    assert flight.choose(payload(tensors(id="a"), headers=headers)).unit == unit


COLUMNS = {"carrier": "BYTES", "temp": "FP32", "hour": "INT64", "distance": "FP32"}


def table(*values: tuple[str, int], form: str) -> Exchange:
    """Returns rows of `flight` by carrier and hour in one of three forms."""
    if form == "rows":
        named = [{"carrier": carrier, "temp": 1.5, "hour": hour, "distance": 900.0} for carrier, hour in values]
        return payload({"id": "a", "rows": named}, NamedRows)
    arrays = {
        "carrier": np.array([carrier for carrier, _ in values], dtype=object).reshape(-1, 1),
        "temp": np.full((len(values), 1), 1.5, dtype=np.float32),
        "hour": np.array([hour for _, hour in values], dtype=np.int64).reshape(-1, 1),
        "distance": np.full((len(values), 1), 900.0, dtype=np.float32),
    }
    body, length = body_of(*(WRITERS[form](name, COLUMNS[name], array) for name, array in arrays.items()), id="a")
    return payload(body, json_length=length if form == "binary" else None)


@pytest.mark.parametrize("form", ["json", "binary", "rows"])
@pytest.mark.parametrize(("column", "unit"), [("carrier", "UA"), ("hour", "17")])
def test_an_input_as_unit(flight: Bench, form: str, column: str, unit: str) -> None:
    """A column's value in the first row, equal in every form that a request can have; the event's bucket is its."""
    flight.obey(Route(champion="1", challengers=[split("2", 0.5)], unit=f"input:{column}"))

    assert flight.choose(table(("UA", 17), ("DL", 3), form=form)).unit == unit
    flight.score(table(("UA", 17), ("DL", 3), form=form))

    [answer] = flight.answers()
    assert (answer.bucket, answer.rows) == (bucket_of("flight", unit), 2)


@pytest.mark.parametrize("form", ["json", "binary", "rows"])
def test_an_input_that_is_empty_is_no_unit(flight: Bench, form: str) -> None:
    """An empty text, and no row at all: the request id."""
    flight.obey(Route(champion="1", unit="input:carrier"))

    assert flight.choose(table(("", 17), form=form)).unit == "a"
    if form != "rows":
        assert flight.choose(table(form=form)).unit == "a"


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_request_whose_unit_cannot_be_decoded_is_invalid(flight: Bench, share: float) -> None:
    """It is chosen for by its id, and answered as any other that no version takes."""
    flight.obey(Route(champion="1", challengers=[split("2", share)], unit="input:carrier"))
    inputs = [{"name": "carrier", "shape": [1], "datatype": "BYTES", "data": ["UA"]}]

    assert flight.choose(payload({"id": "a", "inputs": inputs})).unit == "a"
    with pytest.raises(InvalidRequestError, match="temp"):
        flight.score(payload({"id": "a", "inputs": inputs}))

    [answer] = flight.answers()
    assert (answer.status, answer.version, answer.bucket) == (400, "1", bucket_of("flight", "a"))


@pytest.mark.parametrize(
    ("share", "row", "decoded"), [(0.0, GOOD, ["1"]), (1.0, GOOD, ["1", "2"]), (1.0, FAILING, ["1", "2"])]
)
def test_rows_are_decoded_once_for_each_version(
    delay: Bench, share: float, row: dict[str, Any], decoded: list[str]
) -> None:
    """The champion's, where the unit is one of its inputs, also when it stands in; a challenger decodes its own."""
    delay.obey(Route(champion="1", challengers=[split("2", share)], unit="input:hour"))
    by_signature = {id(delay.repository.get("delay", version).signature): version for version in ("1", "2")}
    request = rows(row)
    seen: list[str] = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(request, name)

        def rows(self, form: Any) -> Any:
            seen.append(by_signature[id(form.signature)])
            return request.rows(form)

    counting: Any = Counting()
    delay.score(counting)

    assert seen == decoded


def test_without_a_champion_only_the_clients_own_choice_is_answered(flight: Bench) -> None:
    """503 with the reason, while a version that serves answers whoever asks for it."""
    flight.repository.refuse("flight", "1", BundleError("damaged"))
    flight.traffic.refresh("flight", wanted_of(b'{"champion": "1"}', None))

    with pytest.raises(NotReadyError, match="'flight' does not serve: its champion, version 1, was refused"):
        flight.score(payload(tensors()))
    assert flight.score(payload(tensors()), "2").version.manifest.version == "2"


def test_the_champion_answers_for_a_challenger_that_fails(delay: Bench) -> None:
    """The client sees an answer; the event says whose it is and why; both versions' metrics count it."""
    delay.obey(Route(champion="1", challengers=[split("2", 1.0)], revision=5))
    alone = delay.score(rows(FAILING), "1")

    scored = delay.score(rows(FAILING, id="a"))

    assert (scored.version.manifest.version, scored.tensors) == ("1", alone.tensors)
    answer = delay.answers()[1]
    assert (answer.status, answer.error, answer.role, answer.version, answer.rule) == (
        200,
        None,
        "champion",
        "1",
        "fallback",
    )
    assert (answer.propensity, answer.share, answer.revision, answer.rows) == (1.0, 0.0, 5, 1)
    fallback = answer.fallback
    assert fallback is not None
    assert (fallback.version, fallback.status) == ("2", 500)
    assert fallback.error == "model 'delay' version '2' failed while scoring"
    assert 0 < fallback.latency_us <= answer.latency_us
    assert (delay.requests("1", "champion", 200), delay.requests("2", "challenger", 500)) == (2, 1)
    assert (delay.fallbacks(), delay.fallbacks("1"), delay.requests("2", "challenger", 200)) == (1, 0, 0)


def test_the_propensity_of_a_fallback_is_the_challengers_rules(delay: Bench) -> None:
    """So that what it would have answered can be weighed; under an override it was certain."""
    overrides = [Override(header="x-tester", value="red", version="2")]
    delay.obey(Route(champion="1", challengers=[split("2", 0.25)], overrides=overrides))
    for place in range(30):
        delay.score(rows(FAILING, id=str(place)))
    delay.score(rows(FAILING, headers={"x-tester": "red"}))

    *by_route, overridden = delay.answers()
    assert {(each.rule, each.propensity) for each in by_route} == {("champion", 0.75), ("fallback", 0.25)}
    assert (overridden.rule, overridden.propensity) == ("fallback", 1.0)


GUARD = Guard(error_rate=0.5, latency_ms=10_000, min_requests=4)


def test_a_request_that_no_version_takes_is_the_clients_fault(delay: Bench) -> None:
    """400 with the champion's sentence; however often, the challenger's guard does not count it."""
    delay.obey(Route(champion="1", challengers=[split("2", 1.0, GUARD)]))

    for _ in range(6):
        with pytest.raises(InvalidRequestError, match="hour"):
            delay.score(rows({"hour": "late", "distance": 1.0}))

    answers = delay.answers()
    assert {(each.status, each.version, each.role, each.rule) for each in answers} == {
        (400, "1", "champion", "fallback")
    }
    assert (delay.requests("1", "champion", 400), delay.requests("2", "challenger", 400)) == (6, 0)
    assert (delay.fallbacks(), delay.tripped) == (0, [])


def test_a_request_that_the_challenger_alone_refuses_is_its_fault(delay: Bench) -> None:
    """The champion takes it: a challenger of another signature is found out, and its guard opens."""
    delay.obey(Route(champion="1", challengers=[split("3", 1.0, GUARD)]))

    for _ in range(4):
        assert delay.score(rows()).version.manifest.version == "1"

    answers = delay.answers()
    assert {(each.status, each.fallback and each.fallback.status) for each in answers} == {(200, 400)}
    assert (delay.fallbacks("3"), delay.requests("3", "challenger", 400)) == (4, 4)
    assert [each[:2] for each in delay.tripped] == [("delay", "3")]


def test_a_request_that_the_champion_alone_refuses_is_answered(delay: Bench) -> None:
    """The challenger it goes to takes it; the champion is not asked."""
    delay.obey(Route(champion="1", challengers=[split("3", 1.0)]))
    row = {"carrier": "UA", "temp": 1.0, "hour": 3, "distance": 1.0}

    assert delay.score(rows(row)).version.manifest.version == "3"
    assert delay.fallbacks("3") == 0


def test_a_champion_that_fails_is_an_error(delay: Bench) -> None:
    """Never a challenger's answer: neither by itself nor after the challenger."""
    delay.obey(Route(champion="2", challengers=[split("1", 0.0)]))
    with pytest.raises(ExecutionError):
        delay.score(rows(FAILING))
    delay.obey(Route(champion="2", challengers=[split("3", 1.0)]))
    with pytest.raises(ExecutionError):
        delay.score(rows(FAILING))

    alone, after = delay.answers()
    assert (alone.status, alone.version, alone.rule, alone.fallback) == (500, "2", "champion", None)
    assert (after.status, after.version, after.rule) == (500, "2", "fallback")
    assert after.fallback is not None
    assert (after.fallback.version, after.fallback.status) == ("3", 400)
    assert (delay.requests("2", "champion", 500), delay.requests("1", "challenger", 200)) == (2, 0)


def test_who_asks_for_a_version_gets_its_own_error(delay: Bench) -> None:
    """No fallback, and no matter for its guard: the client chose what the route may not send there."""
    delay.obey(Route(champion="1", challengers=[split("2", 1.0, GUARD)]))

    for _ in range(6):
        with pytest.raises(ExecutionError, match="version '2' failed"):
            delay.score(rows(FAILING), "2")

    assert {(each.status, each.version, each.rule) for each in delay.answers()} == {(500, "2", "client")}
    assert (delay.fallbacks(), delay.tripped, delay.requests("2", "challenger", 500)) == (0, [], 6)


def test_an_open_guard_sends_a_challenger_nothing_more(delay: Bench) -> None:
    """Told once; from then on the champion answers at once, and the event says 503 of the challenger and why."""
    delay.obey(Route(champion="1", challengers=[split("2", 1.0, GUARD)]))

    for _ in range(5):
        delay.score(rows(FAILING))
    delay.score(rows())

    reason = "4 of 4 requests within 60 s failed, expected at most 0.5 of them"
    assert delay.tripped == [("delay", "2", reason)]
    found = [(each.status, each.fallback and (each.fallback.status, each.fallback.error)) for each in delay.answers()]
    failed, shut = (500, "model 'delay' version '2' failed while scoring"), (503, f"guard: {reason}")
    assert found == [(200, failed)] * 4 + [(200, shut)] * 2
    assert (delay.requests("2", "challenger", 503), delay.fallbacks()) == (2, 6)
    assert delay.count("tiltyard_execution_seconds_count", "2") == 0


def test_a_tester_reaches_a_challenger_behind_an_open_guard(delay: Bench) -> None:
    """An override is somebody who wants to see it, and so is the client who names it."""
    overrides = [Override(header="x-tester", value="red", version="2")]
    delay.obey(Route(champion="1", challengers=[split("2", 1.0, GUARD)], overrides=overrides))
    for _ in range(4):
        delay.score(rows(FAILING))

    assert delay.score(rows(headers={"x-tester": "red"})).version.manifest.version == "2"
    assert delay.score(rows(), "2").version.manifest.version == "2"
    assert delay.score(rows()).version.manifest.version == "1"


def test_a_challenger_that_is_too_slow_opens_its_guard(delay: Bench) -> None:
    """Its answers are given all the same, until there are enough of them."""
    slow = Guard(latency_ms=1e-6, min_requests=3)
    delay.obey(Route(champion="1", challengers=[split("2", 1.0, slow)]))

    answered = [delay.score(rows()).version.manifest.version for _ in range(4)]

    assert answered == ["2", "2", "2", "1"]
    assert [each[2] for each in delay.tripped] == [
        "3 of 3 requests within 60 s took longer than 1e-06 ms, expected at most 0.05 of them"
    ]


def test_a_guard_goes_on_counting_until_its_challengers_place_changes(delay: Bench) -> None:
    """Another challenger's change leaves it open; a new share is a new trial."""
    route = Route(champion="1", challengers=[split("2", 0.6, GUARD), split("3", 0.0)], unit="parameter:unit")
    delay.obey(route)
    breaker = delay.traffic.routes["delay"].by_version["2"].breaker
    unguarded = delay.traffic.routes["delay"].by_version["3"].breaker
    delay.obey(msgspec.structs.replace(route, challengers=[split("2", 0.6, GUARD), split("3", 0.1)]))
    same = delay.traffic.routes["delay"].by_version["2"].breaker
    delay.obey(msgspec.structs.replace(route, challengers=[split("2", 0.5, GUARD)]))
    other = delay.traffic.routes["delay"].by_version["2"].breaker

    assert (breaker is not None, unguarded, same is breaker, other is breaker) == (True, None, True, False)


def test_shadows_are_asked_for_what_the_route_decides(delay: Bench) -> None:
    """Not where the client named a version, nor behind an open guard; where the champion stood in they are."""
    shadow = Challenger(version="3", guard=GUARD)
    delay.obey(Route(champion="1", challengers=[split("2", 1.0), shadow]))

    def asked(scored: Scored) -> list[str]:
        return [work.arm.name for work in scored.shadows]

    before = [asked(delay.score(rows())), asked(delay.score(rows(FAILING))), asked(delay.score(rows(), "1"))]
    [arm] = delay.traffic.routes["delay"].shadows
    assert arm.breaker is not None
    for _ in range(4):
        arm.breaker.record(time.monotonic(), 0.0, failed=True)
    after = asked(delay.score(rows()))

    assert (before, after) == ([["3"], ["3"], []], [])


def test_a_shadow_scores_its_share_of_units(delay: Bench) -> None:
    """A part of its own, the same for a unit every time, whoever answers; 0 is nothing."""
    delay.obey(
        Route(champion="1", challengers=[Challenger(version="2", share=0.3), Challenger(version="3", share=0.0)])
    )

    works = [delay.score(rows(id=str(place))).shadows for place in range(300)]
    again = [delay.score(rows(id=str(place))).shadows for place in range(20)]

    assert {work.arm.name for each in works for work in each} == {"2"}
    assert abs(sum(map(len, works)) / 300 - 0.3) < 0.1
    assert [len(each) for each in works[:20]] == [len(each) for each in again]
    assert all(work.bucket < 0.3 for each in works for work in each)


def test_a_deadline_that_has_passed_is_no_fallback(delay: Bench) -> None:
    """Nobody waits for the champion's answer either: 504, and no fault of the challenger's."""
    delay.obey(Route(champion="1", challengers=[split("2", 1.0, GUARD)]))

    for _ in range(6):
        with pytest.raises(DeadlineError):
            delay.score(payload({"rows": [FAILING]}, NamedRows, {"x-request-timeout-ms": "5"}, arrived_ns=1))

    assert {(each.status, each.version, each.rule, each.fallback) for each in delay.answers()} == {
        (504, "2", "split", None)
    }
    assert (delay.requests("2", "challenger", 504), delay.fallbacks(), delay.tripped) == (6, 0, [])


@pytest.mark.parametrize("stays", [0, 1])
def test_a_client_that_has_gone_is_no_fallback(delay: Bench, stays: int) -> None:
    """Before the challenger ran or before the champion did: nobody was answered, and the log has nothing."""
    delay.obey(Route(champion="1", challengers=[split("2", 1.0, GUARD)]))
    for _ in range(4):
        looks = iter([False] * stays + [True])
        with pytest.raises(ClientGoneError):
            delay.score(payload({"rows": [FAILING]}, NamedRows, gone=looks.__next__))

    assert delay.answers() == []
    gone = delay.requests("2", "challenger", 499), delay.requests("1", "champion", 499)
    assert gone == ((4, 0) if stays == 0 else (0, 4))
    assert (delay.fallbacks(), len(delay.tripped)) == ((0, 0) if stays == 0 else (4, 1))


def test_a_log_without_room_is_no_fallback(packed: Path, tmp_path: Path) -> None:
    """Where answers wait for it, nobody runs; what the event would have said is counted as dropped."""
    write_failing(packed, tmp_path / "models")
    events = EventSettings(when_full="block")
    bench = Bench("delay", [tmp_path / "models" / "delay" / version for version in "12"], tmp_path, events)
    bench.obey(Route(champion="1", challengers=[split("2", 1.0, GUARD)]))

    class Full:
        full = True

        def append(self, line: bytes) -> bool:
            return False

    full: Any = Full()
    scorer = Scorer(full, events, Batcher(1024, 512), lambda *told: bench.tripped.append(told))
    for _ in range(6):
        with pytest.raises(OutboxFullError):
            asyncio.run(scorer.score(bench.traffic.route("delay", None), None, rows(FAILING)))
    bench.outbox.close()

    assert (bench.requests("2", "challenger", 503), bench.fallbacks(), bench.tripped) == (6, 0, [])


def test_every_answer_is_one_event(delay: Bench) -> None:
    """Champion, split, fallback, client, errors of all kinds: as many events as answers, each with its status."""
    delay.obey(Route(champion="1", challengers=[split("2", 0.5, GUARD)]))
    requests = [GOOD, FAILING, {"hour": "late", "distance": 1.0}, {"carrier": "UA"}]
    statuses = []
    for place in range(80):
        version = (None, None, None, "1", "2")[place % 5]
        try:
            delay.score(rows(requests[place % 4], id=str(place)), version)
        except TiltyardError as error:
            statuses.append(500 if isinstance(error, ExecutionError) else 400)
        else:
            statuses.append(200)

    answers = delay.answers()
    assert [each.status for each in answers] == statuses
    assert {each.rule for each in answers} == {"champion", "split", "fallback", "client"}
    assert {each.role for each in answers} == {"champion", "challenger"}
    assert all((each.rule == "fallback") == (each.fallback is not None) for each in answers)
