"""Which HTTP status each error is answered with; events carry the same number.

The errors themselves know no HTTP. This is the one place that does, below both the pipeline, which
writes the status into the event, and the endpoints, which put it on the wire.
"""

from collections.abc import Mapping

from server.errors import (
    ExecutionError,
    InvalidRequestError,
    NotReadyError,
    OutboxError,
    OutboxFullError,
    TiltyardError,
    TooLargeError,
    UnknownModelError,
)

STATUS: Mapping[type[TiltyardError], int] = {
    InvalidRequestError: 400,
    UnknownModelError: 404,
    TooLargeError: 413,
    NotReadyError: 503,
    OutboxFullError: 503,
    OutboxError: 503,
    ExecutionError: 500,
}

RETRY_AFTER_S = 1


def status_of(error: TiltyardError) -> int:
    """Returns the status of an error: that of the nearest class in the table, else 500."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return 500
