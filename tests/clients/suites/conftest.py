"""What every suite is given: the address of a server, tokens of it, and answers that are known."""

from collections.abc import Callable
from pathlib import Path

import pytest
from known import Known, read_known


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--host", help="host:port of the server")
    parser.addoption("--token", help="a token that may do everything")
    parser.addoption("--reader", help="a token that may only infer")
    parser.addoption("--known", help="the folder of known answers")


@pytest.fixture(scope="session")
def host(pytestconfig: pytest.Config) -> str:
    return str(pytestconfig.getoption("--host"))


@pytest.fixture(scope="session")
def token(pytestconfig: pytest.Config) -> str:
    return str(pytestconfig.getoption("--token"))


@pytest.fixture(scope="session")
def reader(pytestconfig: pytest.Config) -> str:
    return str(pytestconfig.getoption("--reader"))


@pytest.fixture(scope="session")
def known(pytestconfig: pytest.Config) -> Callable[[str], Known]:
    """Returns what onnxruntime itself answered, by name: "flight-1"."""
    folder = Path(pytestconfig.getoption("--known"))
    return lambda name: read_known(folder / f"{name}.npz")
