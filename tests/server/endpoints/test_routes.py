"""Routes over HTTP: shown, changed, refused, and obeyed by the requests that follow."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from server.contract.events import Audited, Prediction, Shadow
from server.routing.assignment import assign
from server.routing.document import decode_route
from tests.server.failing_graph import replace_files, write_failing
from tests.server.live_server import Running, tensors, wait_for

INFER = "/v2/models/flight/infer"
ROUTE = "/v1/models/flight/route"
SPLIT: dict[str, Any] = {"champion": "1", "challengers": [{"version": "2", "mode": "split", "share": 0.3}], "salt": "s"}


@pytest.fixture
def models(packed: Path, tmp_path: Path) -> Path:
    """`flight` 1 and 2 and `grid`, without a route document."""
    models = tmp_path / "models"
    shutil.copytree(packed, models)
    for left in (models / "flight").glob("*route*"):
        left.unlink()
    return models


@pytest.fixture(params=["1 worker", "3 workers"])
def running(request: pytest.FixtureRequest, serve: Callable[..., Running], models: Path) -> Running:
    """The same promises hold for one process and for several."""
    return serve(models, TILTYARD_WORKERS=request.param[0], TILTYARD_WATCH_S="0.05")


def put(running: Running, document: object, base: int, **parameters: str) -> httpx.Response:
    return running.client.put(ROUTE, json=document, headers={"if-match": f'"{base}"'}, params=parameters)


def post(running: Running, what: str, body: object, base: int, **parameters: str) -> httpx.Response:
    url = f"/v1/models/flight/{what}"
    return running.client.post(url, json=body, headers={"if-match": f'"{base}"'}, params=parameters)


def answered_by(running: Running, request_id: str, **headers: str) -> str:
    answer = httpx.post(running.client.base_url.join(INFER), json=tensors(id=request_id), headers=headers, timeout=30)
    return str(answer.raise_for_status().json()["model_version"])


def holds_everywhere(running: Running, revision: int) -> None:
    """Returns once several new connections in a row, whichever worker takes them, show a revision."""

    def shown() -> set[str]:
        url = running.client.base_url.join(ROUTE)
        return {httpx.get(url, timeout=30).headers["etag"] for _ in range(12)}

    wait_for(lambda: shown() == {f'"{revision}"'}, f"revision {revision} in every worker")


def test_a_route_from_its_first_split_to_the_rollback(running: Running) -> None:
    """Default, split, ramp, promotion, rollback: each answer as the document says, the history knows all of it."""
    default = running.client.get(ROUTE)
    assert (default.headers["etag"], default.json()["champion"]) == ('"0"', "2")

    first = put(running, SPLIT, 0, reason="a canary")
    holds_everywhere(running, 1)
    document = decode_route(running.client.get(ROUTE).content)
    before = {str(i): answered_by(running, str(i)) for i in range(60)}
    ramped = post(running, "shares", {"shares": {"2": 0.6}, "reason": "no errors"}, 1)
    holds_everywhere(running, 2)
    after = {str(i): answered_by(running, str(i)) for i in range(60)}
    promoted = post(running, "promote", {"version": "2"}, 2)
    holds_everywhere(running, 3)
    champion = answered_by(running, "any")
    returned = post(running, "rollback", {"revision": 1, "reason": "worse"}, 3)
    holds_everywhere(running, 4)
    again = {str(i): answered_by(running, str(i)) for i in range(60)}
    history = running.client.get(f"{ROUTE}/history").json()

    assert [each.status_code for each in (first, ramped, promoted, returned)] == [200] * 4
    assert [each.headers["etag"] for each in (first, ramped, promoted, returned)] == ['"1"', '"2"', '"3"', '"4"']
    assert before == {unit: assign(document, unit).version for unit in before}
    assert {unit for unit in before if before[unit] == "2"} < {unit for unit in after if after[unit] == "2"}
    assert (champion, again) == ("2", before)
    assert [(each["revision"], each["action"], each["reason"]) for each in history] == [
        (4, "rollback", "worse"),
        (3, "promote", None),
        (2, "shares", "no errors"),
        (1, "set", "a canary"),
    ]
    assert history[0]["route"] == {**history[3]["route"], "revision": 4}
    assert ramped.json()["difference"]["moves"] == [{"from": "1", "to": "2", "share": 0.3}]


def test_every_event_says_which_rule_answered(running: Running) -> None:
    """Rule, share, bucket, propensity and revision, of the split's answers and of the champion's."""
    put(running, SPLIT, 0).raise_for_status()
    holds_everywhere(running, 1)
    document = decode_route(running.client.get(ROUTE).content)
    for i in range(40):
        answered_by(running, f"e{i}")

    found = {event.subject: event.data for event in running.events() if isinstance(event, Prediction)}
    assert len(found) == 40
    for unit, answer in found.items():
        expected = assign(document, unit)
        share = 0.7 if expected.rule == "champion" else 0.3
        got = (answer.version, answer.rule, answer.bucket, answer.propensity, answer.share, answer.revision)
        assert got == (expected.version, expected.rule, expected.bucket, share, share, 1)
        assert answer.role == ("champion" if expected.rule == "champion" else "challenger")


def test_the_realised_split_is_exact(running: Running) -> None:
    """Over 2,000 requests the share is 30 % within four standard errors; several connections at once."""
    put(running, SPLIT, 0).raise_for_status()
    holds_everywhere(running, 1)

    with ThreadPoolExecutor(4) as pool, httpx.Client(base_url=running.client.base_url, timeout=30) as client:
        versions = Counter(
            pool.map(
                lambda i: client.post(INFER, json=tensors(id=f"x{i}")).raise_for_status().json()["model_version"],
                range(2000),
            )
        )

    assert abs(versions["2"] / 2000 - 0.3) < 4 * (0.3 * 0.7 / 2000) ** 0.5


def test_every_change_is_an_audit_event(running: Running) -> None:
    """Who, when, from, to, why; the event's id is the revision's, and refused or dry changes have none."""
    put(running, SPLIT, 0, reason="begin").raise_for_status()
    post(running, "shares", {"shares": {"2": 0.5}}, 1, dry_run="true").raise_for_status()
    assert post(running, "shares", {"shares": {"2": 0.5}}, 9).status_code == 412
    assert post(running, "shares", {"shares": {"7": 0.5}}, 1).status_code == 422
    post(running, "shares", {"shares": {"2": 0.5}}, 1).raise_for_status()

    def audits() -> list[Audited]:
        return [event for event in running.events() if isinstance(event, Audited)]

    wait_for(lambda: len(audits()) >= 2, "the audit events")
    first, second = audits()
    assert [(each.data.action, each.data.by, each.data.reason) for each in (first, second)] == [
        ("route.set", "", "begin"),
        ("route.shares", "", None),
    ]
    assert [each.subject for each in (first, second)] == ["flight", "flight"]
    assert bytes(msgspec.Raw(second.data.before)) == bytes(msgspec.Raw(first.data.after))  # type: ignore[arg-type]
    assert decode_route(bytes(second.data.after)).splits[0].share == 0.5  # type: ignore[arg-type]


def test_of_twenty_writers_on_one_revision_one_wins(running: Running) -> None:
    """The others are told which revision holds; history has one more, and the winner's share is obeyed."""
    put(running, SPLIT, 0).raise_for_status()
    holds_everywhere(running, 1)
    url = running.client.base_url.join("/v1/models/flight/shares")

    def change(i: int) -> httpx.Response:
        body = {"shares": {"2": (i + 1) / 100}, "reason": str(i)}
        return httpx.post(url, json=body, headers={"if-match": '"1"'}, timeout=60)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(change, range(20)))

    won = [i for i, each in enumerate(answers) if each.status_code == 200]
    assert Counter(each.status_code for each in answers) == {200: 1, 412: 19}
    assert {each.headers["etag"] for each in answers if each.status_code == 412} == {'"2"'}
    history = running.client.get(f"{ROUTE}/history").json()
    assert [(each["revision"], each["reason"]) for each in history] == [(2, str(won[0])), (1, None)]
    holds_everywhere(running, 2)
    assert running.client.get(ROUTE).json()["challengers"][0]["share"] == (won[0] + 1) / 100


