"""What supervisor and worker say to each other: one JSON object a line."""

from typing import Any, Literal

import msgspec

from server import errors
from server.errors import TiltyardError
from server.eventlog.erasure import Found


class Fault(msgspec.Struct, frozen=True):
    """An error on its way to another process: the name of its class in errors.py, and its sentence."""

    kind: str
    text: str

    @classmethod
    def of(cls, error: TiltyardError) -> "Fault":
        """Returns the fault that says what an error says."""
        return cls(type(error).__name__, str(error))

    def error(self) -> TiltyardError:
        """Returns the error again; one whose class takes more than a sentence becomes the plainest."""
        kind = getattr(errors, self.kind, TiltyardError)
        try:
            return kind(self.text)
        except TypeError:
            return TiltyardError(self.text)


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One line; its member ``type`` is the class's name."""


class Start(_Message, frozen=True, kw_only=True):
    """To a new worker, once and first. ``serving``: model and version of what to load, None for all of the store."""

    slot: int
    settings: dict[str, Any]
    metrics_folder: str
    serving: list[tuple[str, str]] | None


class Plan(_Message, frozen=True, kw_only=True):
    """A change of the repository, as swap.Change has it; sent to a worker, it is to be prepared."""

    change: str
    action: Literal["load", "unload"]
    model: str
    versions: list[str]


class Commit(_Message, frozen=True, kw_only=True):
    """Every worker has prepared a change: switch."""

    change: str


class Abandon(_Message, frozen=True, kw_only=True):
    """A worker could not prepare a change: forget it."""

    change: str


class Turn(_Message, frozen=True, kw_only=True):
    """To a worker that asked: nobody else changes the repository now, say what you want changed."""

    ask: int


class Outcome(_Message, frozen=True, kw_only=True):
    """To a worker that asked: the change holds everywhere, or nowhere because of a fault."""

    ask: int
    fault: Fault | None


class Written(_Message, frozen=True, kw_only=True):
    """What a worker wanted committed is on disk, or the fault why it is not."""

    commit: int
    fault: Fault | None


class Serve(_Message, frozen=True, kw_only=True):
    """To a worker that has loaded: what it has is what the others serve, accept connections."""


class Lead(_Message, frozen=True, kw_only=True):
    """To one worker at a time: watch the store for all."""


class Loaded(_Message, frozen=True, kw_only=True):
    """From a worker: model and version of all that it has tried to load."""

    known: list[tuple[str, str]]


class Look(_Message, frozen=True, kw_only=True):
    """From a worker: it has changed a route. To all others: look at the routes now."""


class Ready(_Message, frozen=True, kw_only=True):
    """From a worker: it accepts connections."""

    url: str


class Failed(_Message, frozen=True, kw_only=True):
    """From a worker that cannot start."""

    fault: Fault


class Wake(_Message, frozen=True, kw_only=True):
    """From a worker: there are lines in its ring."""


class WriteOut(_Message, frozen=True, kw_only=True):
    """From a worker: it wants everything up to a position of its ring on disk, and then some events forgotten."""

    commit: int
    position: int
    forget: Found | None = None


class Ask(_Message, frozen=True, kw_only=True):
    """From a worker: it wants to change the repository."""

    ask: int


class Planned(_Message, frozen=True, kw_only=True):
    """From a worker whose turn it is: the change, None when there is nothing to change any more."""

    ask: int
    plan: Plan | None


class Prepared(_Message, frozen=True, kw_only=True):
    """From a worker: it has prepared a change, or the fault why not."""

    change: str
    fault: Fault | None


class Drained(_Message, frozen=True, kw_only=True):
    """From a worker: it has switched, and what a change replaced is free."""

    change: str


ToWorker = Start | Plan | Commit | Abandon | Turn | Outcome | Written | Serve | Lead | Look
FromWorker = Loaded | Ready | Failed | Wake | Look | WriteOut | Ask | Planned | Prepared | Drained

to_worker: msgspec.json.Decoder[ToWorker] = msgspec.json.Decoder(ToWorker)
from_worker: msgspec.json.Decoder[FromWorker] = msgspec.json.Decoder(FromWorker)
_encoder = msgspec.json.Encoder()


def encode(message: ToWorker | FromWorker) -> bytes:
    """Returns a message as one line, with its end."""
    return _encoder.encode(message) + b"\n"
