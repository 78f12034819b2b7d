"""Requests waiting for their truth, and the truth waiting for its request.

A request's performance is a function of what waits under its id: the latest answer of the version
that was served, the latest of each shadow, and the latest label of each row. Whenever one of those
changes, the join takes back exactly what it said before and says the new, so the order in which
answers and labels come does not matter.
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from server.contract.events import LabelValue
from server.contract.sampling import in_sample

# A resend of an event that has since been corrected must not undo the correction.
_REMEMBERED_IDS = 16
_INT64 = range(-(2**63), 2**63)


class WaitingAnswer(msgspec.Struct, array_like=True):
    """One version's answer: ``start_us`` is its pane, ``predicted`` and ``numbers`` are as in ``Predictions``.

    ``event_ids`` are those of the answers it replaced, then its own. ``weight`` is how many requests it stands for.
    """

    model: str
    version: str
    served: bool
    start_us: int
    rows: int
    predicted: list[int]
    numbers: list[float]
    event_ids: list[str]
    weight: int = 1


class WaitingLabel(msgspec.Struct, array_like=True):
    """The truth about one row, and the ids of the events that told it, the newest last."""

    value: LabelValue
    event_ids: list[str]


class OpenRequest(msgspec.Struct, array_like=True):
    """All that waits under one request id since ``since_us``.

    ``labels`` are by model and row; "" holds those that name no model. ``sample_every`` is the largest weight of
    its answers or, without one, of the answers that waited elsewhere when its first label came.
    """

    since_us: int
    answers: list[WaitingAnswer]
    labels: dict[str, dict[int, WaitingLabel]]
    sample_every: int = 1


class Match(NamedTuple):
    """A row of an answer met its truth (sign 1), or the meeting is taken back (sign -1)."""

    sign: int
    answer: WaitingAnswer
    row: int
    value: LabelValue


class Pairing(NamedTuple):
    """Champion's and challenger's answers to one row met its truth, or the meeting is taken back."""

    sign: int
    champion: WaitingAnswer
    challenger: WaitingAnswer
    row: int
    value: LabelValue


Meeting = Match | Pairing

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(OpenRequest).decode


class LabelJoin:
    """The open requests, oldest given up first.

    They are kept encoded: that is a third of the memory and what the state file holds anyway.
    ``changed`` are the ids whose record differs from what was last saved; ``counters`` what was dropped.

    Args:
        ttl_us: how far behind the watermark a request is given up, in microseconds of event time.
        max_open: requests kept at most.
        requests: what was saved, by request id.
    """

    def __init__(self, ttl_us: int, max_open: int, requests: Iterable[tuple[str, bytes]] = ()) -> None:
        self._ttl_us = ttl_us
        self._max_open = max_open
        self._requests = dict(requests)
        self._by_age: list[tuple[int, str]] = []
        # How many of the requests with an answer are of each sample; a function of what is open, as all here is.
        self._samples: Counter[int] = Counter()
        for name, record in self._requests.items():
            request = _decode(record)
            self._by_age.append((request.since_us, name))
            self._samples.update([request.sample_every] if request.answers else [])
        heapq.heapify(self._by_age)
        self.changed: set[str] = set()
        self.counters: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._requests)

    def records(self) -> list[tuple[str, bytes]]:
        """Returns every open request as it is to be saved, by id."""
        return list(self._requests.items())

    def record(self, request_id: str) -> bytes | None:
        """Returns an open request as it is to be saved, None when it is not open."""
        return self._requests.get(request_id)

    def add_answer(self, request_id: str, time_us: int, answer: WaitingAnswer) -> list[Meeting] | None:
        """Takes in an answer and returns what it met; None when it had been taken in before.

        Another answer under the same id, of the served version or of the same shadow, replaces the one before.

        Args:
            request_id: the request it answers.
            time_us: its event time.
            answer: with its own id alone in ``event_ids``.
        """
        request = self._open(request_id)
        if request is None:
            request = OpenRequest(since_us=time_us, answers=[answer], labels={}, sample_every=answer.weight)
            self._samples[answer.weight] += 1
            self._begin(request_id, request)
            return []
        place = _place_of(request, answer)
        meetings: list[Meeting] = []
        if not request.answers:
            request.sample_every = answer.weight
            self._samples[answer.weight] += 1
        elif answer.weight > request.sample_every:
            self._leave_sample(request.sample_every)
            request.sample_every = answer.weight
            self._samples[answer.weight] += 1
        if place is None:
            request.answers.append(answer)
        else:
            old = request.answers[place]
            if answer.event_ids[0] in old.event_ids:
                return None
            answer.event_ids = [*old.event_ids, *answer.event_ids][-_REMEMBERED_IDS:]
            meetings.extend(_meetings_of(-1, request, old))
            request.answers[place] = answer
        meetings.extend(_meetings_of(1, request, answer))
        self._save(request_id, request)
        return meetings

    def add_label(
        self,
        request_id: str,
        time_us: int,
        event_id: str,
        values: Iterable[tuple[int, LabelValue]],
        model: str | None = None,
    ) -> list[Meeting] | None:
        """Takes in the truth about rows and returns what it met; None when nothing in it was new.

        Args:
            request_id: the request it is about.
            time_us: when the label starts to wait, if no answer is there yet.
            event_id: the label's event; the same one about the same row changes nothing.
            values: row and value. A value of None is no truth: it changes nothing.
            model: the model it is about; None means every answer of the request.
        """
        known = [(row, _storable(value)) for row, value in values if value is not None]
        if not known:
            return []
        request = self._open(request_id)
        if request is None:
            labels = {model or "": {row: WaitingLabel(value, [event_id]) for row, value in known}}
            every = max(self._samples, default=1)
            self._begin(request_id, OpenRequest(since_us=time_us, answers=[], labels=labels, sample_every=every))
            return []
        of_model = request.labels.setdefault(model or "", {})
        meetings: list[Meeting] = []
        fresh = False
        for row, value in known:
            old = of_model.get(row)
            if old is not None and event_id in old.event_ids:
                continue
            fresh = True
            for name in {answer.model for answer in request.answers if model in (None, answer.model)}:
                if model is None and row in request.labels.get(name, ()):
                    continue  # a label for this model by name outweighs one for any
                before = old or request.labels.get("", {}).get(row)
                if before is not None:
                    meetings.extend(_meetings_at(-1, request, name, row, before.value))
                meetings.extend(_meetings_at(1, request, name, row, value))
            ids = [*old.event_ids, event_id][-_REMEMBERED_IDS:] if old else [event_id]
            of_model[row] = WaitingLabel(value, ids)
        if not fresh:
            return None
        self._save(request_id, request)
        return meetings

    def expire(self, watermark_us: int | None) -> None:
        """Gives up the requests that have waited too long, and the oldest when there are too many."""
        limit = -math.inf if watermark_us is None else watermark_us - self._ttl_us
        while self._by_age and (self._by_age[0][0] < limit or len(self._requests) > self._max_open):
            _, request_id = heapq.heappop(self._by_age)
            request = _decode(self._requests.pop(request_id))
            self.changed.add(request_id)
            if not request.answers:
                # One whose request the log's sample leaves out has met nothing because nothing was to be met.
                name = "orphan_labels" if in_sample(request_id, request.sample_every) else "sampled_out_labels"
                self.counters[name] += sum(map(len, request.labels.values()))
                continue
            self._leave_sample(request.sample_every)
            if not request.labels:
                self.counters["expired"] += 1

    def _leave_sample(self, every: int) -> None:
        self._samples[every] -= 1
        if not self._samples[every]:
            del self._samples[every]

    def _open(self, request_id: str) -> OpenRequest | None:
        record = self._requests.get(request_id)
        return None if record is None else _decode(record)

    def _begin(self, request_id: str, request: OpenRequest) -> None:
        heapq.heappush(self._by_age, (request.since_us, request_id))
        self._save(request_id, request)

    def _save(self, request_id: str, request: OpenRequest) -> None:
        self._requests[request_id] = _encode(request)
        self.changed.add(request_id)


def _place_of(request: OpenRequest, answer: WaitingAnswer) -> int | None:
    """Returns which waiting answer this one would replace."""
    for place, other in enumerate(request.answers):
        if (
            other.model == answer.model
            and other.served == answer.served
            and (answer.served or other.version == answer.version)
        ):
            return place
    return None


def _meetings_of(sign: int, request: OpenRequest, answer: WaitingAnswer) -> Iterator[Meeting]:
    """Yields what one of the request's answers meets."""
    labels = {**request.labels.get("", {}), **request.labels.get(answer.model, {})}
    if not labels:
        return
    others = [other for other in request.answers if _compare(other, answer)]
    for row, label in labels.items():
        yield Match(sign, answer, row, label.value)
        for other in others:
            champion, challenger = (answer, other) if answer.served else (other, answer)
            yield Pairing(sign, champion, challenger, row, label.value)


def _meetings_at(sign: int, request: OpenRequest, model: str, row: int, value: LabelValue) -> Iterator[Meeting]:
    """Yields what a label at one row meets among a model's answers."""
    answers = [answer for answer in request.answers if answer.model == model]
    for answer in answers:
        yield Match(sign, answer, row, value)
    for champion in answers:
        for challenger in answers:
            if champion.served and _compare(champion, challenger):
                yield Pairing(sign, champion, challenger, row, value)


def _compare(one: WaitingAnswer, other: WaitingAnswer) -> bool:
    """Returns whether one of both was served and the other is a shadow of another version."""
    return one.model == other.model and one.served != other.served and one.version != other.version


def _storable(value: LabelValue) -> LabelValue:
    # No class and no sensible target is as large, and msgpack's integers end at 64 bits.
    return math.inf if type(value) is int and value not in _INT64 else value