@pytest.fixture(scope="module")
def one(packed: Path, tmp_path_factory: pytest.TempPathFactory, serve_module: Callable[..., Running]) -> Running:
    """A server whose route is revision 4, for tests that leave it as it is."""
    models = tmp_path_factory.mktemp("one") / "models"
    shutil.copytree(packed, models, ignore=shutil.ignore_patterns("*route*"))
    running = serve_module(models)
    for base in range(4):
        put(running, {**SPLIT, "salt": f"s{base}"}, base).raise_for_status()
    return running


@pytest.fixture(autouse=True)
def unchanged(request: pytest.FixtureRequest) -> Iterator[None]:
    """What the tests of the shared server have sent has changed nothing."""
    yield
    if "one" in request.fixturenames:
        assert request.getfixturevalue("one").client.get(ROUTE).headers["etag"] == '"4"'


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({"champion": "9"}, "expected versions among ['1', '2'], got '9'"),
        ({**SPLIT, "champion": "2"}, "got '2' twice"),
        ({"challengers": []}, "expected a member champion, got none"),
        ({"champion": "1", "challengers": [{"version": "2", "mode": "split", "share": 1.5}]}, "in [0, 1], got 1.5"),
        ({"champion": "1", "overrides": [{"header": "x", "value": "y", "version": "5"}]}, "got '5'"),
        ({"champion": "1", "unit": "input:temp"}, "champion's ['carrier', 'hour'], got 'temp'"),
        ({"champion": "1", "unit": "cookie:x"}, "unit: expected parameter:NAME"),
        ([], "expected `object`, got `array`"),
    ],
)
def test_a_document_that_cannot_be_obeyed_is_refused_with_the_reason(
    one: Running, document: Any, sentence: str
) -> None:
    """Nothing is half applied: the route that held goes on to hold."""
    answer = put(one, document, 4)

    assert (answer.status_code, sentence in answer.json()["error"]) == (422, True), answer.text
    assert answer.json()["faults"]


