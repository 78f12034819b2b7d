"""A batch of the log's events into joins and panes. Pure: the log and the files are elsewhere.

    fold = Fold(profiles, FoldLimits(pane_us=60_000_000, ...))
    delta = fold.fold(read_events([(offset, line), ...]))

Event by event only what depends on order is done: duplicates, joins, the watermark. Rows are
collected as columns meanwhile, and binned and summed once per version and batch. What comes out is
a difference of panes, so any cut of the log into batches gives the same panes.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from monitor.comparison.paired import PairedCells, bounded_error_gain, bounded_gain
from monitor.label_join import LabelJoin, Match, Meeting, WaitingAnswer
from monitor.pane import Pane, PerformanceCells, is_blank
from monitor.performance.cells import ClassificationCells, RegressionCells, fixed_point_sum
from monitor.tensors import NO_PREDICTIONS, input_columns, predictions
from monitor.version_profile import VersionKey, VersionProfile
from server.contract.events import Answer, Event, Label, Labelled, LabelValue, Prediction, Shadow, decode_event
from server.contract.histogram import NumericBins, as_numbers
from server.contract.sampling import MOST_EVERY

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_OK: Final = range(200, 300)
_MOST_ROWS: Final = 2**31 - 1
_LARGEST_SCORE: Final = 1e100
_NOTHING: Final[frozenset[str]] = frozenset()

KINDS: Final = ("prediction", "shadow", "label", "audit")


class PaneKey(NamedTuple):
    """One version's pane; ``start_us`` is where it starts, in microseconds of event time since 1970."""

    model: str
    version: str
    start_us: int


class ComparisonKey(NamedTuple):
    """A pane of pairs: the served version, the shadow, and where the pane starts."""

    model: str
    champion: str
    challenger: str
    start_us: int


class DeadLetter(NamedTuple):
    """An entry of the log that was refused, kept aside with the reason's name and one sentence of detail."""

    offset: int
    reason: str
    detail: str
    payload: bytes


class LoggedEvent(NamedTuple):
    """A decoded event, where it stands in the log, and its line."""

    offset: int
    line: bytes
    event: Event


class FoldLimits(NamedTuple):
    """How event time is cut and how long things wait, all in microseconds of event time."""

    pane_us: int
    grace_us: int
    ttl_us: int
    max_open: int


class Delta(msgspec.Struct):
    """What a batch of events adds: to panes, to comparisons, to counters, and to what is kept aside."""

    panes: dict[PaneKey, Pane] = {}
    comparisons: dict[ComparisonKey, PairedCells] = {}
    counters: Counter[str] = msgspec.field(default_factory=Counter)
    dead_letters: list[DeadLetter] = []


