"""The OpenAPI document against the routes, the standard, and the server itself; and its page in a browser."""

import hashlib
import re
import shlex
import shutil
from collections.abc import Callable
from html import unescape
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.routing import Route

from server.app import build_app, build_service
from server.endpoints.openapi import openapi_document
from server.endpoints.reference_page import render
from server.eventlog.outbox import Outbox
from server.settings import Settings
from tests.browser import open_browser
from tests.server.live_server import Running

DOCUMENT = openapi_document("0")
CASES = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods if method != "parameters"]
# The same as /v2, and the answer 404 to what is not there.
UNDOCUMENTED = {"/v2/", "/v1/models/{model}:{verb}"}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


def test_the_document_is_valid() -> None:
    """By the published rules of OpenAPI 3.1."""
    validate(DOCUMENT)


def test_every_route_is_documented_and_every_path_is_a_route(packed: Path, tmp_path: Path) -> None:
    """Methods too; HEAD goes with GET."""
    settings = Settings(models=str(packed), outbox=tmp_path / "outbox.db")
    service = build_service(settings, Outbox(settings.outbox, settings.events))
    routes = {
        (route.path, method.lower())
        for route in build_app(service).routes
        if isinstance(route, Route) and route.path not in UNDOCUMENTED
        for method in (route.methods or set()) - {"HEAD"}
    }
    service.log.close()

    assert routes == set(CASES)


def test_each_operation_has_an_id_of_its_own() -> None:
    """Generators of clients name their functions by it."""
    ids = [DOCUMENT["paths"][path][method]["operationId"] for path, method in CASES]

    assert len(set(ids)) == len(ids)


def test_the_document_says_which_token_opens_what(serve: Callable[..., Running], packed: Path, tmp_path: Path) -> None:
    """Every operation asked without a token and with one of each scope; what can be refused is among its answers."""
    scopes = ("infer", "feedback", "admin", "metrics")
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(
        "".join(
            f'[[token]]\nname = "{scope}"\nsha256 = "{hashlib.sha256(scope.encode()).hexdigest()}"\n'
            f'scopes = ["{scope}"]\n'
            for scope in scopes
        )
    )
    running = serve(packed, TILTYARD_TOKENS=str(tokens))

    def opened(path: str, method: str) -> dict[str | None, int]:
        url = path.replace("{model}", "nobody").replace("{version}", "1")
        callers: dict[str | None, dict[str, str]] = {None: {}}
        callers.update({scope: {"authorization": f"Bearer {scope}"} for scope in scopes})
        return {
            name: status
            for name, headers in callers.items()
            if (status := running.client.request(method, url, headers=headers).status_code) not in (401, 403)
        }

    for path, method in CASES:
        operation = DOCUMENT["paths"][path][method]
        needed = [scope for each in operation.get("security", []) for scope in each.get("token", [])]
        expected = needed or ([*scopes] if "security" in operation else [None, *scopes])
        refusals = {"401", "403", "429"} if needed else {"401"} if "security" in operation else set()

        assert sorted(opened(path, method), key=str) == sorted(expected, key=str), (method, path)
        assert {"401", "403", "429"} & set(operation["responses"]) == refusals, (method, path)


