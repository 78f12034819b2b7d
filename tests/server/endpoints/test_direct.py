"""Which heads the fast lane takes."""

from types import SimpleNamespace
from typing import cast

import pytest

from server.endpoints.direct import Direct
from server.endpoints.inference import Inference
from server.endpoints.scoring_paths import ScoringPaths
from server.service import Service
from server.settings import LimitSettings

PATH = "/v2/models/m/infer"
LENGTH = (b"content-length", b"2")


def direct() -> Direct:
    """Returns what prepares heads of bodies up to 1024 bytes."""
    service = cast(Service, SimpleNamespace(settings=SimpleNamespace(limits=LimitSettings(body_bytes=1024))))
    return Direct(service, ScoringPaths([("/v2/models/{model}/infer", cast(Inference, "endpoint"))]))


@pytest.mark.parametrize("length", [0, 2, 1024])
def test_a_head_that_scores_is_prepared_for_bodies_of_its_length(length: int) -> None:
    """With any other headers beside, up to the limit and no body at all included."""
    prepared = direct().prepare(PATH, [(b"host", b"a"), (b"content-length", b"%d" % length), (b"x-a", b"1")])

    assert prepared is not None
    assert length == prepared.body_bytes


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v2/models/m/ready", [LENGTH]),
        (PATH, []),
        (PATH, [(b"content-length", b"1025")]),
        (PATH, [(b"content-length", b"two")]),
        (PATH, [LENGTH, (b"inference-header-content-length", b"two")]),
        (PATH, [LENGTH, (b"x-request-timeout-ms", b"-1")]),
        (PATH, [LENGTH, (b"authorization", b"a"), (b"authorization", b"b")]),
    ],
    ids=["another path", "no length", "too long", "no number", "no JSON length", "no time", "two tokens"],
)
def test_what_does_not_score_or_would_be_refused_is_the_applications(
    path: str, headers: list[tuple[bytes, bytes]]
) -> None:
    """Which has a sentence for each."""
    assert direct().prepare(path, headers) is None
