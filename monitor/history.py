"""Every pane there has been: the recent ones in memory, the others in the state file."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

from monitor.comparison.paired import PairedCells
from monitor.fold import ComparisonKey, Delta, PaneKey
from monitor.pane import Pane
from monitor.state_store import StateStore
from monitor.version_profile import VersionKey


class PairsKey(NamedTuple):
    """A comparison: the served version and the shadow."""

    model: str
    champion: str
    challenger: str


class Unsaved(NamedTuple):
    """What differs from the state file."""

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
        self._panes: OrderedDict[PaneKey, Pane] = OrderedDict()
        self._unsaved: set[PaneKey] = set()
        self._unsaved_pairs: set[ComparisonKey] = set()
        # How often each pane was added to since the start of this process.
        self._revisions: dict[VersionKey, dict[int, int]] = {}
        for key in store.pane_keys():
            self._revisions.setdefault(VersionKey(key.model, key.version), {})[key.start_us] = 0
        self._totals = {key: pane for key, (_, pane) in store.totals().items()}
        self._unsaved_totals: set[VersionKey] = set()
        self._watermark_us = store.position().watermark_us
        self._pairs: dict[PairsKey, dict[int, PairedCells]] = {}
        for pair, cells in store.comparisons().items():
            self._pairs.setdefault(PairsKey(*pair[:3]), {})[pair.start_us] = cells

    def add(self, delta: Delta, watermark_us: int | None) -> None:
        """Merges what a batch of events adds, and moves the watermark to where the batch put it."""
        # Old panes are fetched before the readers are shut out.
        old = {key: self.pane(key) for key in delta.panes}
        with self._mutex:
            self._watermark_us = watermark_us
            for key, pane in delta.panes.items():
                version = VersionKey(key.model, key.version)
                self._panes[key] = old[key].merge(pane)
                self._panes.move_to_end(key)
                self._unsaved.add(key)
                revisions = self._revisions.setdefault(version, {})
                revisions[key.start_us] = revisions.get(key.start_us, 0) + 1
                self._totals[version] = self._totals.get(version, Pane.empty()).merge(pane)
                self._unsaved_totals.add(version)
            for pair, cells in delta.comparisons.items():
                panes = self._pairs.setdefault(PairsKey(*pair[:3]), {})
                merged = cells.copy()
                if pair.start_us in panes:
                    merged.merge(panes[pair.start_us])
                panes[pair.start_us] = merged
                self._unsaved_pairs.add(pair)

    def unsaved(self) -> Unsaved:
        """Returns what is to be saved."""
        with self._mutex:
            return Unsaved(
                {key: self._panes[key] for key in self._unsaved},
                {key: self._totals[key] for key in self._unsaved_totals},
                {key: self._pairs[PairsKey(*key[:3])][key.start_us] for key in self._unsaved_pairs},
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
        version = VersionKey(key.model, key.version)
        with self._mutex:
            found = self._panes.get(key)
            if found is not None or key.start_us not in self._revisions.get(version, ()):
                return found or Pane.empty()
        return self._store.pane(key)

    def versions(self) -> list[VersionKey]:
        """Returns the versions that have answered."""
        with self._mutex:
            return sorted(self._revisions)

    @property
    def watermark_us(self) -> int | None:
        """The highest event time of the predictions in these panes."""
        with self._mutex:
            return self._watermark_us

    def revisions(self, version: VersionKey) -> dict[int, int]:
        """Returns where a version's panes start, oldest first, and a number that grows when one changes."""
        with self._mutex:
            return dict(sorted(self._revisions.get(version, {}).items()))

    def total(self, version: VersionKey) -> Pane:
        """Returns the sum of all panes of a version."""
        with self._mutex:
            return self._totals.get(version, Pane.empty())

    def pairs(self, model: str) -> Mapping[PairsKey, Sequence[tuple[int, PairedCells]]]:
        """Returns a model's comparisons: start and cells of each pane, oldest first."""
        with self._mutex:
            return {
                key: sorted(panes.items(), key=itemgetter(0))
                for key, panes in self._pairs.items()
                if key.model == model
            }
