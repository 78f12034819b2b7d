"""One partition of the log as it is folded: a function of the partition's events alone, whoever folds them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from monitor.errors import SourceError
from monitor.fold import DeadLetter, Delta, Fold, FoldLimits, LoggedEvent
from monitor.history import Unsaved
from monitor.sources.source import Delivery
from monitor.state_store import Changes, Joined, Position
from monitor.version_profile import VersionKey, VersionProfile

_KEPT_BYTES = 256 * 1024


class Partition:
    """A partition's fold, its position, and what differs from the state file. One thread uses it.

    Where the open requests of its position are not known, the events since they were known are folded once more,
    without being counted: what waits then is a function of the events as well.

    Args:
        number: which partition.
        profiles: the known versions; may grow.
        limits: the fold's, of this partition.
        position: up to where events are counted.
        joined: where the open requests are of, not beyond the position.
        requests: the open requests there, by id.
        saved: whether the state file has them.
        counters: as saved.
    """

    def __init__(
        self,
        number: int,
        profiles: Mapping[VersionKey, VersionProfile],
        limits: FoldLimits,
        position: Position,
        joined: Joined,
        requests: Iterable[tuple[str, bytes]],
        saved: bool,
        counters: Mapping[str, int],
    ) -> None:
        self.number = number
        self.position = position
        self.next_offset = joined.offset
        self.counters: Counter[str] = Counter(counters)
        self.uncommitted_events = 0
        self._fold = Fold(profiles, limits, requests, joined.watermark_us)
        self._saved = saved
        self._dead_letters: list[DeadLetter] = []

    @property
    def open_requests(self) -> int:
        """Requests that wait."""
        return len(self._fold.join)

    @property
    def warming(self) -> bool:
        """Whether it reads what was counted before."""
        return self.next_offset < self.position.offset

    def requests(self) -> list[tuple[str, bytes]]:
        """Returns the open requests at the position, by id."""
        return self._fold.join.records()

    def take_in(self, delivery: Delivery, events: Sequence[LoggedEvent], refused: list[DeadLetter]) -> Delta | None:
        """Returns what a delivery adds; None when all of it was counted before.

        Args:
            delivery: of this partition, from where it is read on.
            events: its lines, decoded.
            refused: its lines that hold none.

        Raises:
            SourceError: the delivery is of another place: to fold it would count events twice or not at all.
        """
        if delivery.offset != self.next_offset:
            raise SourceError(
                f"partition {self.number} of the log: expected events from offset {self.next_offset}, "
                f"got some from {delivery.offset}"
            )
        batch, begin = delivery.batch, self.position.offset
        self.next_offset = batch.next_offset
        if delivery.offset < begin:
            self._fold.fold([event for event in events if event.offset < begin])
            if self.next_offset <= begin:
                return None
            events = [event for event in events if event.offset >= begin]
            refused = [letter for letter in refused if letter.offset >= begin]
        refused += [DeadLetter(part.offset, part.reason, part.detail, part.payload) for part in batch.refused]
        delta = self._fold.fold(events, refused)
        self.counters.update(delta.counters)
        self.counters["gap_events"] += min(batch.gap_events, batch.next_offset - begin)
        self._dead_letters += (_cut(letter) for letter in delta.dead_letters)
        self.uncommitted_events += batch.next_offset - begin
        self.position = self.position._replace(
            offset=batch.next_offset,
            watermark_us=self._fold.watermark_us,
            mark=delivery.mark or self.position.mark,
        )
        return delta

    def changes(self, unsaved: Unsaved, digests: Mapping[VersionKey, str]) -> Changes:
        """Returns what is to be committed.

        Args:
            unsaved: the panes that differ from the state file.
            digests: of every version's baseline.
        """
        join = self._fold.join
        return Changes(
            partition=self.number,
            position=self.position,
            panes=unsaved.panes,
            totals={key: (digests[key], pane) for key, pane in unsaved.totals.items()},
            comparisons=unsaved.comparisons,
            requests=[(name, join.record(name)) for name in join.changed] if self._saved else join.records(),
            counters=self.counters,
            dead_letters=self._dead_letters,
            anew=not self._saved,
        )

    def committed(self) -> None:
        """Notes that everything was saved."""
        self._fold.join.changed.clear()
        self._dead_letters.clear()
        self._saved = True
        self.uncommitted_events = 0


def _cut(letter: DeadLetter) -> DeadLetter:
    if len(letter.payload) <= _KEPT_BYTES:
        return letter
    detail = f"{letter.detail} (the first {_KEPT_BYTES} of {len(letter.payload)} bytes are kept)"
    return letter._replace(detail=detail, payload=letter.payload[:_KEPT_BYTES])
