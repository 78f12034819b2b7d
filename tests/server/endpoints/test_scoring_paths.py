"""Which paths score, and what they ask for."""

from typing import Any, cast

import pytest

from server.endpoints.inference import Inference
from server.endpoints.scoring_paths import ScoringPaths, Target

TENSORS, ROWS = cast(Inference, "tensors"), cast(Inference, "rows")


def paths() -> ScoringPaths:
    return ScoringPaths(
        [
            ("/v2/models/{model}/infer", TENSORS),
            ("/v2/models/{model}/versions/{version}/infer", TENSORS),
            ("/v1/models/{model}:predict", ROWS),
        ]
    )


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2/models/m/infer", (TENSORS, "m", None)),
        ("/v2/models/m/versions/2/infer", (TENSORS, "m", "2")),
        ("/v1/models/m:predict", (ROWS, "m", None)),
        ("/v1/models/a:b:predict", (ROWS, "a:b", None)),
        ("/v2/models/Ærø 1?/infer", (TENSORS, "Ærø 1?", None)),
        ("/v2/models/m/infer/", None),
        ("/v2/models/m/infer\n", None),
        ("/v2/models//infer", None),
        ("/v2/models/a/b/infer", None),
        ("/v2/models/m/versions/infer", None),
        ("/v2/models/m/versions/1/2/infer", None),
        ("x/v2/models/m/infer", None),
        ("/v1/models/m.predict", None),
        ("/", None),
    ],
)
def test_a_path_asks_for_a_model_and_maybe_a_version(path: str, expected: Any) -> None:
    """A name is anything without a slash; the same again when the path is known."""
    found = paths()

    assert [expected, expected] == [found.find(path), found.find(path)]


def test_paths_without_end_take_no_memory_without_end() -> None:
    """A client that makes up names; what is asked for stays right."""
    found = paths()

    for number in range(3000):
        assert Target(TENSORS, str(number), None) == found.find(f"/v2/models/{number}/infer")
        assert found.find(f"/{number}") is None
    assert len(found._known) <= 1024
