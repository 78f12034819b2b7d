"""Clients that ask without a pause and note exactly what they were promised."""

import http.client
import json
import math
import random
import threading
import time
from collections import Counter
from typing import Any, NamedTuple

from tests.faults.models import MODEL
from tests.patience import PATIENCE_S

_INFER = f"/v2/models/{MODEL}/infer"
_FEEDBACK = "/v1/feedback"
_LABEL_EVERY = 8  # answers
_EARLY = 4  # of so many labels one is sent before its prediction
_AHEAD = 300  # answers beyond those that somebody waits for, so that a fault meets requests at work


class Answered(NamedTuple):
    """A response with status 200 that a client has received to its end."""

    request: str
    at: float
    """By the monotonic clock of this process, which no fault moves."""
    connected_at: float
    """When the connection was made that it came over, by the same clock."""


class Load:
    """Several clients, each with one connection and one request at a time.

    A client's requests are numbered, so what its server logs is in that order; a connection that breaks is made
    anew and the request that was on it is given up. Labels that were not accepted are sent again under their event id.
    They pause once they are far ahead of whoever waits for answers, so that processes that start have the machine.
    """

    def __init__(self, port: int, seed: int, clients: int = 3, rows: int = 1) -> None:
        """rows: of each request."""
        self._answers = 0
        self._wanted = 0.0
        self._changed = threading.Condition()
        self._serving = threading.Event()
        self._serving.set()
        self._over = threading.Event()
        self._clients = [_Client(self, port, f"{seed}-{number}", rows) for number in range(clients)]
        for client in self._clients:
            client.start()

    @property
    def answered(self) -> list[list[Answered]]:
        """What was answered, by client, in the order of its requests."""
        return [client.answered for client in self._clients]

    @property
    def accepted(self) -> set[str]:
        """The event ids of all labels that were answered 202."""
        return {label for client in self._clients for label in client.accepted}

    @property
    def refusals(self) -> Counter[int]:
        """Statuses other than 200 and 202, with how often each came."""
        return sum((client.refusals for client in self._clients), Counter())

    @property
    def answers(self) -> int:
        """How many predictions were answered with status 200."""
        return self._answers

    def more(self, count: int) -> None:
        """Returns once so many more predictions have been answered.

        Raises:
            AssertionError: they do not come in time.
        """
        with self._changed:
            enough = self._answers + count
            self._wanted = enough + _AHEAD
            self._changed.notify_all()
            came = self._changed.wait_for(lambda: self._answers >= enough or self._failure(), PATIENCE_S)
        assert self._failure() is None, f"a client failed: {self._failure()!r}"
        assert came, f"timed out after {PATIENCE_S:g} s waiting for {count} answers; refused: {dict(self.refusals)}"

    def go_on(self) -> None:
        """Asks without an end, until `pause` or `more`."""
        with self._changed:
            self._wanted = math.inf
            self._changed.notify_all()

    def pause(self) -> None:
        """Asks nothing more until `go_on` or `more`."""
        with self._changed:
            self._wanted = self._answers

    def hold(self) -> None:
        """Lets clients whose connection breaks wait, as the server is about to go."""
        self._serving.clear()

    def release(self) -> None:
        """Lets them connect again."""
        self._serving.set()

    def end(self) -> None:
        """Stops asking. The server must answer: labels that nobody has accepted yet are sent until someone does."""
        self._over.set()
        self._serving.set()
        with self._changed:
            self._changed.notify_all()
        for client in self._clients:
            client.join(PATIENCE_S)
        assert self._failure() is None, f"a client failed: {self._failure()!r}"

    def _goes_on(self) -> bool:
        """Returns whether there is more to ask, once there is or the end has come."""
        with self._changed:
            self._changed.wait_for(lambda: self._over.is_set() or self._answers < self._wanted)
        return not self._over.is_set()

    def _failure(self) -> BaseException | None:
        return next((client.failure for client in self._clients if client.failure), None)


class _Client(threading.Thread):
    def __init__(self, load: Load, port: int, name: str, rows: int) -> None:
        super().__init__(name=f"client-{name}", daemon=True)
        self.answered: list[Answered] = []
        self.accepted: list[str] = []
        self.refusals: Counter[int] = Counter()
        self.failure: BaseException | None = None
        self._load = load
        self._port = port
        self._rows = rows
        self._chance = random.Random(name)
        self._number = 0
        self._labels: list[dict[str, Any]] = []
        self._connection: http.client.HTTPConnection | None = None
        self._connected_at = 0.0

    def run(self) -> None:
        try:
            while self._load._goes_on():
                self._ask()
                if self._number % _LABEL_EVERY == 0:
                    self._tell()
            deadline = time.monotonic() + PATIENCE_S
            while self._labels and time.monotonic() < deadline:
                self._tell()
        except BaseException as error:  # noqa: BLE001  # whoever waits for this thread is told
            self.failure = error
            with self._load._changed:
                self._load._changed.notify_all()
        finally:
            self._disconnect()

    def _ask(self) -> None:
        self._number += 1
        request = f"{self.name}-{self._number}"
        tensors = [
            _tensor("hour", [self._chance.uniform(0, 24) for _ in range(self._rows)]),
            _tensor("distance", [self._chance.gauss(1000, 200) for _ in range(self._rows)]),
        ]
        status = self._post(_INFER, {"id": request, "inputs": tensors})
        if status == 200:
            self.answered.append(Answered(request, time.monotonic(), self._connected_at))
            with self._load._changed:
                self._load._answers += 1
                self._load._changed.notify_all()

    def _tell(self) -> None:
        """Sends labels of some requests before and a few to come, and those that were not accepted so far."""
        if not self._load._over.is_set():
            for place in range(_LABEL_EVERY // 2):
                ahead = self._chance.randrange(1, _LABEL_EVERY) if place % _EARLY == 0 else 0
                about = self._number + ahead if ahead else self._chance.randint(1, self._number)
                name = f"{self.name}-{about}"
                event = f"label-{self.name}-{self._number}-{place}"
                self._labels.append({"id": name, "label": self._chance.randrange(2), "event_id": event})
        sent = self._labels[:]
        if sent and self._post(_FEEDBACK, {"feedback": sent}) == 202:
            self.accepted += (label["event_id"] for label in sent)
            del self._labels[: len(sent)]

    def _post(self, path: str, document: Any) -> int | None:
        """Returns the status of a response received to its end, None when the connection broke before."""
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
                self._connected_at = time.monotonic()
            self._connection.request("POST", path, json.dumps(document), {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            self._disconnect()
            self._load._serving.wait(PATIENCE_S)
            return None
        if response.status not in (200, 202):
            self.refusals[response.status] += 1
        return response.status

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _tensor(name: str, values: list[float]) -> dict[str, Any]:
    return {"name": name, "shape": [len(values), 1], "datatype": "FP32", "data": values}
