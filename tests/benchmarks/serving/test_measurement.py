"""Contestants that cannot be measured, and machines that are not quiet."""

import sys
from pathlib import Path

import pytest

from benchmarks.serving.contestant import Contestant, Ground, Launch
from benchmarks.serving.measurement import TRIES, Found, measure_round, quietest
from benchmarks.serving.plan import Load, Part

WRONG = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"outputs": [{"name": "label", "data": [2]}]}')
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def contestant(name: str, code: str) -> Contestant:
    """Returns a contestant that is a few lines of Python, which gets its port."""
    return Contestant(
        name=name,
        launch=lambda ground, estimator, folder, port: Launch(command=[sys.executable, "-c", code, str(port)]),
    )


def measured(who: Contestant, folder: Path, found: Found) -> list[str]:
    """Measures a round of one contestant, and returns what was said."""
    said: list[str] = []
    part = Part(name="peers", estimator="any", contestants=(who,), loads=(Load("JSON", 1, 1),), about="")
    ground = Ground(bundles={"any": folder}, answers={}, pythons={})
    measure_round(0, [part], ground, folder, 1, found, said.append)
    return said


def test_who_does_not_start_is_skipped_with_its_reason(tmp_path: Path) -> None:
    """The end of its log is the reason, it is said at once, and it is not tried again."""
    found = Found()
    who = contestant("broken", "import sys; sys.exit('no licence')")

    first, again = measured(who, tmp_path, found), measured(who, tmp_path, found)

    assert found.runs == []
    assert found.skipped == {"broken, part peers": "it ended: …no licence"}
    assert ("no licence" in first[0], again) == (True, [])


def test_who_answers_something_else_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is measured whose answer is not the graph's."""
    found = Found()
    monkeypatch.setattr("benchmarks.serving.measurement.truth", lambda graph, x: {"label": x[0, :1]})

    measured(contestant("wrong", WRONG), tmp_path, found)

    assert found.runs == []
    assert "another answer than the graph's: label" in found.skipped["wrong, part peers"]


@pytest.mark.parametrize(
    ("others", "kept", "tries"),
    [([0.02, 0.0], 0.02, 1), ([0.9, 0.05, 0.0], 0.05, 2), ([0.9, 0.3, 0.5, 0.0], 0.3, TRIES)],
)
def test_a_disturbed_run_is_tried_again(others: list[float], kept: float, tries: int) -> None:
    """The first quiet run counts; where there is none, the quietest of a few does."""
    runs = iter([{"others": used} for used in others])

    assert quietest(lambda: next(runs)) == {"others": kept, "tries": tries}
