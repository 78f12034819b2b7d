"""Requests that nobody thought of: random sequences cut anywhere, and what the OpenAPI document allows and not."""

from itertools import pairwise

import msgspec
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from server.endpoints.openapi import openapi_document
from tests.lanes.pair import Pair
from tests.lanes.raw import chunked, head, post
from tests.lanes.requests import DELAY, ECHO, FLIGHT, GRID, binary, delay, echo, flight, grid, raw_rows

QUIET = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAE")
CONTENTS: list[bytes | dict[str, object]] = [
    grid(),
    grid((1, 2), (3, 4)),
    {**grid(), "inputs": []},
    {"id": "r", "rows": [{"hour": 1, "distance": 2.0}]},
    {"instances": [[1, 2.0]]},
    b"",
    b"{",
    b"\xff" * 40,
]
HEADERS = st.lists(
    st.sampled_from(
        [
            "Expect: 100-continue",
            "Connection: keep-alive",
            "X-Request-Timeout-Ms: 60000",
            "X-Request-Timeout-Ms: 0",
            "Accept-Encoding: gzip",
            "Content-Encoding: gzip",
            "Content-Encoding: identity",
            "Content-Type: text/plain",
            "Inference-Header-Content-Length: 0",
            "Inference-Header-Content-Length: 88",
            "X-Tester: red",
        ]
    ),
    max_size=2,
)
TARGETS = [GRID, FLIGHT, DELAY, "/v1/models/grid/predict", "/v1/models/grid:predict", "/v2/models/nobody/infer"]
KEPT_OPEN = st.one_of(
    st.builds(
        lambda target, content, headers: post(target, content, *headers),
        st.sampled_from([*TARGETS, "/v2/models/grid/versions/1/infer", "/v2/models/grid/versions/2/infer", "/nothing"]),
        st.sampled_from(CONTENTS),
        HEADERS,
    ),
    st.builds(
        lambda target, content, size, headers: chunked(target, content, size, *headers),
        st.sampled_from(TARGETS),
        st.sampled_from(CONTENTS),
        st.sampled_from([3, 40, 1000]),
        HEADERS,
    ),
    st.builds(
        lambda hour, customer: post(DELAY, delay(hour, parameters={"customer": customer})),
        st.sampled_from([3, 24]),
        st.integers(0, 5),
    ),
    st.sampled_from(
        [
            post(FLIGHT, flight()),
            post(GRID, grid(), *H2C),
            post(GRID, grid(*[(1, 2)] * 500)),
            binary(ECHO, *echo("binary")),
            binary(GRID, raw_rows((1, 2)), 0),
            head("GET", "/v2/models/grid"),
            head("HEAD", GRID),
            head("OPTIONS", "/v1/models/grid/predict"),
            b"\r\n",
        ]
    ),
)
ENDS = st.sampled_from(
    [
        b"",
        b"",
        b"GARBAGE\r\n\r\n",
        post(GRID, grid(), "Connection: close"),
        post(GRID, grid(), version="1.0"),
        head("POST", GRID, "Transfer-Encoding: chunked") + b"xyz\r\n",
        post(GRID, grid()).replace(b"Host: h", b"Content-Length: 3"),
        post(GRID, grid(), "X: " + "x" * 70_000),
    ]
)


@settings(QUIET, max_examples=100)
@given(
    sequence=st.lists(KEPT_OPEN, min_size=1, max_size=8),
    end=ENDS,
    behind=st.lists(KEPT_OPEN, max_size=2),
    data=st.data(),
)
def test_random_sequences(
    pair: Pair, sequence: list[bytes], end: bytes, behind: list[bytes], data: st.DataObject
) -> None:
    """Requests of every kind, pipelined and cut anywhere, with or without something that ends the connection."""
    sent = b"".join([*sequence, end, *(behind if end else [])])
    cuts = data.draw(st.lists(st.integers(1, len(sent)), max_size=6, unique=True))
    edges = [0, *sorted(cuts), len(sent)]

    pair.ask(*[sent[start:stop] for start, stop in pairwise(edges) if start < stop])


DOCUMENT = openapi_document("0")
SCORING = [path for path, methods in DOCUMENT["paths"].items() if methods.get("post", {}).get("tags") == ["Scoring"]]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
@pytest.mark.parametrize("path", SCORING)
def test_whatever_the_document_allows_or_not(pair: Pair, mode: GenerationMode, path: str) -> None:
    """What test_openapi.py sends to one server, sent to both."""
    operation = schemathesis.openapi.from_dict(DOCUMENT)[path]["POST"]

    @settings(QUIET, max_examples=20)
    @given(case=operation.as_strategy(generation_mode=mode), known=st.booleans())
    def ask(case: schemathesis.Case, known: bool) -> None:
        if known and case.path_parameters:
            case.path_parameters = {**case.path_parameters, "model": "grid"}
        prepared = requests.Request(**case.as_transport_kwargs(base_url="http://h")).prepare()
        content = prepared.body or b""
        lines = [f"{name}: {value}" for name, value in prepared.headers.items() if name.lower() != "content-length"]
        pair.ask(post(prepared.path_url, content if isinstance(content, bytes) else content.encode(), *lines))

    ask()


@settings(QUIET, max_examples=50)
@given(
    request=st.dictionaries(
        st.sampled_from(["id", "inputs", "outputs", "parameters", "rows", "instances"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["name", "shape", "datatype", "data", "parameters"]), inner, max_size=5
                )
            ),
            max_leaves=12,
        ),
    ),
    target=st.sampled_from(TARGETS),
)
def test_values_that_nobody_would_send(pair: Pair, request: dict[str, object], target: str) -> None:
    """JSON whose members are of any type."""
    pair.ask(post(target, msgspec.json.encode(request)))