def test_all_faults_are_named_one_by_one(one: Running) -> None:
    """Types, sums and names at once."""
    challengers = [
        {"version": "2", "mode": "split", "share": 0.7},
        {"version": "3", "mode": "split", "share": 0.7, "guard": {}},
    ]

    faults = put(one, {"champion": "1", "challengers": challengers, "unit": "x"}, 4).json()["faults"]

    assert len(faults) == 3, faults


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 428),
        ({"if-match": '"3"'}, 412),
        ({"if-match": '"99"'}, 412),
        ({"if-match": 'W/"4"'}, 400),
        ({"if-match": "4"}, 400),
        ({"if-match": '"x"'}, 400),
        ({"if-match": '"4"'}, 200),
        ({"if-match": "*"}, 200),
    ],
)
@pytest.mark.parametrize("what", ["route", "shares", "promote", "rollback"])
def test_a_change_says_what_it_is_of(one: Running, what: str, headers: dict[str, str], status: int) -> None:
    """428 without a condition, 412 with one that holds no longer; a dry run is held to it as well."""
    bodies = {
        "route": {"champion": "2"},
        "shares": {"shares": {"2": 0.1}},
        "promote": {"version": "2"},
        "rollback": {"revision": 1},
    }
    method = "PUT" if what == "route" else "POST"

    answer = one.client.request(
        method, f"/v1/models/flight/{what}", json=bodies[what], headers=headers, params={"dry_run": "true"}
    )

    assert answer.status_code == status, answer.text
    if status in (200, 412):
        assert answer.headers["etag"] == '"4"'


