"""Who answers, and what becomes of a challenger that fails: the same in both lanes."""

import pytest

from tests.lanes.pair import Pair
from tests.lanes.raw import post
from tests.lanes.requests import DELAY, delay, flight
from tests.server.live_server import wait_for

CUSTOMERS = [f"customer-{number}" for number in range(12)]


def of_customer(customer: object, hour: int = 3, *headers: str) -> bytes:
    return post(DELAY, delay(hour, id=f"of {customer}", parameters={"customer": customer}), *headers)


@pytest.mark.parametrize("hour", [3, 24], ids=["good", "failing"])
def test_a_split_by_a_parameter(pair: Pair, hour: int) -> None:
    """Units of every kind keep their version; where the challenger fails the champion answers, as the event says."""
    units = [*CUSTOMERS, 7, True, "", None, 1.5, ["a"]]

    assert " ".join(["200"] * len(units) + ["open"]) == pair.ask(*[of_customer(unit, hour) for unit in units])


@pytest.mark.parametrize("hour", [3, 24], ids=["good", "failing"])
@pytest.mark.parametrize("value", ["red", "Red", "blue", ""])
def test_an_override(pair: Pair, value: str, hour: int) -> None:
    """A header sends a request to a version, which falls back as well; any other value leaves it where it belongs."""
    assert "200 200 open" == pair.ask(
        of_customer("a", hour, f"X-Tester: {value}"), of_customer("a", hour, "x-other: 1", f"x-tester: {value}")
    )


def test_an_override_by_the_first_of_two_headers(pair: Pair) -> None:
    """Both lanes look at the same one."""
    assert "200 200 open" == pair.ask(
        of_customer("a", 3, "X-Tester: red", "X-Tester: blue"), of_customer("a", 3, "X-Tester: blue", "X-Tester: red")
    )


def test_a_split_by_a_header(pair: Pair) -> None:
    """Given once, twice, empty, in Latin-1, or not at all."""
    headers = [[f"X-Customer: {name}"] for name in CUSTOMERS]
    headers += [["x-customer: a", "X-CUSTOMER: b"], ["X-Customer:"], ["X-Customer: Zürich"], []]
    sent = [post("/v2/models/by-header/infer", flight(id="h"), *given) for given in headers]

    assert " ".join(["200"] * len(sent) + ["open"]) == pair.ask(*sent)


def test_a_split_by_an_input(pair: Pair) -> None:
    """By the first row's value; a request whose input cannot be read is refused by the champion."""
    rows = [{"carrier": name, "temp": 1, "hour": 2, "distance": 3} for name in ("AA", "UA", "DL", "Zürich", "")]
    sent = [post("/v1/models/by-input/predict", {"id": "i", "rows": [row]}) for row in rows]
    sent.append(post("/v1/models/by-input/predict", {"id": "i", "rows": [{**rows[0], "carrier": 7}]}))

    assert "200 200 200 200 200 400 open" == pair.ask(*sent)


def test_a_challenger_and_the_champion_refuse(pair: Pair) -> None:
    """What no version takes is 400 and no challenger's fault."""
    wrong = {**delay(3), "inputs": delay(3)["inputs"][:1]}

    assert "400 400 open" == pair.ask(
        post(DELAY, {**wrong, "parameters": {"customer": "a"}}, "x-tester: red"), post(DELAY, wrong, "x-tester: red")
    )


def test_shadows_are_those_of_the_answered(pair: Pair) -> None:
    """Scored once for every answer of the route, of none that was refused, and of no version that the client chose."""
    asked = [post("/v2/models/flight/infer", flight(id=f"shadowed-{number}")) for number in range(20)]
    asked.append(post("/v2/models/flight/infer", flight(id="refused", outputs=[{"name": "nope"}])))
    asked.append(post("/v2/models/flight/versions/1/infer", flight(id="chosen")))

    assert " ".join(["200"] * 20 + ["400 200 open"]) == pair.ask(*asked)
    pair.compare_all()


def test_a_guard_opens(pair: Pair) -> None:
    """Failures take the challenger out of the traffic, in both lanes at the same request."""
    path = "/v2/models/guarded/infer"

    def changed(lane: int) -> bool:
        route = pair.lanes[lane].running.client.get("/v1/models/guarded/route").json()
        return bool(route["challengers"][0]["share"] == 0)

    assert "200 200 200 open" == pair.ask(post(path, delay(3)), post(path, delay(24)), post(path, delay(25)))
    for lane in (0, 1):
        wait_for(lambda lane=lane: changed(lane), "the guard")  # type: ignore[misc]  # bound at once
    assert "200 200 open" == pair.ask(post(path, delay(26)), post(path, delay(3)))
