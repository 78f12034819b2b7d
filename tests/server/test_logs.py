"""Records on standard error: one line each, for people or for machines."""

import json
import logging
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from server.logs import configure_logging

PROGRAM = """
import logging, sys, threading, warnings
from server.logs import configure_logging, current_request_id
configure_logging({arguments})
logger = logging.getLogger("tests.logs")
{body}
"""


def said(arguments: str, body: str) -> list[str]:
    """Returns the lines that a process writes, with logging as the arguments say."""
    program = PROGRAM.format(arguments=arguments, body=body)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stderr.splitlines()


def objects(body: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in said("'info', 'json'", body)]


def test_text_is_the_default_and_has_a_line_a_record() -> None:
    """Time, level, logger and message; what is below the level is left out."""
    lines = said(
        "'info'", "logger.info('loaded %d', 3); logger.debug('no'); logging.getLogger('uvicorn.error').info('no')"
    )

    assert ["INFO    tests.logs: loaded 3"] == [line.split(" ", 1)[1] for line in lines]


def test_the_errors_of_kafkas_client_are_left_to_its_user() -> None:
    """It says several times a second that a broker is away; the server says so once."""
    lines = said("'debug'", "logging.getLogger('aiokafka.consumer.fetcher').error('no'); logger.info('once')")

    assert ["INFO    tests.logs: once"] == [line.split(" ", 1)[1] for line in lines]


def test_text_names_the_request_where_there_is_one() -> None:
    """A client chose the id: it cannot make a line of its own."""
    lines = said("'info'", "current_request_id.set('r\\nERROR'); logger.info('scored')")

    assert ["INFO    tests.logs: scored [request 'r\\nERROR']"] == [line.split(" ", 1)[1] for line in lines]


def test_json_is_an_object_a_record() -> None:
    """With an RFC 3339 time in UTC; the request's id only where there is one."""
    before = datetime.now(UTC).isoformat(timespec="milliseconds")
    first, second = objects(
        "logger.info('a %s', 'b'); current_request_id.set('r-1'); logger.warning('c', extra={'x': 1})"
    )

    time, process = first.pop("time"), first.pop("process")
    assert before.replace("+00:00", "Z") <= str(time) <= datetime.now(UTC).isoformat()
    assert (len("2026-01-01T00:00:00.000Z"), "Z") == (len(str(time)), str(time)[-1])
    assert isinstance(process, int)
    assert {"level": "info", "logger": "tests.logs", "message": "a b"} == first
    assert ("warning", "c", "r-1") == (second["level"], second["message"], second["request_id"])


def test_json_has_one_line_whatever_is_logged() -> None:
    """Line breaks of every kind, exceptions, half a character, arguments that do not fit, Python's own words."""
    values = objects(
        """
logger.error("a\\nb\\r\\u2028c")
try:
    1 / 0
except ZeroDivisionError:
    logger.exception("failed")
logger.error("\\ud800")
logger.error("%d of %d", "x")
logging.getLogger("uvicorn.error").error("Exception in ASGI application\\n")
warnings.warn("old")
threading.Thread(target=lambda: 1 / 0, name="worker").start()
raise RuntimeError("the end")
"""
    )

    messages = [value["message"] for value in values]
    assert ["a\nb\r\u2028c", "failed", "\ud800", "%d of %d ('x',)", "Exception in ASGI application"] == messages[:5]
    assert "UserWarning: old" in str(messages[5])
    assert ["thread worker ends", "the process ends"] == messages[6:]
    exceptions = [str(values[place]["exception"]) for place in (1, 6, 7)]
    assert all(text.startswith("Traceback (most recent call last):\n") for text in exceptions)
    assert ["ZeroDivisionError: division by zero", "ZeroDivisionError: division by zero", "RuntimeError: the end"] == [
        text.splitlines()[-1] for text in exceptions
    ]


def test_an_interrupted_process_says_nothing() -> None:
    """Ctrl-C is no failure."""
    assert [] == objects("raise KeyboardInterrupt")


@pytest.fixture
def logging_restored() -> object:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.mark.usefixtures("logging_restored")
def test_logging_can_be_configured_again() -> None:
    """The second call replaces the first: no record is written twice."""
    configure_logging("info")
    configure_logging("error", "text")

    assert (1, logging.ERROR) == (len(logging.root.handlers), logging.root.level)
