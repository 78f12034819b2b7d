"""The bodies beside inference: repository requests, timeouts."""

from typing import Any

import msgspec
import pytest

from server.errors import InvalidRequestError
from server.protocol.messages import (
    ModelStatistics,
    decode_index_request,
    decode_repository_request,
    timeout_us_of,
)


@pytest.mark.parametrize(
    ("body", "ready"),
    [
        (b"", False),
        (b" \n", False),
        (b'""', False),
        (b"null", False),
        (b"{}", False),
        (b'{"ready": null}', False),
        (b'{"ready": false, "novel": 1}', False),
        (b'{"ready": true}', True),
    ],
)
def test_an_index_may_be_asked_for_in_every_way_clients_do(body: bytes, ready: bool) -> None:
    """With nothing, with an empty string, with an object."""
    assert decode_index_request(body) == ready


@pytest.mark.parametrize("body", [b"{", b"[]", b"1", b'"x"', b'{"ready": 1}', b'{"ready": "true"}', b"\xff"])
def test_an_index_request_that_is_none_is_refused(body: bytes) -> None:
    """Not JSON, no object, or no boolean."""
    with pytest.raises(InvalidRequestError):
        decode_index_request(body)


@pytest.mark.parametrize(
    ("body", "parameters"),
    [
        (b"", None),
        (b'""', None),
        (b"{}", None),
        (b'{"parameters": null}', None),
        (b'{"parameters": {"unload_dependents": true, "config": {}}}', {"unload_dependents": True, "config": {}}),
    ],
)
def test_a_load_may_have_parameters(body: bytes, parameters: Any) -> None:
    """Or nothing at all."""
    assert decode_repository_request(body) == parameters


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"parameters": []}', b'{"a":' * 100_000])
def test_a_load_that_is_none_is_refused(body: bytes) -> None:
    """Not JSON, no object, or nested without end."""
    with pytest.raises(InvalidRequestError):
        decode_repository_request(body)


@pytest.mark.parametrize(("parameters", "expected"), [(None, None), ({}, None), ({"timeout": None}, None)])
def test_a_request_without_a_timeout_has_no_end(parameters: Any, expected: Any) -> None:
    """null is absent."""
    assert timeout_us_of(parameters) == expected


def test_a_timeout_is_in_microseconds() -> None:
    """As tritonclient sends it."""
    assert timeout_us_of({"timeout": 1}) == 1


@pytest.mark.parametrize("timeout", [0, -1, True, 1.0, "1", [1]])
def test_a_timeout_that_is_none_is_refused(timeout: Any) -> None:
    """Zero, negative, or not an integer."""
    with pytest.raises(InvalidRequestError, match=r"parameters.timeout: expected microseconds as an integer above 0"):
        timeout_us_of({"timeout": timeout})


def test_statistics_have_every_member_that_clients_read() -> None:
    """Zeros for a version that has answered nothing."""
    statistics = msgspec.to_builtins(ModelStatistics(name="m", version="1"))

    assert (statistics["name"], statistics["version"], statistics["inference_count"]) == ("m", "1", 0)
    assert statistics["inference_stats"]["success"] == {"count": 0, "ns": 0}
