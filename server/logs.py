"""Logging to standard error, one line a record: for people, or one JSON object for machines."""

import json
import logging
import sys
import threading
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal

current_request_id: ContextVar[str] = ContextVar("current_request_id", default="")
"""The request that the running code works for; every record it logs says so."""

_CHATTY = ("uvicorn.error", "httpx")
_SILENCED = ("aiokafka",)  # says several times a second that a broker is away; who uses it says so once


class _TextFormatter(logging.Formatter):
    """Time, level, logger, message, and the request's id where there is one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        request_id = current_request_id.get()
        return f"{line} [request {request_id!r}]" if request_id else line  # a client chose it: line breaks are escaped


class _JsonFormatter(logging.Formatter):
    """One object: time, level, logger, message, process, and request_id and exception where there are any."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        value: dict[str, Any] = {
            "time": when.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            "process": record.process,
        }
        if request_id := current_request_id.get():
            value["request_id"] = request_id
        if record.exc_info and record.exc_info[0] is not None:
            value["exception"] = self.formatException(record.exc_info)
        return json.dumps(value)  # ASCII: every line break of any alphabet and every half of a character is escaped


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage().rstrip("\n")
    except (TypeError, ValueError, KeyError):  # arguments that do not fit: the record matters more than its form
        return f"{record.msg} {record.args!r}"


def configure_logging(level: str, format: Literal["text", "json"] = "text") -> None:  # noqa: A002  # the setting's word
    """Sends records of the given level and above to standard error.

    Args:
        format: with `json`, warnings and what ends a thread or the process are records as well, so
            that every line is an object.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if format == "json" else _TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)
    for silenced in _SILENCED:
        logging.getLogger(silenced).setLevel(logging.CRITICAL)
    if format == "json":
        logging.captureWarnings(True)
        sys.excepthook = _log_end
        threading.excepthook = _log_thread_end


def _log_end(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        logging.getLogger(__name__).critical("the process ends", exc_info=(kind, error, traceback))


def _log_thread_end(given: threading.ExceptHookArgs) -> None:
    if given.exc_value is not None:
        name = given.thread.name if given.thread else ""
        logging.getLogger(__name__).critical("thread %s ends", name, exc_info=given.exc_value)
