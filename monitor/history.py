"""Every pane there has been: the recent ones in memory, the others in the state file.

A pane is kept by partition of the log, as it is folded, and is the sum over the partitions for whoever reads it.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import itemgetter
from typing import NamedTuple

from monitor.comparison.paired import PairedCells
from monitor.fold import ComparisonKey, Delta, PaneKey
from monitor.pane import Pane
from monitor.publication import Parts
from monitor.state_store import StateStore
from monitor.version_profile import VersionKey
from monitor.watermark import Clock, watermark


class PairsKey(NamedTuple):
    """A comparison: the served version and the shadow."""

    model: str
    champion: str
    challenger: str


class Unsaved(NamedTuple):
    """What of one partition differs from the state file."""

    panes: dict[PaneKey, Pane]
    totals: dict[VersionKey, Pane]
    comparisons: dict[ComparisonKey, PairedCells]


class History:
    """Panes, totals and comparisons. One thread adds; any thread reads a consistent view.

    A pane is never changed in place: adding puts a new one in its stead, and readers keep theirs.

    Args:
        store: where panes are that are not in memory.
        in_memory: panes kept in memory, beside those not yet saved.
    """

    def __init__(self, store: StateStore, in_memory: int) -> None:
        self._store = store
        self._in_memory = in_memory
        self._mutex = threading.Lock()
        self._panes: OrderedDict[tuple[int, PaneKey], Pane] = OrderedDict()
        self._unsaved: dict[int, set[PaneKey]] = {}
        self._unsaved_totals: dict[int, set[VersionKey]] = {}
        self._unsaved_pairs: dict[int, set[ComparisonKey]] = {}
        # How often each pane was added to since the start of this process.
        self._revisions: dict[VersionKey, dict[int, int]] = {}
        # Which partitions have a pane, a bit for each: there may be a pane for every minute of a year.
        self._holders: dict[VersionKey, dict[int, int]] = {}
        for partition, key in store.pane_keys():
            version = VersionKey(key.model, key.version)
            self._revisions.setdefault(version, {})[key.start_us] = 0
            self._hold(partition, version, key.start_us)
        self._totals: dict[VersionKey, dict[int, Pane]] = {}
        for (partition, version), (_, pane) in store.totals().items():
            self._totals.setdefault(version, {})[partition] = pane
        self._pairs: dict[PairsKey, dict[int, dict[int, PairedCells]]] = {}
        for (partition, pair), cells in store.comparisons().items():
            self._cells_of(pair)[partition] = cells
        self._clocks = {
            partition: Clock(position.watermark_us, position.at_end)
            for partition, position in store.positions().items()
        }
        self._watermark_us = watermark(self._clocks.values())

    def add(self, partition: int, delta: Delta) -> None:
        """Merges what a batch of events of a partition adds."""
        # Old panes are fetched before the readers are shut out.
        old = {key: self._part(partition, key) for key in delta.panes}
        with self._mutex:
            unsaved = self._unsaved.setdefault(partition, set())
            unsaved_totals = self._unsaved_totals.setdefault(partition, set())
            unsaved_pairs = self._unsaved_pairs.setdefault(partition, set())
            for key, pane in delta.panes.items():
                version = VersionKey(key.model, key.version)
                self._panes[partition, key] = old[key].merge(pane)
                self._panes.move_to_end((partition, key))
                unsaved.add(key)
                revisions = self._revisions.setdefault(version, {})
                revisions[key.start_us] = revisions.get(key.start_us, 0) + 1
                self._hold(partition, version, key.start_us)
                totals = self._totals.setdefault(version, {})
                totals[partition] = totals.get(partition, Pane.empty()).merge(pane)
                unsaved_totals.add(version)
            for pair, cells in delta.comparisons.items():
                parts = self._cells_of(pair)
                merged = cells.copy()
                if partition in parts:
                    merged.merge(parts[partition])
                parts[partition] = merged
                unsaved_pairs.add(pair)

    def replace(self, partition: int, parts: Parts) -> None:
        """Puts panes, totals and pairs of a partition in the place of what was known of them; the file has them."""
        with self._mutex:
            for key in parts.panes:
                self._panes.pop((partition, key), None)
                version = VersionKey(key.model, key.version)
                revisions = self._revisions.setdefault(version, {})
                revisions[key.start_us] = revisions.get(key.start_us, 0) + 1
                self._hold(partition, version, key.start_us)
            for version, (_, total) in parts.versions.items():
                self._totals.setdefault(version, {})[partition] = total
            for pair, cells in parts.pairs.items():
                self._cells_of(pair)[partition] = cells

    def expect(self, partitions: int) -> None:
        """Takes note of how many partitions there are: one of which nothing is known holds the watermark back."""
        with self._mutex:
            for partition in range(partitions):
                self._clocks.setdefault(partition, Clock(None, at_end=False))

    def tell_time(self, clocks: Mapping[int, Clock]) -> None:
        """Moves the clocks of some partitions, and the watermark with them, which never goes back."""
        with self._mutex:
            self._clocks.update(clocks)
            reached = watermark(self._clocks.values())
            if self._watermark_us is None or (reached is not None and reached > self._watermark_us):
                self._watermark_us = reached

    def unsaved(self, partition: int) -> Unsaved:
        """Returns what of a partition is to be saved."""
        with self._mutex:
            return Unsaved(
                {key: self._panes[partition, key] for key in self._unsaved.get(partition, ())},
                {key: self._totals[key][partition] for key in self._unsaved_totals.get(partition, ())},
                {
                    key: self._pairs[PairsKey(*key[:3])][key.start_us][partition]
                    for key in self._unsaved_pairs.get(partition, ())
                },
            )

    def saved(self) -> None:
        """Notes that everything was saved, and lets the panes go that were used least recently."""
        with self._mutex:
            self._unsaved.clear()
            self._unsaved_totals.clear()
            self._unsaved_pairs.clear()
            while len(self._panes) > self._in_memory:
                self._panes.popitem(last=False)

    def pane(self, key: PaneKey) -> Pane:
        """Returns a pane, from the state file if it is not in memory; an empty one if there is none."""
        with self._mutex:
            holders = self._holders.get(VersionKey(key.model, key.version), {}).get(key.start_us, 0)
        parts = [self._part(partition, key) for partition in _bits(holders)]
        return reduce(Pane.merge, parts) if parts else Pane.empty()

    def versions(self) -> list[VersionKey]:
        """Returns the versions that have answered."""
        with self._mutex:
            return sorted(self._revisions)

    @property
    def watermark_us(self) -> int | None:
        """The event time that all partitions have reached, by the predictions in these panes."""
        with self._mutex:
            return self._watermark_us

    def revisions(self, version: VersionKey) -> dict[int, int]:
        """Returns where a version's panes start, oldest first, and a number that grows when one changes."""
        with self._mutex:
            return dict(sorted(self._revisions.get(version, {}).items()))

    def total(self, version: VersionKey) -> Pane:
        """Returns the sum of all panes of a version."""
        with self._mutex:
            parts = list(self._totals.get(version, {}).values())
        return reduce(Pane.merge, parts) if parts else Pane.empty()

    def pairs(self, model: str) -> Mapping[PairsKey, Sequence[tuple[int, PairedCells]]]:
        """Returns a model's comparisons: start and cells of each pane, oldest first."""
        with self._mutex:
            return {
                key: sorted(((start, _sum(parts)) for start, parts in panes.items()), key=itemgetter(0))
                for key, panes in self._pairs.items()
                if key.model == model
            }

    def _part(self, partition: int, key: PaneKey) -> Pane:
        """Returns what a partition has of a pane."""
        with self._mutex:
            found = self._panes.get((partition, key))
            holders = self._holders.get(VersionKey(key.model, key.version), {}).get(key.start_us, 0)
            if found is not None or not holders >> partition & 1:
                return found or Pane.empty()
        return self._store.pane(partition, key)

    def _hold(self, partition: int, version: VersionKey, start_us: int) -> None:
        holders = self._holders.setdefault(version, {})
        holders[start_us] = holders.get(start_us, 0) | 1 << partition

    def _cells_of(self, pair: ComparisonKey) -> dict[int, PairedCells]:
        return self._pairs.setdefault(PairsKey(*pair[:3]), {}).setdefault(pair.start_us, {})


def _sum(parts: Mapping[int, PairedCells]) -> PairedCells:
    if len(parts) == 1:
        return next(iter(parts.values()))
    total = PairedCells.empty()
    for cells in parts.values():
        total.merge(cells)
    return total


def _bits(number: int) -> Iterator[int]:
    """Yields the places of the bits that are set."""
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest
