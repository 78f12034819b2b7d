"""One partition of the log as it is folded: a function of the partition's events alone, whoever folds them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from monitor.errors import SourceError
from monitor.fold import DeadLetter, Delta, Fold, FoldLimits, LoggedEvent
from monitor.history import Unsaved
from monitor.sources.source import Delivery
from monitor.state_store import Changes, Position
from monitor.version_profile import VersionKey, VersionProfile

_KEPT_BYTES = 256 * 1024


class Partition:
    """A partition's fold, its position, and what differs from the state file. One thread uses it.

    Args:
        number: which partition.
        profiles: the known versions; may grow.
        limits: the fold's, of this partition.
        position: as saved.
        requests: open requests as saved, by id.
        counters: as saved.
    """

    def __init__(
        self,
        number: int,
        profiles: Mapping[VersionKey, VersionProfile],
        limits: FoldLimits,
        position: Position,
        requests: Iterable[tuple[str, bytes]],
        counters: Mapping[str, int],
    ) -> None:
        self.number = number
        self.position = position
        self.counters: Counter[str] = Counter(counters)
        self.uncommitted_events = 0
        self._fold = Fold(profiles, limits, requests, position.watermark_us)
        self._dead_letters: list[DeadLetter] = []

    @property
    def open_requests(self) -> int:
        """Requests that wait."""
        return len(self._fold.join)

    def take_in(self, delivery: Delivery, events: Sequence[LoggedEvent], refused: list[DeadLetter]) -> Delta:
        """Returns what a delivery adds.

        Args:
            delivery: of this partition, from its position on.
            events: its lines, decoded.
            refused: its lines that hold none.

        Raises:
            SourceError: the delivery is of another place: to fold it would count events twice or not at all.
        """
        if delivery.offset != self.position.offset:
            raise SourceError(
                f"partition {self.number} of the log: expected events from offset {self.position.offset}, "
                f"got some from {delivery.offset}"
            )
        batch = delivery.batch
        refused += [DeadLetter(part.offset, part.reason, part.detail, part.payload) for part in batch.refused]
        delta = self._fold.fold(events, refused)
        self.counters.update(delta.counters)
        self.counters["gap_events"] += batch.gap_events
        self._dead_letters += (_cut(letter) for letter in delta.dead_letters)
        self.uncommitted_events += batch.next_offset - self.position.offset
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
            requests=[(name, join.record(name)) for name in join.changed],
            counters=self.counters,
            dead_letters=self._dead_letters,
        )

    def committed(self) -> None:
        """Notes that everything was saved."""
        self._fold.join.changed.clear()
        self._dead_letters.clear()
        self.uncommitted_events = 0


def _cut(letter: DeadLetter) -> DeadLetter:
    if len(letter.payload) <= _KEPT_BYTES:
        return letter
    detail = f"{letter.detail} (the first {_KEPT_BYTES} of {len(letter.payload)} bytes are kept)"
    return letter._replace(detail=detail, payload=letter.payload[:_KEPT_BYTES])