def test_the_document_has_the_headers_that_clients_need() -> None:
    """Which refusals say how to go on; which operations read a deadline and a length; which bodies are what."""
    operations = {(path, method): DOCUMENT["paths"][path][method] for path, method in CASES}
    answers = {
        (status, *answer.get("headers", {}))
        for operation in operations.values()
        for status, answer in operation["responses"].items()
        if status not in ("200", "202")
    }
    read = {
        path: [each["name"] for each in operation.get("parameters", [])]
        for (path, _), operation in operations.items()
        if operation.get("parameters")
    }
    bodies = {path: op["requestBody"] for (path, _), op in operations.items() if "requestBody" in op}

    assert {answer for answer in answers if len(answer) > 1} == {
        ("401", "WWW-Authenticate"),
        ("412", "ETag"),
        ("429", "Retry-After"),
        ("503", "Retry-After"),
    }
    assert len(answers) == len({status for status, *_ in answers})
    challenge = DOCUMENT["paths"]["/v2"]["get"]["responses"]["401"]["headers"]["WWW-Authenticate"]
    assert challenge["schema"] == {"type": "string", "const": "Bearer"}
    assert DOCUMENT["paths"]["/v1/feedback"]["post"]["responses"]["202"]["description"] == "Accepted."
    changes = {path for (path, method) in operations if method != "get" and _tag(path, method) == "Routes"}
    scoring = {path for (path, method) in operations if _tag(path, method) == "Scoring"}
    assert {path: names for path, names in read.items() if path in scoring} == {
        path: ["X-Request-Timeout-Ms", "Inference-Header-Content-Length"] for path in scoring
    }
    assert {path for path, names in read.items() if names[:2] == ["If-Match", "dry_run"]} == changes
    assert {path for path, body in bodies.items() if not body["required"]} == (
        bodies.keys() - scoring - changes - {"/v1/feedback", "/v1/log/forget"}
    )
    assert {path: [*body["content"]][1:] for path, body in bodies.items() if len(body["content"]) > 1} == {
        "/v2/models/{model}/infer": ["application/octet-stream"],
        "/v2/models/{model}/versions/{version}/infer": ["application/octet-stream"],
        "/v1/feedback": ["application/x-ndjson"],
        "/v1/models/{model}/route": ["application/toml"],
    }


def _tag(path: str, method: str) -> str:
    return str(DOCUMENT["paths"][path][method]["tags"][0])


@pytest.fixture(scope="module")
def running(packed: Path, tmp_path_factory: pytest.TempPathFactory, serve_module: Callable[..., Running]) -> Running:
    """A server of its own: what is asked here loads and unloads models."""
    models = shutil.copytree(packed, tmp_path_factory.mktemp("openapi") / "models")
    return serve_module(models, TILTYARD_LIMITS__BODY_BYTES="100000", TILTYARD_DRAIN_S="0.2")


@pytest.mark.parametrize(
    ("mode", "path", "method"),
    [
        pytest.param(mode, path, method, id=f"{mode.value} {method} {path}")
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        for path, method in CASES
        # Without a body there is nothing that could be invalid.
        if mode == GenerationMode.POSITIVE or "requestBody" in DOCUMENT["paths"][path][method]
    ],
)
def test_whatever_is_sent_is_answered_as_documented(
    running: Running, mode: GenerationMode, path: str, method: str
) -> None:
    """Data that fits the document and data that does not: no fault of the server, no undocumented answer."""
    operation = schemathesis.openapi.from_dict(DOCUMENT)[path][method.upper()]
    base_url = str(running.client.base_url)

    @settings(
        max_examples=25,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), known=st.booleans())
    def ask(case: schemathesis.Case, known: bool) -> None:
        if known and case.path_parameters:
            case.path_parameters = {**case.path_parameters, "model": "grid"}
        case.call_and_validate(base_url=base_url, checks=CHECKS, timeout=20)

    ask()

    assert httpx.get(f"{base_url}/v2/health/live").status_code == 200


def test_the_pages_examples_work_as_they_stand(server: Running) -> None:
    """Every curl line with a model that is there: none is refused for its form."""
    lines = re.findall(r"<pre class='command'>([^<]*)</pre>", render(DOCUMENT))

    assert len(lines) == len(CASES)
    for line in lines:
        words = shlex.split(unescape(line))
        after = dict(pairwise(words))
        method = after.get("-X", "POST" if "-d" in words else "GET")
        url = next(word.removeprefix("localhost:8080") for word in words if word.startswith("localhost"))
        headers = dict([after["-H"].split(": ")]) if "-H" in words else {}
        url = url.replace("flight-delay", "nobody")
        answer = server.client.request(method, url, content=after.get("-d"), headers=headers)
        assert answer.status_code in (200, 202, 404), line


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_reads_well_in_a_browser(server: Running, width: int) -> None:
    """It needs nothing from elsewhere, nothing runs over its edge, and an endpoint opens."""
    asked: list[str] = []
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{server.client.base_url}/docs")
        page.click("#post_v2_models_model_infer summary")
        assert page.locator("#post_v2_models_model_infer pre").first.is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    assert {httpx.URL(url).port for url in asked} == {httpx.URL(str(server.client.base_url)).port}
