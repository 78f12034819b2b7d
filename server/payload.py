"""A request on its way to a model: its body, which becomes rows, and who waits for the answer."""

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

import msgspec

from server.errors import ClientGoneError, DeadlineError, InvalidRequestError
from server.protocol.datatypes import Arrays
from server.protocol.messages import Parameters
from server.protocol.tensor_form import TensorForm
from server.protocol.tensors import SelectedOutput


class Rows(msgspec.Struct, frozen=True):
    """A request's rows as one version takes them, and as the event keeps them.

    ``selected`` are the outputs the client wants, in its order; ``packed`` names those that leave in binary.
    """

    arrays: Arrays
    count: int
    inputs: msgspec.Raw
    selected: list[SelectedOutput]

    @property
    def packed(self) -> frozenset[str]:
        return frozenset([output.name for output in self.selected if output.binary])


class Caller(msgspec.Struct, frozen=True):
    """Who waits for an answer: until when, of time.perf_counter_ns, whether it is still there, and its headers.

    ``header`` returns the first value of a header by its name in small letters, None without one.
    """

    arrived_ns: int
    deadline_ns: int | None
    gone: Callable[[], bool]
    header: Callable[[bytes], bytes | None]

    def check(self) -> None:
        """Raises DeadlineError or ClientGoneError when nobody waits for the answer any more."""
        if self.deadline_ns is not None and time.perf_counter_ns() > self.deadline_ns:
            allowed_ms = (self.deadline_ns - self.arrived_ns) / 1e6
            raise DeadlineError(f"expected to begin within {allowed_ms:g} ms of the request's arrival, got to it later")
        if self.gone():
            raise ClientGoneError("the client left before its request was worked on")


class Payload(Protocol):
    """A request's body, which becomes rows once the version that answers is known."""

    request_id: str
    event_time: datetime | None
    caller: Caller
    parameters: Parameters | None

    @property
    def size_bytes(self) -> int:
        """How much memory the request holds, nearly: its body's, and its arrays' once they are made."""
        ...

    def rows(self, form: TensorForm) -> Rows:
        """Returns the rows for a version of this form, or raises InvalidRequestError."""
        ...


def event_time_of(parameters: Mapping[str, Any] | None) -> datetime | None:
    """Returns the time that a request's parameters give its event, None without one.

    Raises:
        InvalidRequestError: ``time`` is not RFC 3339 with an offset.
    """
    value = (parameters or {}).get("time")
    return None if value is None else parse_time(value, "parameters.time")


def parse_time(value: Any, where: str) -> datetime:
    """Returns an RFC 3339 time, or raises InvalidRequestError that names where it stood."""
    try:
        moment: datetime = msgspec.convert(value, datetime)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"{where}: expected a time as RFC 3339, got another value") from error
    if moment.tzinfo is None:
        raise InvalidRequestError(f"{where}: expected a time with an offset such as Z, got one without")
    return moment