@pytest.mark.parametrize(
    ("what", "body", "status", "sentence"),
    [
        ("shares", {"shares": {"1": 0.5}}, 422, "among the challengers ['2'], got '1'"),
        ("shares", {"shares": {"2": -0.1}}, 422, "share in [0, 1], got -0.1"),
        ("shares", {"shares": {"2": "x"}}, 400, "float"),
        ("shares", {}, 400, "shares"),
        ("promote", {"version": "1"}, 422, "which is champion"),
        ("promote", {"version": "9"}, 422, "got '9'"),
        ("promote", {"version": "2", "x": 1}, 400, "x"),
        ("rollback", {"revision": 9}, 422, "expected a revision of 1 to 4, got 9"),
        ("rollback", {"revision": "1"}, 400, "int"),
    ],
)
def test_changes_that_make_no_sense_are_refused(
    one: Running, what: str, body: object, status: int, sentence: str
) -> None:
    """What, where, expected and got."""
    answer = post(one, what, body, 4)

    assert (answer.status_code, sentence in answer.json()["error"]) == (status, True), answer.text


def test_a_dry_run_says_what_would_change(one: Running) -> None:
    """The new document, what it changes, and the entity tag of the route that holds."""
    answer = post(one, "promote", {"version": "2"}, 4, dry_run="true")

    assert (answer.headers["etag"], answer.json()["dry_run"]) == ('"4"', True)
    assert (answer.json()["route"]["champion"], answer.json()["route"]["revision"]) == ("2", 5)
    assert answer.json()["difference"]["moves"] == [{"from": "1", "to": "2", "share": 0.7}]
    assert post(one, "promote", {"version": "2"}, 4, dry_run="maybe").status_code == 400


def test_what_is_known_is_not_sent_again(one: Running) -> None:
    """304 while the revision holds."""
    answers = [one.client.get(ROUTE, headers={"if-none-match": tag}) for tag in ('"4"', '"3"', '"1", "4"')]

    assert [each.status_code for each in answers] == [304, 200, 304]
    assert (answers[0].content, answers[0].headers["etag"]) == (b"", '"4"')


def test_the_same_document_again_is_no_new_revision(one: Running) -> None:
    """Scripts may put what they want to hold, as often as they like."""
    document = one.client.get(ROUTE).json()

    answer = put(one, document, 4)

    assert (answer.status_code, answer.json()["route"]) == (200, document)


def test_toml_is_taken_as_well(one: Running) -> None:
    """By its content type."""
    text = 'champion = "1"\n[[challengers]]\nversion = "2"\nmode = "split"\nshare = 0.25\n'

    answer = one.client.put(
        ROUTE,
        content=text,
        headers={"if-match": '"4"', "content-type": "application/toml"},
        params={"dry_run": "true"},
    )

    assert answer.json()["route"]["challengers"][0]["share"] == 0.25


@pytest.mark.parametrize("path", ["route", "route/history"])
def test_an_unknown_model_has_no_route(one: Running, path: str) -> None:
    """404 that names the known ones."""
    answer = one.client.get(f"/v1/models/nobody/{path}")

    assert (answer.status_code, "'flight'" in answer.json()["error"]) == (404, True)


def test_history_has_a_limit(one: Running) -> None:
    """The newest so many."""
    found = one.client.get(f"{ROUTE}/history", params={"limit": 2}).json()

    assert [each["revision"] for each in found] == [4, 3]
    assert one.client.get(f"{ROUTE}/history", params={"limit": 0}).status_code == 400


def test_other_methods_are_told_which_there_are(one: Running) -> None:
    """405 with both."""
    answer = one.client.delete(ROUTE)

    assert (answer.status_code, set(answer.headers["allow"].split(", "))) == (405, {"GET", "HEAD", "PUT"})


