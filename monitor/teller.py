"""What the other monitors have not been told of a partition yet, and when they are told."""

from collections.abc import Iterable
from typing import NamedTuple

from monitor.partition import Partition
from monitor.publication import (
    Publication,
    Snapshot,
    encode_chunks,
    letter_key,
    pairs_key,
    pane_key,
    parse_key,
    version_key,
)
from monitor.sources.source import Letter
from monitor.state_store import Changes, StateStore

# A checkpoint waits for so many times as many events as it has requests, so that it costs little of the folding.
_TIMES_OPEN = 4
# However few the events: the log keeps them for some time only.
_LONGEST_S = 3600.0


class Sender(NamedTuple):
    """Who tells: the group, the log and its number of partitions, the panes' length, where the monitor answers."""

    group: str
    log_id: str
    of: int
    pane_us: int
    url: str | None


class Teller:
    """What is to be told of one partition while this monitor folds it.

    ``unpublished`` are keys of records; ``acknowledged`` those that the state file may forget.

    Args:
        unpublished: as saved.
        snapshot: the newest that was published, by whomever.
        checkpoint_events: how many events at least are between two checkpoints.
        now_s: from a monotonic clock.
    """

    def __init__(
        self, unpublished: Iterable[str], snapshot: Snapshot | None, checkpoint_events: int, now_s: float
    ) -> None:
        self._checkpoint_events = checkpoint_events
        self._unpublished = set(unpublished)
        self._acknowledged: set[str] = set()
        self._under_way: set[str] | None = None
        self._told: tuple[int, bool] | None = None
        self._told_at_s = float("-inf")
        self._checkpoint = (0, None, 0) if snapshot is None else _checkpoint_of(snapshot)
        self._checkpoint_at_s = now_s

    @property
    def has_news(self) -> bool:
        """Whether the state file is to be told that something was published."""
        return bool(self._acknowledged)

    def add(self, changes: Changes) -> Changes:
        """Returns a commit's changes with what is to be told because of them, which is noted."""
        fresh = {
            *map(pane_key, changes.panes),
            *map(version_key, changes.totals),
            *map(pairs_key, changes.comparisons),
            *(letter_key(letter.offset) for letter in changes.dead_letters),
        }
        self._unpublished |= fresh
        done = self._acknowledged - self._unpublished
        self._acknowledged = set()
        return changes._replace(unpublished=fresh, published=done)

    def is_due(self, partition: Partition, now_s: float, every_s: float) -> bool:
        """Says whether the others are to be told now of a partition whose state is committed."""
        if self._under_way is not None or now_s - self._told_at_s < every_s:
            return False
        return bool(self._unpublished) or self._told != (partition.position.offset, partition.position.at_end)

    def tell(
        self, partition: Partition, store: StateStore, sender: Sender, now_s: float
    ) -> tuple[Publication, list[Letter]]:
        """Returns what to publish, of a partition whose state is committed.

        Args:
            partition: the partition.
            store: has the records.
            sender: who tells.
            now_s: from the clock of the constructor.
        """
        position = partition.position
        keys = self._unpublished
        letters = [members[0] for kind, members in map(parse_key, keys) if kind == "letter"]
        records = store.records(partition.number, (key for key in keys if parse_key(key)[0] != "letter"))
        joined, _, chunks = self._checkpoint
        since = position.offset - joined
        if since >= max(self._checkpoint_events, _TIMES_OPEN * partition.open_requests) or (
            since and now_s - self._checkpoint_at_s > _LONGEST_S
        ):
            checkpoint = encode_chunks(partition.requests(), chunks)
            records |= checkpoint
            present = sum(value is not None for value in checkpoint.values())
            self._checkpoint = (position.offset, position.watermark_us, present)
            self._checkpoint_at_s = now_s
        joined, joined_watermark_us, chunks = self._checkpoint
        snapshot = Snapshot(
            group=sender.group,
            log_id=sender.log_id,
            of=sender.of,
            pane_us=sender.pane_us,
            url=sender.url,
            offset=position.offset,
            watermark_us=position.watermark_us,
            at_end=position.at_end,
            mark=position.mark,
            counters=dict(partition.counters),
            joined=joined,
            joined_watermark_us=joined_watermark_us,
            chunks=chunks,
        )
        self._under_way, self._unpublished = self._unpublished, set()
        self._told, self._told_at_s = (position.offset, position.at_end), now_s
        found = [Letter(*letter) for letter in store.letters(partition.number, letters)]
        return Publication(partition.number, records, snapshot), found

    def acknowledge(self) -> None:
        """Notes that what was told last is there."""
        self._acknowledged |= self._under_way or set()
        self._under_way = None


def _checkpoint_of(snapshot: Snapshot) -> tuple[int, int | None, int]:
    return snapshot.joined, snapshot.joined_watermark_us, snapshot.chunks
