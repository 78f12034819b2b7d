"""Which HTTP status each error is answered with; events carry the same number.

A client that has gone is told nothing: 499, as in nginx, is what metrics count it under. A bundle that
fails is the fault of the load request that names it.

The errors themselves know no HTTP. This is the one place that does, below both the pipeline, which
writes the status into the event, and the endpoints, which put it on the wire.
"""

from collections.abc import Mapping

from server.errors import (
    BundleError,
    ClientGoneError,
    ConflictError,
    DeadlineError,
    EncodingError,
    ExecutionError,
    ForbiddenError,
    InvalidRequestError,
    NotReadyError,
    OutboxError,
    OutboxFullError,
    OverloadedError,
    RateLimitedError,
    RouteError,
    RouteStoreError,
    StaleRouteError,
    StoreError,
    TiltyardError,
    TooLargeError,
    UnauthorizedError,
    UnconditionalError,
    UnknownModelError,
)

STATUS: Mapping[type[TiltyardError], int] = {
    InvalidRequestError: 400,
    BundleError: 400,
    UnauthorizedError: 401,
    ForbiddenError: 403,
    UnknownModelError: 404,
    ConflictError: 409,
    StaleRouteError: 412,
    TooLargeError: 413,
    EncodingError: 415,
    RouteError: 422,
    UnconditionalError: 428,
    RateLimitedError: 429,
    ClientGoneError: 499,
    NotReadyError: 503,
    StoreError: 503,
    RouteStoreError: 503,
    OverloadedError: 503,
    DeadlineError: 504,
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