def test_changing_needs_a_token_for_it(serve: Callable[..., Running], models: Path, tmp_path: Path) -> None:
    """None: 401; one for predictions: 403 to change, and it may look; the admin's name is in the history."""
    from server.protection.tokens import hash_of

    entries = [("looker", "infer"), ("boss", "admin")]
    (tmp_path / "tokens.toml").write_text(
        "".join(f'[[token]]\nname = "{n}"\nsha256 = "{hash_of(n)}"\nscopes = ["{s}"]\n' for n, s in entries)
    )
    running = serve(models, TILTYARD_TOKENS=str(tmp_path / "tokens.toml"))

    def ask(token: str | None, method: str) -> int:
        headers = {"if-match": "*"} | ({} if token is None else {"authorization": f"Bearer {token}"})
        return running.client.request(method, ROUTE, json={"champion": "1"}, headers=headers).status_code

    assert (ask(None, "GET"), ask(None, "PUT")) == (401, 401)
    assert (ask("looker", "GET"), ask("looker", "PUT"), ask("boss", "PUT")) == (200, 403, 200)
    history = running.client.get(f"{ROUTE}/history", headers={"authorization": "Bearer looker"}).json()
    assert [each["by"] for each in history] == ["boss"]


def test_a_route_survives_a_restart(serve: Callable[..., Running], models: Path, tmp_path: Path) -> None:
    """Document, ranges and history; a torn document in between is no reason to serve another route."""
    running = serve(models)
    put(running, SPLIT, 0).raise_for_status()
    post(running, "shares", {"shares": {"2": 0.6}}, 1).raise_for_status()
    document = running.client.get(ROUTE).json()
    running.process.terminate()
    assert running.process.wait(20) == 0
    path = models / "flight" / "route.json"
    path.write_bytes(path.read_bytes()[:40])

    again = serve(models, tmp_path / "again.db")

    assert again.client.get(ROUTE).json() == document
    assert "expected a document in JSON" in again.client.get("/health").json()["warnings"][0]
    assert put(again, document, 2, dry_run="true").json()["difference"]["versions"] == []
    assert post(again, "shares", {"shares": {"2": 0.1}}, 2).status_code == 200
    assert decode_route(path.read_bytes()).revision == 3
    assert again.client.get("/health").json()["warnings"] == []


def test_what_a_route_names_is_not_unloaded(serve: Callable[..., Running], models: Path) -> None:
    """Champion, split and override: 409 that says so."""
    running = serve(models)
    overrides = [{"header": "x-tester", "value": "red", "version": "2"}]
    put(running, {"champion": "1", "overrides": overrides}, 0).raise_for_status()

    for version in ("1", "2"):
        url = "/v2/repository/models/flight/unload"
        answer = running.client.post(url, json={"parameters": {"version": version}})
        assert (answer.status_code, "route" in answer.json()["error"]) == (409, True)


def test_metrics_know_every_arm_as_soon_as_a_route_names_it(serve: Callable[..., Running], models: Path) -> None:
    """Rollout tools fail on absent series."""
    running = serve(models)
    waiting = {"version": "3", "mode": "split", "share": 0.0}
    shutil.copytree(models / "flight" / "2", models / "flight" / "3")
    replace_files(models / "flight" / "3", {})
    running.client.post("/v2/repository/models/flight/load").raise_for_status()
    put(running, {**SPLIT, "challengers": [*SPLIT["challengers"], waiting]}, 0).raise_for_status()
    text = running.client.get("/metrics").text

    for code in (200, 400, 500, 503):
        labels = f'code="{code}",model="flight",role="challenger",version="2"'
        assert f"tiltyard_requests_total{{{labels}}} 0.0" in text
    assert 'tiltyard_route_share{model="flight",role="challenger",version="2"} 0.3' in text
    assert 'tiltyard_route_share{model="flight",role="challenger",version="3"} 0.0' in text
    assert 'tiltyard_route_share{model="flight",role="champion",version="1"} 0.7' in text
    assert 'tiltyard_route_revision{model="flight"} 1.0' in text
    assert 'tiltyard_fallbacks_total{model="flight",version="2"} 0.0' in text