def read_events(lines: Iterable[tuple[int, bytes]]) -> tuple[list[LoggedEvent], list[DeadLetter]]:
    """Returns the events of the log's lines, and the lines that hold none.

    Args:
        lines: offset and line.
    """
    events: list[LoggedEvent] = []
    refused: list[DeadLetter] = []
    for offset, line in lines:
        try:
            event = decode_event(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            refused.append(DeadLetter(offset, "malformed", str(error), line))
            continue
        if isinstance(event, Prediction | Shadow) and not 0 <= event.data.rows <= _MOST_ROWS:
            detail = f"Expected 0 to {_MOST_ROWS} rows, got {event.data.rows} - at `$.data.rows`"
            refused.append(DeadLetter(offset, "malformed", detail, line))
            continue
        if isinstance(event, Prediction | Shadow) and not 1 <= event.data.weight <= MOST_EVERY:
            detail = f"Expected a weight of 1 to {MOST_EVERY}, got {event.data.weight} - at `$.data.weight`"
            refused.append(DeadLetter(offset, "malformed", detail, line))
            continue
        events.append(LoggedEvent(offset, line, event))
    return events, refused


def versions_in(events: Iterable[LoggedEvent]) -> set[VersionKey]:
    """Returns the versions that answered in these events."""
    return {
        VersionKey(entry.event.data.model, entry.event.data.version)
        for entry in events
        if isinstance(entry.event, Prediction | Shadow)
    }


class Fold:
    """The fold and what it remembers between batches: the open requests and the watermark.

    ``watermark_us`` is the highest event time of a prediction, None before the first.

    Args:
        profiles: the known versions; may grow between batches.
        limits: lengths of event time.
        requests: open requests as saved, by id.
        watermark_us: as saved.
    """

    def __init__(
        self,
        profiles: Mapping[VersionKey, VersionProfile],
        limits: FoldLimits,
        requests: Iterable[tuple[str, bytes]] = (),
        watermark_us: int | None = None,
    ) -> None:
        self._profiles = profiles
        self._limits = limits
        self.join = LabelJoin(limits.ttl_us, limits.max_open, requests)
        self.watermark_us = watermark_us

    def fold_lines(self, lines: Iterable[tuple[int, bytes]]) -> Delta:
        """Returns what lines of the log add: ``read_events`` and ``fold`` in one."""
        events, refused = read_events(lines)
        return self.fold(events, refused)

    def fold(self, events: Sequence[LoggedEvent], refused: Sequence[DeadLetter] = ()) -> Delta:
        """Returns what the events add, in their order.

        Args:
            events: in the order of the log.
            refused: lines that held no event, to be counted and kept aside with the others.
        """
        delta = Delta(dead_letters=list(refused))
        delta.counters.update(letter.reason for letter in refused)
        sheets: dict[_SheetKey, _Sheet] = {}
        truths = _Truths(self._profiles, delta.counters)
        for entry in events:
            event = entry.event
            if isinstance(event, Prediction):
                delta.counters["prediction"] += 1
                self._answer(entry, event, sheets, truths, delta)
            elif isinstance(event, Shadow):
                delta.counters["shadow"] += 1
                self._answer(entry, event, sheets, truths, delta)
            elif isinstance(event, Labelled):
                delta.counters["label"] += 1
                self._label(event, truths, delta)
            else:
                delta.counters["audit"] += 1
            self.join.expire(self.watermark_us)
        delta.counters.update(self.join.counters)
        self.join.counters.clear()
        for key, sheet in sheets.items():
            sheet.count(key.version, delta.panes)
        truths.count(delta)
        delta.dead_letters.sort(key=attrgetter("offset"))
        return delta

    def _answer(
        self,
        entry: LoggedEvent,
        event: Prediction | Shadow,
        sheets: dict["_SheetKey", "_Sheet"],
        truths: "_Truths",
        delta: Delta,
    ) -> None:
        answer = event.data
        key = VersionKey(answer.model, answer.version)
        profile = self._profiles.get(key)
        if profile is None:
            detail = f"no bundle of {answer.model} version {answer.version}"
            delta.counters["unknown_version"] += 1
            delta.dead_letters.append(DeadLetter(entry.offset, "unknown_version", detail, entry.line))
            return
        time_us = (event.time - _EPOCH) // _MICROSECOND
        start_us = time_us - time_us % self._limits.pane_us
        served = isinstance(event, Prediction)
        ok = answer.status in _OK
        said = NO_PREDICTIONS
        if ok and isinstance(answer.outputs, msgspec.Raw):
            said = predictions(answer.outputs, profile, answer.rows)
        waiting = WaitingAnswer(
            answer.model,
            answer.version,
            served,
            start_us,
            said.rows,
            said.predicted,
            said.numbers,
            [event.id],
            answer.weight,
        )
        meetings = self.join.add_answer(event.subject, time_us, waiting)
        if meetings is None:
            delta.counters["duplicates"] += 1
            return
        truths.add(meetings)

        kind = _SheetKey(key, answer.weight, frozenset(answer.redacted) if answer.redacted else _NOTHING)
        sheet = sheets.get(kind)
        if sheet is None:
            sheet = sheets[kind] = _Sheet(profile, kind.weight, kind.hidden)
        sheet.add(start_us, answer, said.scores, said.predicted, ok)
        if (
            self.watermark_us is not None
            and self.watermark_us >= start_us + self._limits.pane_us + self._limits.grace_us
        ):
            delta.counters["late"] += 1
        if served and (self.watermark_us is None or time_us > self.watermark_us):
            self.watermark_us = time_us

    def _label(self, event: Labelled, truths: "_Truths", delta: Delta) -> None:
        # A label waits from the present on, whatever time its sender gave it.
        since_us = self.watermark_us if self.watermark_us is not None else (event.time - _EPOCH) // _MICROSECOND
        values = _rows_of(event.data)
        if not all(0 <= row <= _MOST_ROWS for row, _ in values):
            delta.counters["invalid_labels"] += 1
            return
        meetings = self.join.add_label(event.subject, since_us, event.id, values, event.data.model)
        if meetings is None:
            delta.counters["duplicates"] += 1
        else:
            truths.add(meetings)


def _rows_of(label: Label) -> list[tuple[int, LabelValue]]:
    if isinstance(label.label, list):
        return [(row, value) for row, value in enumerate(label.label, start=label.row or 0)]
    return [(label.row or 0, label.label)]


class _Tally:
    """The counts of one pane that need no histogram."""

    __slots__ = ("errors", "requests", "roles", "rows", "type_errors")

    def __init__(self) -> None:
        self.requests = self.rows = self.errors = self.type_errors = 0
        self.roles: Counter[str] = Counter()


class _SheetKey(NamedTuple):
    """What the answers on one sheet have in common: their version, their weight, and what they do not tell."""

    version: VersionKey
    weight: int
    hidden: frozenset[str]


class _Sheet:
    """The rows of answers of one kind in this batch, as columns, until they are counted.

    ``_seen`` are the places of the features whose columns are told.
    """

    def __init__(self, profile: VersionProfile, weight: int, hidden: frozenset[str]) -> None:
        self._profile = profile
        self._weight = weight
        self._hidden = hidden
        self._seen = [place for place, name in enumerate(profile.names) if name not in hidden]
        self._tallies: dict[int, _Tally] = {}
        self._columns: list[list[Any]] = [[] for _ in self._seen]
        self._input_starts: list[int] = []
        self._input_rows: list[int] = []
        self._scores: list[float] = []
        self._predicted: list[int] = []
        self._score_starts: list[int] = []
        self._score_rows: list[int] = []

    def add(self, start_us: int, answer: Answer, scores: list[float], predicted: list[int], ok: bool) -> None:
        """Takes in one answer of the pane that starts at ``start_us``."""
        tally = self._tallies.get(start_us)
        if tally is None:
            tally = self._tallies[start_us] = _Tally()
        tally.requests += 1
        tally.roles[answer.role] += 1
        if not ok:
            tally.errors += 1
            return
        tally.rows += answer.rows
        if scores:
            self._scores += scores
            self._predicted += predicted
            self._score_starts.append(start_us)
            self._score_rows.append(len(scores))
        if not isinstance(answer.inputs, msgspec.Raw) or (answer.inputs_omitted is not None and not self._hidden):
            return
        columns = input_columns(answer.inputs, self._profile, answer.rows, self._hidden)
        if columns is None:
            tally.type_errors += 1
            return
        for column, values in zip(self._columns, columns, strict=True):
            column += values
        self._input_starts.append(start_us)
        self._input_rows.append(answer.rows)

    def count(self, key: VersionKey, panes: dict[PaneKey, Pane]) -> None:
        """Bins what was collected and adds one pane per start to ``panes``."""
        profile, weight = self._profile, self._weight
        starts = {start: place for place, start in enumerate(self._tallies)}
        counts = np.zeros((len(starts), profile.width), dtype=np.int64)
        self._count_inputs(starts, counts)

        scores = np.array(self._scores, dtype=np.float64)
        score_places = np.repeat([starts[start] for start in self._score_starts], self._score_rows).astype(np.intp)
        score_cells = profile.score_bins.locate(_as_score(scores, profile)) + profile.slices[-1].start
        np.add.at(counts, (score_places, score_cells), 1)
        classes = np.zeros((len(starts), profile.classes), dtype=np.int64)
        if profile.classes:
            predicted = np.array(self._predicted, dtype=np.intp)
            named = predicted >= 0
            np.add.at(classes, (score_places[named], predicted[named]), 1)
        known = np.abs(scores) <= _LARGEST_SCORE
        for start, place in starts.items():
            of_pane = scores[known & (score_places == place)]
            tally = self._tallies[start]
            rows = weight * tally.rows
            pane = Pane(
                requests=weight * tally.requests,
                rows=rows,
                errors=weight * tally.errors,
                type_errors=weight * tally.type_errors,
                roles={role: weight * answers for role, answers in tally.roles.items()},
                counts=weight * counts[place],
                classes=weight * classes[place],
                scored=weight * len(of_pane),
                score_sum=weight * fixed_point_sum(of_pane),
                weight_excess=self._excess(counts[place]),
                heaviest=weight,
                hidden={name: rows for name in profile.names if name in self._hidden} if rows else {},
            )
            there = panes.get(PaneKey(*key, start))
            panes[PaneKey(*key, start)] = pane if there is None else there.merge(pane)

    def _excess(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns Σ(w² - w) of every histogram in unweighted counts; nothing where every row counts once."""
        if self._weight == 1:
            return np.zeros(0, dtype=np.int64)
        rows = np.array([counts[part].sum() for part in self._profile.slices], dtype=np.int64)
        return self._weight * (self._weight - 1) * rows

    def _count_inputs(self, starts: dict[int, int], counts: NDArray[np.int64]) -> None:
        located: list[NDArray[np.int64]] = []
        for place, column in enumerate(self._columns):
            cells = self._locate(place, column)
            if cells is None:
                self._drop_misfits()
                self._count_inputs(starts, counts)
                return
            located.append(cells)
        if not self._input_starts or not located:
            return
        panes = np.repeat([starts[start] for start in self._input_starts], self._input_rows).astype(np.int64)
        flat = (np.stack(located) + panes * counts.shape[1]).ravel()
        counts += np.bincount(flat, minlength=counts.size).reshape(counts.shape)

    def _locate(self, column: int, values: list[Any]) -> NDArray[np.int64] | None:
        """Returns the cell, within all of a pane's counts, of every value; None where one is of another type."""
        place = self._seen[column]
        feature, index = self._profile.features[place], self._profile.category_cells[place]
        kinds = set(map(type, values))
        cells: NDArray[np.int64]
        if index is not None:
            if not kinds <= {str, type(None)}:
                return None
            new = index[None] - 1  # the cell before that of missing values
            cells = np.array([index.get(value, new) for value in values], dtype=np.int64)
        elif not kinds <= {int, float, bool, type(None)} or not isinstance(feature.bins, NumericBins):
            return None
        else:
            try:
                cells = feature.bins.locate(as_numbers(values, feature.datatype))
            except OverflowError:  # an integer beyond every float
                return None
        cells += self._profile.slices[place].start
        return cells

    def _drop_misfits(self) -> None:
        """Takes the answers out whose values are of another type than the signature's, and counts them."""
        kept: list[list[Any]] = [[] for _ in self._columns]
        kept_starts, kept_rows, begin = [], [], 0
        for start, rows in zip(self._input_starts, self._input_rows, strict=True):
            block = [column[begin : begin + rows] for column in self._columns]
            begin += rows
            if any(self._locate(place, values) is None for place, values in enumerate(block)):
                self._tallies[start].type_errors += 1
                continue
            for column, values in zip(kept, block, strict=True):
                column += values
            kept_starts.append(start)
            kept_rows.append(rows)
        self._columns, self._input_starts, self._input_rows = kept, kept_starts, kept_rows


def _as_score(scores: NDArray[np.float64], profile: VersionProfile) -> NDArray[np.float64]:
    """Returns scores as the model's output type holds them: JSON has more digits than a float32."""
    name = profile.probabilities_output if profile.classes else profile.value_output
    datatype = next((tensor.datatype for tensor in profile.manifest.signature.outputs if tensor.name == name), "FP64")
    return as_numbers(scores, datatype)


class _Truths:
    """Answers that met their truth in this batch, until they are counted."""

    def __init__(self, profiles: Mapping[VersionKey, VersionProfile], counters: Counter[str]) -> None:
        self._profiles = profiles
        self._counters = counters
        # By how often each row counts: the answer's weight, below 0 for what is taken back.
        self._matches: dict[tuple[PaneKey, int], list[tuple[float, int, list[float]]]] = {}
        self._pairings: dict[tuple[ComparisonKey, int], list[tuple[float, int, list[float], int, list[float]]]] = {}

    def add(self, meetings: Iterable[Meeting]) -> None:
        """Takes in what the join said, and passes over what says nothing of performance."""
        for meeting in meetings:
            if isinstance(meeting, Match):
                sign, answer, row, value = meeting
                profile = self._profiles.get(VersionKey(answer.model, answer.version))
                if profile is None:
                    continue
                truth = _truth(profile, value)
                if truth is None or row >= answer.rows > 0:
                    if sign == 1 and answer.served:
                        self._counters["invalid_labels"] += 1
                    continue
                said = _said(profile, answer, row)
                if said is not None:
                    key = PaneKey(answer.model, answer.version, answer.start_us)
                    self._matches.setdefault((key, sign * answer.weight), []).append((truth, *said))
            else:
                sign, champion, challenger, row, value = meeting
                profile = self._profiles.get(VersionKey(champion.model, champion.version))
                other = self._profiles.get(VersionKey(challenger.model, challenger.version))
                if profile is None or other is None or profile.manifest.task != other.manifest.task:
                    continue
                truth, agreed = _truth(profile, value), profile.manifest.classes == other.manifest.classes
                one, two = _said(profile, champion, row), _said(other, challenger, row)
                # A pair counts once whatever its answers weigh: whether it is logged was decided by a hash of the
                # request id, which knows nothing of who is right, so those logged are a fair sample of all.
                if truth is not None and agreed and one is not None and two is not None:
                    pair = ComparisonKey(champion.model, champion.version, challenger.version, champion.start_us)
                    self._pairings.setdefault((pair, sign), []).append((truth, *one, *two))

    def count(self, delta: Delta) -> None:
        """Adds the cells of what was taken in to the delta's panes and comparisons."""
        performance: dict[PaneKey, PerformanceCells] = {}
        for (key, times), matches in self._matches.items():
            profile = self._profiles[VersionKey(key.model, key.version)]
            truths, predicted, numbers = zip(*matches, strict=True)
            cells = performance.get(key)
            if profile.classes:
                cells = cells or ClassificationCells.empty(profile.classes)
                cells.add(_places(truths), _places(predicted), np.array(numbers), times)  # type: ignore[arg-type, call-arg]
            else:
                cells = cells or RegressionCells.empty()
                cells.add(np.array(truths), np.array(numbers)[:, 0], times)  # type: ignore[arg-type]
            performance[key] = cells
        for key, cells in performance.items():
            if not is_blank(cells):
                found = delta.panes.get(key, Pane.empty())
                delta.panes[key] = msgspec.structs.replace(found, performance=cells)
        for (pair, sign), rows in self._pairings.items():
            profile = self._profiles[VersionKey(pair.model, pair.champion)]
            paired = delta.comparisons.setdefault(pair, PairedCells.empty())
            _count_pairs(paired, rows, profile, sign)


def _count_pairs(
    cells: PairedCells,
    rows: Sequence[tuple[float, int, list[float], int, list[float]]],
    profile: VersionProfile,
    sign: int,
) -> None:
    truths, predicted, numbers, other_predicted, other_numbers = zip(*rows, strict=True)
    one, two = np.array(numbers), np.array(other_numbers)
    if profile.classes:
        truth, champion, challenger = _places(truths), _places(predicted), _places(other_predicted)
        gain = bounded_gain(_log_loss(one, truth), _log_loss(two, truth))
        cells.add(champion == truth, challenger == truth, champion == challenger, gain, sign)
        return
    errors, other_errors = one[:, 0] - np.array(truths), two[:, 0] - np.array(truths)
    closer, other_closer = np.abs(errors) < np.abs(other_errors), np.abs(other_errors) < np.abs(errors)
    gain = bounded_error_gain(errors, other_errors, profile.variance)
    cells.add(closer, other_closer, errors == other_errors, gain, sign)


def _truth(profile: VersionProfile, value: LabelValue) -> float | None:
    """Returns a label as the place of its class or as a regression's value; None where it is neither."""
    if profile.classes:
        place = profile.class_place(value)
        return None if place < 0 else place
    if type(value) not in (int, float):
        return None
    number = float(value)  # type: ignore[arg-type]  # just seen to be a number
    return number if np.isfinite(number) else None


def _said(profile: VersionProfile, answer: WaitingAnswer, row: int) -> tuple[int, list[float]] | None:
    """Returns what an answer predicted for a row: the class's place, or 0, and its numbers."""
    if row >= answer.rows:
        return None
    if not profile.classes:
        return 0, answer.numbers[row : row + 1]
    predicted = answer.predicted[row]
    return None if predicted < 0 else (predicted, answer.numbers[row * profile.classes : (row + 1) * profile.classes])


def _log_loss(chances: NDArray[np.float64], truth: NDArray[np.int64]) -> NDArray[np.float64]:
    of_truth = np.clip(np.nan_to_num(chances[np.arange(len(truth)), truth], nan=0.0), 0.0, 1.0)
    with np.errstate(divide="ignore"):
        return -np.log(of_truth)


def _places(values: Sequence[float]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)
