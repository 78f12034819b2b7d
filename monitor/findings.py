"""The documents the monitor answers with: the judge's findings over the panes there are.

A closed pane is judged once and its finding kept, as JSON, until the pane changes.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

import msgspec

from monitor.comparison.paired import PairedCells
from monitor.errors import UnknownError
from monitor.fold import PaneKey
from monitor.history import History, PairsKey
from monitor.judge import Finding, Interval, false_alarm_probability, judge, judge_pairs, rfc3339
from monitor.pane import Pane
from monitor.settings import MonitorSettings
from monitor.version_profile import VersionKey, VersionProfile

_MOST_KEPT = 4000

_encode = msgspec.json.Encoder().encode


class _Kept(NamedTuple):
    revision: int
    interval: Interval
    finding: msgspec.Raw


class Findings:
    """Findings by version and interval, and comparisons. Methods may be called from any thread.

    Args:
        history: the panes.
        profiles: the known versions; may grow.
        settings: lengths, tolerances, the one knob.
    """

    def __init__(
        self, history: History, profiles: Mapping[VersionKey, VersionProfile], settings: MonitorSettings
    ) -> None:
        self._history = history
        self._profiles = profiles
        self._settings = settings
        self._pane_us = round(settings.pane.length_s * 1e6)
        self._alpha = false_alarm_probability(settings.pane.length_s, settings.alerts.expected_run_length_s)
        self._mutex = threading.Lock()
        self._kept: OrderedDict[PaneKey, _Kept] = OrderedDict()
        self._last: dict[tuple[VersionKey, bool], tuple[tuple[PaneKey, int, Interval], Finding]] = {}

    def models(self) -> list[dict[str, Any]]:
        """Returns a line for each model: name, task, rows answered, versions, watermark."""
        names = sorted({key.model for key in self.versions()})
        return [self._model(name) for name in names]

    def versions(self) -> list[VersionKey]:
        """Returns every known version, in order."""
        return sorted(self._profiles)

    def model(self, name: str, panes: int) -> dict[str, Any]:
        """Returns what is known of a model: its versions with their newest panes, and its comparisons.

        Raises:
            UnknownError: no version of such a model is known.
        """
        line = self._model(name)
        return {
            "model": name,
            "task": line["task"],
            "pane_s": self._settings.pane.length_s,
            "watermark": line["watermark"],
            "versions": [self._version(key, panes) for key in self._versions_of(name)],
            "comparisons": self.comparisons(name),
        }

    def window(self, key: VersionKey, start_us: int | None, end_us: int | None) -> Finding:
        """Returns the finding over the panes of a version that start in [start, end), merged into one.

        Raises:
            UnknownError: no such version.
        """
        profile = self._profile(key)
        starts = [start for start in self._history.revisions(key) if _within(start, start_us, end_us)]
        merged = reduce(Pane.merge, (self._history.pane(PaneKey(*key, start)) for start in starts), Pane.empty())
        return self._judge(merged, profile, self._interval(starts))

    def total(self, key: VersionKey) -> Finding:
        """Returns the finding over all panes of a version. Raises UnknownError: no such version."""
        profile = self._profile(key)
        return self._judge(self._history.total(key), profile, self._interval(list(self._history.revisions(key))))

    def last(self, key: VersionKey, *, matured: bool = False) -> Finding | None:
        """Returns the finding of a version's newest closed, or matured, pane; None when there is none."""
        revisions = self._history.revisions(key)
        for start in reversed(revisions):
            interval = self._interval([start])
            if interval.matured if matured else interval.closed:
                return self._judged_last(PaneKey(*key, start), revisions[start], interval, matured)
        return None

    def comparisons(self, model: str) -> list[dict[str, Any]]:
        """Returns a model's comparisons over all panes."""
        pairs = self._history.pairs(model)
        return [self._compare(key, panes) for key, panes in sorted(pairs.items(), key=lambda item: item[0])]

    def comparison_window(self, key: PairsKey, start_us: int | None, end_us: int | None) -> dict[str, Any]:
        """Returns a comparison over the panes that start in [start, end).

        Raises:
            UnknownError: these versions have not been compared.
        """
        panes = self._history.pairs(key.model).get(key)
        if panes is None:
            raise UnknownError(f"no answers of {key.model} versions {key.champion} and {key.challenger} were compared")
        return self._compare(key, [(start, cells) for start, cells in panes if _within(start, start_us, end_us)])

    def _model(self, name: str) -> dict[str, Any]:
        keys = self._versions_of(name)
        if not keys:
            raise UnknownError(f"no model {name} is known")
        watermark = self._history.watermark_us
        return {
            "model": name,
            "task": self._profiles[keys[0]].manifest.task,
            "rows": sum(self._history.total(key).rows for key in keys),
            "versions": [key.version for key in keys],
            "watermark": None if watermark is None else rfc3339(watermark),
        }

    def _versions_of(self, model: str) -> list[VersionKey]:
        return [key for key in self.versions() if key.model == model]

    def _version(self, key: VersionKey, panes: int) -> dict[str, Any]:
        profile = self._profiles[key]
        revisions = self._history.revisions(key)
        newest = list(revisions.items())[-panes:] if panes else []
        role = None
        if revisions:
            roles = self._history.pane(PaneKey(*key, max(revisions))).roles
            role = max(roles, key=roles.__getitem__, default=None)
        return {
            "version": key.version,
            "role": role,
            "baseline": {"rows": profile.baseline.rows, "metrics": profile.manifest.metrics},
            "total": self.total(key),
            "panes": [self._of_pane(PaneKey(*key, start), revision) for start, revision in newest],
        }

    def _of_pane(self, key: PaneKey, revision: int) -> msgspec.Raw:
        interval = self._interval([key.start_us])
        with self._mutex:
            kept = self._kept.get(key)
            if kept is not None and (kept.revision, kept.interval) == (revision, interval):
                self._kept.move_to_end(key)
                return kept.finding
        pane = self._history.pane(key)
        profile = self._profile(VersionKey(key.model, key.version))
        finding = msgspec.Raw(_encode(self._judge(pane, profile, interval)))
        with self._mutex:
            self._kept[key] = _Kept(revision, interval, finding)
            self._kept.move_to_end(key)
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return finding

    def _judged_last(self, key: PaneKey, revision: int, interval: Interval, matured: bool) -> Finding:
        version = VersionKey(key.model, key.version)
        with self._mutex:
            kept = self._last.get((version, matured))
        if kept is not None and kept[0] == (key, revision, interval):
            return kept[1]
        finding = self._judge(self._history.pane(key), self._profile(version), interval)
        with self._mutex:
            self._last[version, matured] = ((key, revision, interval), finding)
        return finding

    def _judge(self, pane: Pane, profile: VersionProfile, interval: Interval) -> Finding:
        return judge(pane, profile, interval, self._alpha, self._settings.drift.psi_tolerance)

    def _compare(self, key: PairsKey, panes: Sequence[tuple[int, PairedCells]]) -> dict[str, Any]:
        every = PairedCells.empty()
        for _, cells in panes:
            every.merge(cells)
        matured = [cells for start, cells in panes if self._interval([start]).matured]
        return judge_pairs(key.champion, key.challenger, matured, every, self._settings.comparison.alpha)

    def _interval(self, starts: Sequence[int]) -> Interval:
        """Returns the interval of panes, oldest first, as it stands at the present watermark."""
        if not starts:
            return Interval(start_us=None, end_us=None, closed=False, matured=False)
        end = starts[-1] + self._pane_us
        watermark = self._history.watermark_us
        past_s = 0.0 if watermark is None else (watermark - end) / 1e6
        known = watermark is not None and watermark >= end
        return Interval(
            start_us=starts[0],
            end_us=end,
            closed=known and past_s >= self._settings.pane.grace_s,
            matured=known and past_s >= self._settings.join.maturity_s,
        )

    def _profile(self, key: VersionKey) -> VersionProfile:
        profile = self._profiles.get(key)
        if profile is None:
            raise UnknownError(f"no version {key.version} of model {key.model} is known")
        return profile


def _within(start_us: int, low_us: int | None, high_us: int | None) -> bool:
    return (low_us is None or low_us <= start_us) and (high_us is None or start_us < high_us)
