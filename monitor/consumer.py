"""The one owner of the monitor's state: reads the log, folds it, commits, until it is told to stop."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from monitor.errors import MonitorError, SourceBusyError, SourceError
from monitor.fold import DeadLetter, Fold, FoldLimits, read_events, versions_in
from monitor.history import History
from monitor.settings import MonitorSettings
from monitor.sources.bundles import BundleFolder
from monitor.sources.source import Batch, Source
from monitor.state_store import Changes, StateStore
from monitor.version_profile import VersionKey

_logger = logging.getLogger(__name__)

_STOP_S = 10.0
_KEPT_BYTES = 256 * 1024


class Progress(NamedTuple):
    """How far the log has been read. ``log_id`` and ``end`` are None while there is no log."""

    log_id: str | None
    offset: int
    end: int | None
    lag_s: float


class Consumer:
    """The consume loop, in a thread of its own: folding is work for the processor, not for an event loop.

    ``failure`` is None while all is well, and a sentence once the loop has died.

    Args:
        settings: lengths and limits.
        bundles: the known versions.
        store: the state file.
        history: the panes, which this thread alone adds to.
        open_source: returns the log, or None while there is none.

    Raises:
        SourceError: from ``prepare``.
    """

    def __init__(
        self,
        settings: MonitorSettings,
        bundles: BundleFolder,
        store: StateStore,
        history: History,
        open_source: Callable[[], Source | None],
    ) -> None:
        self._settings = settings
        self._bundles = bundles
        self._store = store
        self._history = history
        self._open_source = open_source
        self._source: Source | None = None
        self._position = store.position()
        self._digests = {key: digest for key, (digest, _) in store.totals().items()}
        self._fold = Fold(bundles.profiles, fold_limits(settings), store.requests(), self._position.watermark_us)
        self._counters = store.counters()
        self._dead_letters: list[DeadLetter] = []
        self._uncommitted_events = 0
        self._committed_at = self._caught_up_at = time.monotonic()
        self._progress = Progress(self._position.log_id, self._position.offset, None, 0.0)
        self._published = Counter(self._counters)
        self._published["open_requests"] = len(self._fold.join)
        self._waiting = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tiltyard-consumer", daemon=True)
        self.failure: str | None = None
        for key in list(bundles.profiles):
            self._admit(key)

    def prepare(self) -> None:
        """Opens the log if it is there, so that one that cannot be used is told at once.

        Raises:
            SourceError: it cannot be used, or is not the log the state belongs to.
        """
        source = self._open_source()
        if source is None:
            return
        try:
            if self._position.log_id not in (None, source.log_id):
                raise SourceError(
                    f"{self._settings.state_file} belongs to log {self._position.log_id}, but {self._settings.outbox} "
                    f"is log {source.log_id}: give the outbox it belongs to, or start anew with another --state"
                )
            end = source.bounds().end
            if end < self._position.offset:
                raise SourceError(
                    f"{self._settings.outbox} ends at offset {end}, but {self._settings.state_file} has read "
                    f"{self._position.offset} events of it: it is an older copy"
                )
        except BaseException:
            source.close()
            raise
        self._source = source
        self._waiting = False
        self._position = self._position._replace(log_id=source.log_id)
        self._progress = Progress(source.log_id, self._position.offset, end, 0.0)
        _logger.info("reading %s from offset %d of %d", self._settings.outbox, self._position.offset, end)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after the batch it is at; everything folded is committed."""
        self._stop.set()
        self._thread.join(_STOP_S)

    @property
    def progress(self) -> Progress:
        """How far the log has been read, as of the last batch."""
        return self._progress

    @property
    def counters(self) -> Counter[str]:
        """What was counted, as of the last batch."""
        return self._published

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                if not self._step():
                    self._stop.wait(self._settings.poll_s)
            self._commit()
        except MonitorError as error:
            self.failure = str(error)
            _logger.error("the monitor stands still: %s", error)
        except Exception as error:
            self.failure = f"internal error: {type(error).__name__}: {error}"
            _logger.exception("the monitor stands still")
        finally:
            if self._source is not None:
                self._source.close()

    def _step(self) -> bool:
        """Reads and folds one batch; returns whether there was anything."""
        if self._source is None:
            self.prepare()
        if self._source is None:
            if not self._waiting:
                _logger.info("waiting for the outbox: %s is not there yet", self._settings.outbox)
            self._waiting = True
            return False
        try:
            batch = self._source.read(self._position.offset, self._settings.batch_events)
            end = self._source.bounds().end
        except SourceBusyError as error:
            _logger.warning("%s, trying again", error)
            return False
        found = batch.next_offset != self._position.offset
        if found:
            self._take_in(batch)
        now = time.monotonic()
        if self._position.offset >= end:
            self._caught_up_at = now
        self._progress = Progress(self._source.log_id, self._position.offset, end, now - self._caught_up_at)
        if self._uncommitted_events >= self._settings.batch_events or (
            self._uncommitted_events and now - self._committed_at >= self._settings.commit_s
        ):
            self._commit()
        return found

    def _take_in(self, batch: Batch) -> None:
        events, refused = read_events(batch.lines)
        for key in versions_in(events) - self._bundles.profiles.keys():
            if self._bundles.load(key) is not None:
                self._admit(key)
        refused += [DeadLetter(part.offset, part.reason, part.detail, part.payload) for part in batch.refused]
        if batch.gap_events:
            _logger.warning(
                "%d events were trimmed from the log before offset %d was read", batch.gap_events, batch.next_offset
            )
        delta = self._fold.fold(events, refused)
        if delta.dead_letters:
            first = delta.dead_letters[0]
            _logger.warning(
                "kept %d entries of the log aside; the first at offset %d, %s: %s",
                len(delta.dead_letters),
                first.offset,
                first.reason,
                first.detail,
            )
        self._history.add(delta, self._fold.watermark_us)
        self._counters.update(delta.counters)
        self._counters["gap_events"] += batch.gap_events
        self._dead_letters += (_cut(letter) for letter in delta.dead_letters)
        self._uncommitted_events += batch.next_offset - self._position.offset
        self._position = self._position._replace(offset=batch.next_offset, watermark_us=self._fold.watermark_us)
        published = Counter(self._counters)
        published["open_requests"] = len(self._fold.join)
        self._published = published

    def _commit(self) -> None:
        if not self._uncommitted_events:
            return
        unsaved = self._history.unsaved()
        join = self._fold.join
        self._store.commit(
            Changes(
                position=self._position,
                panes=unsaved.panes,
                totals={key: (self._digests[key], pane) for key, pane in unsaved.totals.items()},
                comparisons=unsaved.comparisons,
                requests=[(name, join.record(name)) for name in join.changed],
                counters=self._counters,
                dead_letters=self._dead_letters,
            )
        )
        self._history.saved()
        join.changed.clear()
        self._dead_letters.clear()
        self._uncommitted_events = 0
        self._committed_at = time.monotonic()

    def _admit(self, key: VersionKey) -> None:
        """Takes a version in, unless the state holds counts over another baseline of it."""
        profile = self._bundles.profiles[key]
        saved = self._digests.setdefault(key, profile.baseline_sha256)
        if saved != profile.baseline_sha256:
            self._bundles.refuse(
                key,
                f"{key.model} version {key.version}: the baseline is not the one its panes in "
                f"{self._settings.state_file} were counted with; give the new bundle a new version",
            )


def fold_limits(settings: MonitorSettings) -> FoldLimits:
    """Returns the fold's limits, in microseconds."""
    return FoldLimits(
        pane_us=round(settings.pane.length_s * 1e6),
        grace_us=round(settings.pane.grace_s * 1e6),
        ttl_us=round(settings.join.ttl_s * 1e6),
        max_open=settings.join.max_open,
    )


def _cut(letter: DeadLetter) -> DeadLetter:
    if len(letter.payload) <= _KEPT_BYTES:
        return letter
    detail = f"{letter.detail} (the first {_KEPT_BYTES} of {len(letter.payload)} bytes are kept)"
    return letter._replace(detail=detail, payload=letter.payload[:_KEPT_BYTES])
