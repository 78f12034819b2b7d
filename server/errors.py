"""Everything that can go wrong in the server, as one tree.

TiltyardError
├── SettingsError            a setting that cannot be used
├── BundleError              a bundle that cannot be served
├── RouteError               a route document that cannot be used
├── OutboxError              the embedded log cannot be opened or written
│   └── OutboxFullError      it has no room, and events.when_full is "block"
├── RequestError             the client's fault
│   ├── InvalidRequestError  the request contradicts the protocol or the model's signature
│   ├── UnknownModelError    no such model, or no such version of it
│   └── TooLargeError        the body is larger than the limit
├── NotReadyError            the model exists, but the version that should answer does not serve
└── ExecutionError           the model failed on rows that fit its signature
"""


class TiltyardError(Exception):
    """A failure whose message says what, which one, what was expected and what came."""


class SettingsError(TiltyardError):
    """A setting that cannot be used."""


class BundleError(TiltyardError):
    """A bundle that cannot be served."""


class RouteError(TiltyardError):
    """A route document that cannot be used."""


class OutboxError(TiltyardError):
    """The embedded log cannot be opened or written."""


class OutboxFullError(OutboxError):
    """The embedded log has no room, and answers wait for it."""


class RequestError(TiltyardError):
    """A request that the client must change."""


class InvalidRequestError(RequestError):
    """A request that contradicts the protocol or the model's signature."""


class UnknownModelError(RequestError):
    """No such model, or no such version of it."""


class TooLargeError(RequestError):
    """A body larger than the limit."""


class NotReadyError(TiltyardError):
    """The version that should answer is not serving."""


class ExecutionError(TiltyardError):
    """The model failed on rows that fit its signature."""
