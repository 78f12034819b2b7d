"""Public clients, each in an environment of its own, against one live server."""

import ast
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.clients.environment import REQUIREMENTS, EnvironmentUnavailableError, client_python
from tests.clients.live import Live
from tests.required import missing

SUITES = Path(__file__).parent / "suites"
CLIENTS = {"triton": "triton.py", "kserve": "kserve_rest.py", "mlserver": "mlserver_codecs.py"}
TIMEOUT_S = 300


@dataclass(frozen=True)
class Results:
    """What each case of each function said, "" where it passed; why there are none, where there are none."""

    cases: dict[str, dict[str, str]]
    why_none: str = ""
    environment_missing: bool = False


def functions(suite: str) -> list[str]:
    """Returns the names of a suite's tests, which cannot be imported here: its client is elsewhere."""
    tree = ast.parse((SUITES / suite).read_text())
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]


@pytest.fixture(scope="module")
def results(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Results]:
    """Runs a client's suite, once, and returns its results."""

    @cache
    def run(client: str) -> Results:
        try:
            python = client_python(REQUIREMENTS / f"{client}.txt")
        except EnvironmentUnavailableError as error:
            return Results({}, str(error), environment_missing=True)
        report = tmp_path_factory.mktemp(client) / "report.xml"
        options = ["--host", live.host, "--token", live.token, "--reader", live.reader, "--known", str(live.known)]
        command = [python, "-m", "pytest", CLIENTS[client], f"--junit-xml={report}", *options]
        try:
            done = subprocess.run(command, cwd=SUITES, capture_output=True, text=True, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            return Results({}, str(error))
        return Results(read_cases(report) if report.exists() else {}, done.stdout + done.stderr)

    return run


def read_cases(report: Path) -> dict[str, dict[str, str]]:
    """Returns what each case said in a JUnit report, by function and by name."""
    found: dict[str, dict[str, str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.attrib["name"]
        said = "\n".join(f"{part.tag}: {part.text}" for part in case if part.tag in ("failure", "error", "skipped"))
        # A case whose fixture fails at its end stands there twice.
        found.setdefault(name.partition("[")[0], {}).setdefault(name, "")
        found[name.partition("[")[0]][name] += said
    return found


@pytest.mark.parametrize(
    ("client", "function"), [(client, name) for client, suite in CLIENTS.items() for name in functions(suite)]
)
def test_client(client: str, function: str, results: Callable[[str], Results]) -> None:
    """A public client works unmodified; what each case proves stands in its suite."""
    found = results(client)
    if found.environment_missing:
        missing(found.why_none)

    assert function in found.cases, f"no case of {function} ran: {found.why_none}"
    failed = {name: said for name, said in found.cases[function].items() if said}
    assert not failed, "\n\n".join(f"{name}\n{said}" for name, said in failed.items())