def test_several_shadows_of_a_split_answer(serve: Callable[..., Running], models: Path) -> None:
    """What a split answers is shadowed like the champion's answers."""
    shutil.copytree(models / "flight" / "2", models / "flight" / "3")
    replace_files(models / "flight" / "3", {})
    running = serve(models)
    challengers = [
        {"version": "2", "mode": "split", "share": 0.5},
        {"version": "3", "mode": "shadow", "share": 1.0},
    ]
    put(running, {"champion": "1", "challengers": challengers}, 0).raise_for_status()
    versions = {f"q{i}": answered_by(running, f"q{i}") for i in range(20)}

    def shadows() -> dict[str, str]:
        return {event.subject: event.data.version for event in running.events() if isinstance(event, Shadow)}

    wait_for(lambda: len(shadows()) == 20, "the shadows")
    assert set(versions.values()) == {"1", "2"}
    assert shadows() == dict.fromkeys(versions, "3")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_guard_takes_a_failing_challenger_out(
    serve: Callable[..., Running], packed: Path, tmp_path: Path, workers: int
) -> None:
    """No client sees a failure; the route's next revision is the guard's, and from then on nobody is sent there."""
    models = tmp_path / "models"
    write_failing(packed, models)
    running = serve(models, TILTYARD_WORKERS=str(workers), TILTYARD_WATCH_S="0.05")
    guard = {"error_rate": 0.2, "min_requests": 10}
    challengers = [{"version": "2", "mode": "split", "share": 0.5, "guard": guard}]
    url = "/v1/models/delay/route"
    running.client.put(
        url, json={"champion": "1", "challengers": challengers}, headers={"if-match": '"0"'}
    ).raise_for_status()
    asked: list[str] = []

    def ask() -> str:
        """Asks for an hour that the challenger's table does not have."""
        asked.append(f"g{len(asked)}")
        body = {"id": asked[-1], "rows": [{"hour": 30, "distance": 900.0}]}
        answer = httpx.post(running.client.base_url.join("/v1/models/delay/predict"), json=body, timeout=30)
        return str(answer.raise_for_status().json()["version"])

    def revision() -> int:
        assert ask() == "1"
        return int(running.client.get(url).json()["revision"])

    wait_for(lambda: revision() == 2, "the guard's revision")
    change = running.client.get(f"{url}/history").json()[0]
    by_id = {event.subject: event.data for event in running.events() if isinstance(event, Prediction)}
    fallbacks = [answer.fallback for answer in by_id.values() if answer.fallback is not None]

    assert (change["by"], change["action"], "failed, expected at most 0.2" in change["reason"]) == (
        "guard",
        "guard",
        True,
    )
    assert change["route"]["challengers"][0]["share"] == 0.0
    assert by_id.keys() == set(asked)
    assert {answer.status for answer in by_id.values()} == {200}
    assert len(fallbacks) >= 10
    assert {each.version for each in fallbacks} == {"2"}
    assert {each.status for each in fallbacks} <= {500, 503}
    series = 'tiltyard_fallbacks_total{model="delay",version="2"}'
    assert running.metric(series) == len(fallbacks)


def test_testers_and_units_over_http(running: Running) -> None:
    """A header leads to its version whatever the unit; a parameter's value keeps its version over requests."""
    overrides = [{"header": "X-Tester", "value": "red", "version": "2"}]
    document = {**SPLIT, "unit": "parameter:customer", "overrides": overrides}
    put(running, document, 0).raise_for_status()
    holds_everywhere(running, 1)
    route = decode_route(running.client.get(ROUTE).content)

    def version(customer: object, **headers: str) -> str:
        request = tensors(parameters={"customer": customer})
        answer = httpx.post(running.client.base_url.join(INFER), json=request, headers=headers, timeout=30)
        return str(answer.raise_for_status().json()["model_version"])

    customers = [f"c{i}" for i in range(12)]
    assert {version(each, **{"x-tester": "red"}) for each in customers} == {"2"}
    assert [version(each) for each in customers * 2] == [assign(route, each).version for each in customers * 2]
    assert version(17) == version("17") == assign(route, "17").version
