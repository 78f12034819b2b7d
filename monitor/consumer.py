"""The one owner of the monitor's state: reads the log, folds it, commits, until it is told to stop."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from monitor.errors import MonitorError, SourceBusyError, SourceError
from monitor.fold import FoldLimits, read_events, versions_in
from monitor.history import History
from monitor.partition import Partition
from monitor.settings import MonitorSettings
from monitor.sources.bundles import BundleFolder
from monitor.sources.source import Assigned, Delivery, Message, Revoked, Source, Stopped
from monitor.state_store import Log, Position, StateStore
from monitor.version_profile import VersionKey
from monitor.watermark import Clock

_logger = logging.getLogger(__name__)

_STOP_S = 10.0


class Place(NamedTuple):
    """How far a partition has been read. ``end`` is None while it is not known."""

    offset: int
    end: int | None

    @property
    def lag(self) -> int:
        """Events that are not read yet, as far as known."""
        return 0 if self.end is None else max(0, self.end - self.offset)


class Progress(NamedTuple):
    """How far the log has been read: the partitions that are read here.

    ``log_id`` is None while there is no log; ``waiting`` says what is waited for; ``rebalances`` how often the
    partitions were shared out anew, ``rebuilt`` how often the connection was made anew.
    """

    log_id: str | None
    places: Mapping[int, Place]
    lag_s: float
    waiting: str | None = None
    rebalances: int = 0
    rebuilt: int = 0

    @property
    def offset(self) -> int:
        """Events read, of all partitions."""
        return sum(place.offset for place in self.places.values())

    @property
    def end(self) -> int | None:
        """Events there are, of all partitions; None while that is not known."""
        ends = [place.end for place in self.places.values()]
        return sum(end for end in ends if end is not None) if ends and None not in ends else None


class Consumer:
    """The consume loop, in a thread of its own: folding is work for the processor, not for an event loop.

    ``failure`` is None while all is well, and a sentence once the loop has died or a partition stands still.

    Args:
        settings: lengths and limits.
        bundles: the known versions.
        store: the state file.
        history: the panes, which this thread alone adds to.
        open_source: returns the log; it is given what to call, from any thread, when there is something to read.

    Raises:
        SourceError: from ``prepare``.
    """

    def __init__(
        self,
        settings: MonitorSettings,
        bundles: BundleFolder,
        store: StateStore,
        history: History,
        open_source: Callable[[Callable[[], None]], Source],
    ) -> None:
        self._settings = settings
        self._bundles = bundles
        self._store = store
        self._history = history
        self._log = store.log()
        self._positions = store.positions()
        self._saved_counters = store.counters()
        self._digests = {key: digest for (_, key), (digest, _) in store.totals().items()}
        self._partitions: dict[int, Partition] = {}
        self._stopped: dict[int, str] = {}
        self._ends: Mapping[int, int] = {}
        self._rebalances = 0
        self._committed_at = self._caught_up_at = time.monotonic()
        places = {number: Place(position.offset, None) for number, position in self._positions.items()}
        self._progress = Progress(self._log.log_id, places, 0.0)
        self._published = self._count()
        self._waiting: str | None = None
        self._wake = threading.Event()
        self._stopping = False
        self._source = open_source(self._wake.set)
        self._thread = threading.Thread(target=self._run, name="tiltyard-consumer", daemon=True)
        self._failure: str | None = None
        for key in list(bundles.profiles):
            self._admit(key)

    def prepare(self) -> None:
        """Opens the log if it is there, so that one that cannot be used is told at once.

        Raises:
            SourceError: it cannot be used, or is not the log the state belongs to.
        """
        try:
            self._step()
        except BaseException:
            self._source.close()
            raise

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after the batch it is at; everything folded is committed."""
        self._stopping = True
        self._wake.set()
        if self._thread.ident is None:
            self._source.close()
            return
        self._thread.join(_STOP_S)

    @property
    def failure(self) -> str | None:
        """Why the loop has died, or what partition stands still; None while all is well."""
        if self._failure is None and self._stopped:
            return "; ".join(self._stopped.values())
        return self._failure

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
            while not self._stopping:
                self._wake.clear()
                if not self._step():
                    self._wake.wait(self._settings.poll_s)
            self._commit()
        except MonitorError as error:
            self._failure = str(error)
            _logger.error("the monitor stands still: %s", error)
        except Exception as error:
            self._failure = f"internal error: {type(error).__name__}: {error}"
            _logger.exception("the monitor stands still")
        finally:
            self._source.close()

    def _step(self) -> bool:
        """Takes in what the source has; returns whether there was anything."""
        try:
            message = self._source.next(self._settings.batch_events)
            if message is not None:
                self._heed(message)
            self._ends = self._source.ends()
        except SourceBusyError as error:
            _logger.warning("%s, trying again", error)
            return False
        self._look()
        uncommitted = sum(partition.uncommitted_events for partition in self._partitions.values())
        if uncommitted >= self._settings.batch_events or (
            uncommitted and time.monotonic() - self._committed_at >= self._settings.commit_s
        ):
            self._commit()
        return message is not None

    def _heed(self, message: Message) -> None:
        if isinstance(message, Delivery):
            partition = self._partitions.get(message.partition)
            if partition is not None:
                self._take_in(partition, message)
        elif isinstance(message, Assigned):
            self._assign(message)
        elif isinstance(message, Revoked):
            self._commit()
            self._source.given_up()
        elif isinstance(message, Stopped):
            _logger.error("partition %d stands still: %s", message.partition, message.reason)
            self._stopped[message.partition] = message.reason

    def _assign(self, message: Assigned) -> None:
        """Begins to read the partitions that are this monitor's, each from where its state stands."""
        self._check(message)
        self._log = Log(message.log_id, message.of)
        self._rebalances += 1
        self._stopped.clear()
        ends = self._source.ends()
        kept = {number: self._partitions[number] for number in message.partitions if number in self._partitions}
        for number, partition in self._partitions.items():
            self._positions[number] = partition.position
            self._saved_counters[number] = partition.counters
        limits = fold_limits(self._settings, message.of)
        for number in message.partitions:
            if number not in kept:
                kept[number] = Partition(
                    number,
                    self._bundles.profiles,
                    limits,
                    self._positions.get(number, Position(0, None)),
                    self._store.requests(number),
                    self._saved_counters.get(number, {}),
                )
            position = kept[number].position
            if ends.get(number, position.offset) < position.offset:
                raise SourceError(
                    f"{self._settings.outbox} ends at offset {ends[number]}, but {self._settings.state_file} has read "
                    f"{position.offset} events of it: it is an older copy"
                )
            self._source.seek(number, position.offset, position.mark)
        self._partitions = kept
        _logger.info(
            "reading %s: %s",
            message.log_id,
            ", ".join(f"partition {number} from {kept[number].position.offset}" for number in message.partitions)
            or "no partition, there are more monitors than partitions",
        )

    def _check(self, message: Assigned) -> None:
        if self._log.log_id not in (None, message.log_id):
            raise SourceError(
                f"{self._settings.state_file} belongs to log {self._log.log_id}, but {self._settings.log_name} "
                f"is log {message.log_id}: give the log it belongs to, or start anew with another --state"
            )
        if self._log.partitions not in (None, message.of):
            raise SourceError(
                f"{self._settings.state_file} is of {self._log.partitions} partitions, but {self._settings.log_name} "
                f"has {message.of}: requests would be torn apart; start anew with another --state"
            )

    def _take_in(self, partition: Partition, delivery: Delivery) -> None:
        events, refused = read_events(delivery.batch.lines)
        for key in versions_in(events) - self._bundles.profiles.keys():
            if self._bundles.load(key) is not None:
                self._admit(key)
        if delivery.batch.gap_events:
            _logger.warning(
                "%d events were trimmed from partition %d of the log before offset %d was read",
                delivery.batch.gap_events,
                partition.number,
                delivery.batch.next_offset,
            )
        delta = partition.take_in(delivery, events, refused)
        if delta.dead_letters:
            first = delta.dead_letters[0]
            _logger.warning(
                "kept %d entries of the log aside; the first at offset %d of partition %d, %s: %s",
                len(delta.dead_letters),
                first.offset,
                partition.number,
                first.reason,
                first.detail,
            )
        self._history.add(partition.number, delta)

    def _look(self) -> None:
        """Notes how far everything is, for readers."""
        waiting = self._source.waiting
        if waiting is not None and waiting != self._waiting:
            _logger.info("%s (%s)", waiting, self._settings.log_name)
        self._waiting = waiting
        now = time.monotonic()
        if self._partitions:
            for number, partition in self._partitions.items():
                at_end = partition.position.offset >= self._ends.get(number, partition.position.offset + 1)
                partition.position = partition.position._replace(at_end=at_end)
            self._history.tell_time(
                {
                    number: Clock(partition.position.watermark_us, partition.position.at_end)
                    for number, partition in self._partitions.items()
                }
            )
            if all(partition.position.at_end for partition in self._partitions.values()):
                self._caught_up_at = now
        places = self._progress.places
        if self._log.log_id is not None and (self._partitions or self._rebalances):
            places = {
                number: Place(partition.position.offset, self._ends.get(number))
                for number, partition in sorted(self._partitions.items())
            }
        self._progress = Progress(
            self._log.log_id, places, now - self._caught_up_at, waiting, self._rebalances, self._source.rebuilt
        )
        self._published = self._count()

    def _count(self) -> Counter[str]:
        counters: Counter[str] = Counter()
        for number in {*self._saved_counters, *self._partitions}:
            partition = self._partitions.get(number)
            counters.update(self._saved_counters[number] if partition is None else partition.counters)
        counters["open_requests"] = sum(partition.open_requests for partition in self._partitions.values())
        return counters

    def _commit(self) -> None:
        changed = [partition for partition in self._partitions.values() if partition.uncommitted_events]
        if not changed:
            return
        self._store.commit(
            self._log,
            [partition.changes(self._history.unsaved(partition.number), self._digests) for partition in changed],
        )
        self._history.saved()
        for partition in changed:
            partition.committed()
        self._source.committed((partition.number, partition.position.offset) for partition in changed)
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


def fold_limits(settings: MonitorSettings, partitions: int = 1) -> FoldLimits:
    """Returns the limits of one partition's fold, in microseconds; partitions share what may be open evenly."""
    return FoldLimits(
        pane_us=round(settings.pane.length_s * 1e6),
        grace_us=round(settings.pane.grace_s * 1e6),
        ttl_us=round(settings.join.ttl_s * 1e6),
        max_open=max(1, settings.join.max_open // partitions),
    )
