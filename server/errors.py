"""Everything that can go wrong in the server, as one tree.

TiltyardError
├── SettingsError            a setting that cannot be used
├── BundleError              a bundle that cannot be served
│   └── StoreError           the store of bundles does not answer
├── RouteError               a route document that cannot be used
├── RouteStoreError          route documents cannot be read or changed at present
├── OutboxError              the embedded log cannot be opened or written
│   └── OutboxFullError      it has no room, and events.when_full is "block"
├── TopicError               the Kafka topic of events cannot be used at present
│   └── TopicRefusedError    it is not as it was when events were shipped to it
├── RequestError             the client's fault
│   ├── InvalidRequestError  the request contradicts the protocol or the model's signature
│   ├── UnknownModelError    no such model, or no such version of it
│   ├── TooLargeError        the body is larger than the limit
│   ├── EncodingError        the body is compressed in a way the server does not know
│   ├── ConflictError        what is asked for contradicts the present state
│   ├── StaleRouteError      the change is of a route that holds no longer
│   ├── UnconditionalError   the change does not say which route it is of
│   ├── UnauthorizedError    no token, or none that is known
│   ├── ForbiddenError       a token that may not do this
│   └── RateLimitedError     the token has used up its requests for now
├── OverloadedError          as many requests run as may
├── DeadlineError            the client's deadline passed before the work began
├── ClientGoneError          the client closed its connection before it was answered
├── NotReadyError            the model exists, but the version that should answer does not serve
└── ExecutionError           the model failed on rows that fit its signature
"""

from collections.abc import Sequence
from typing import Self


class TiltyardError(Exception):
    """A failure whose message says what, which one, what was expected and what came."""


class SettingsError(TiltyardError):
    """A setting that cannot be used."""


class BundleError(TiltyardError):
    """A bundle that cannot be served."""


class StoreError(BundleError):
    """The store of bundles does not answer at present."""


class RouteError(TiltyardError):
    """A route document that cannot be used. ``faults`` are its faults one by one."""

    def __init__(self, message: str, faults: Sequence[str] = ()) -> None:
        """message: all faults in one sentence; faults: without them the message is the only one."""
        super().__init__(message)
        self.faults = list(faults) or [message]

    @classmethod
    def of(cls, faults: Sequence[str]) -> Self:
        """Returns the error of a document with these faults, one or more."""
        return cls("; ".join(faults), faults)


class RouteStoreError(TiltyardError):
    """Route documents cannot be read or changed at present."""


class OutboxError(TiltyardError):
    """The embedded log cannot be opened or written."""


class OutboxFullError(OutboxError):
    """The embedded log has no room, and answers wait for it."""


class TopicError(TiltyardError):
    """The Kafka topic of events cannot be used at present."""


class TopicRefusedError(TopicError):
    """The topic is not as it was when events were shipped to it; people must decide."""


class RequestError(TiltyardError):
    """A request that the client must change."""


class InvalidRequestError(RequestError):
    """A request that contradicts the protocol or the model's signature."""


class UnknownModelError(RequestError):
    """No such model, or no such version of it."""


class TooLargeError(RequestError):
    """A body larger than the limit."""


class EncodingError(RequestError):
    """A body compressed in a way the server does not know."""


class ConflictError(RequestError):
    """A request that contradicts the present state, such as unloading what a route names."""


class StaleRouteError(RequestError):
    """A change of a route that holds no longer. ``revision`` is the present one's, None where that is not known."""

    def __init__(self, message: str, revision: int | None = None) -> None:
        """message: a sentence; revision: of the route that holds."""
        super().__init__(message)
        self.revision = revision


class UnconditionalError(RequestError):
    """A change that does not say which revision of the route it is of."""


class UnauthorizedError(RequestError):
    """No token, or none that is known."""


class ForbiddenError(RequestError):
    """A token that may not do this."""


class RateLimitedError(RequestError):
    """A token that has used up its requests for now."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        """retry_after_s: whole seconds after which a request will be let in."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OverloadedError(TiltyardError):
    """As many requests run as may; nothing was done for this one."""


class DeadlineError(TiltyardError):
    """The client's deadline passed before the work began."""


class ClientGoneError(TiltyardError):
    """The client closed its connection before it was answered: what it asked for is left undone."""


class NotReadyError(TiltyardError):
    """The version that should answer is not serving."""


class ExecutionError(TiltyardError):
    """The model failed on rows that fit its signature."""
