"""The one owner of the monitor's state: reads the log, folds it, commits, until it is told to stop.

Of a log that several monitors share it folds the partitions that are its own, tells the others of them, and takes over
what the others say of theirs, so that each has the state of all.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from monitor.errors import MonitorError, SourceBusyError, SourceError
from monitor.fold import FoldLimits, read_events, versions_in
from monitor.history import History
from monitor.partition import Partition
from monitor.publication import Snapshot, parts_of
from monitor.settings import MonitorSettings
from monitor.sources.bundles import BundleFolder
from monitor.sources.source import (
    Acknowledged,
    Assigned,
    Delivery,
    Message,
    Received,
    Revoked,
    Source,
    Stopped,
    TakenOver,
)
from monitor.state_store import Joined, Log, Position, StateStore
from monitor.teller import Sender, Teller
from monitor.version_profile import VersionKey
from monitor.watermark import Clock
from server.contract.partition import partition_of

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


class Elsewhere(NamedTuple):
    """Another monitor is the judge of a model: the one at ``url``, None while that is not known."""

    url: str | None


class Consumer:
    """The consume loop, in a thread of its own: folding is work for the processor, not for an event loop.

    ``failure`` is None while all is well, and a sentence once the loop has died or a partition stands still.

    Args:
        settings: lengths and limits.
        bundles: the known versions.
        store: the state file.
        history: the panes, which this thread alone adds to.
        open_source: returns the log; it is given what to call, from any thread, when there is something to read,
            and where each partition of the topic of panes is read on.
        url: where this monitor answers.

    Raises:
        SourceError: from ``prepare``.
    """

    def __init__(
        self,
        settings: MonitorSettings,
        bundles: BundleFolder,
        store: StateStore,
        history: History,
        open_source: Callable[[Callable[[], None], Mapping[int, int]], Source],
        url: str | None = None,
    ) -> None:
        self._settings = settings
        self._bundles = bundles
        self._store = store
        self._history = history
        self._url = url
        self._log = store.log()
        positions, self._counters = store.positions(), store.counters()
        self._digests = {key: digest for (_, key), (digest, _) in store.totals().items()}
        # The partitions that are this monitor's; those of them that it folds; what it has in memory of others.
        self._assigned: frozenset[int] | None = None
        self._partitions: dict[int, Partition] = {}
        self._tellers: dict[int, Teller] = {}
        self._resting: dict[int, Partition] = {}
        followed = store.followed()
        self._snapshots: dict[int, Snapshot] = {number: snapshot for number, (_, snapshot) in followed.items()}
        self._followed = {number: after for number, (after, _) in followed.items()}
        self._stopped: dict[int, str] = {}
        self._ends: Mapping[int, int] = {}
        self._rebalances = 0
        self._committed_at = self._caught_up_at = time.monotonic()
        places = {number: Place(position.offset, None) for number, position in positions.items()}
        self._progress = Progress(self._log.log_id, places, 0.0)
        self._published = self._count()
        self._waiting: str | None = None
        self._wake = threading.Event()
        self._stopping = False
        self._source = open_source(self._wake.set, self._followed)
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
            while self._step():
                if self._partitions:
                    break
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

    def judge_of(self, model: str) -> Elsewhere | None:
        """Returns which other monitor judges a model, None for this one.

        The judge is the monitor that has the partition of the log that the model's name is hashed to, so the
        consumer group elects one for each model.
        """
        of = self._log.partitions
        if self._assigned is None or of is None:
            return None
        number = partition_of(model.encode(), of)
        if number in self._assigned:
            return None
        snapshot = self._snapshots.get(number)
        return Elsewhere(None if snapshot is None else snapshot.url)

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
        news = uncommitted or any(teller.has_news for teller in self._tellers.values())
        if uncommitted >= self._settings.batch_events or (
            news and time.monotonic() - self._committed_at >= self._settings.commit_s
        ):
            self._commit()
        if self._source.shared:
            self._tell_others()
        return message is not None

    def _heed(self, message: Message) -> None:
        if isinstance(message, Delivery):
            partition = self._partitions.get(message.partition)
            if partition is not None:
                self._take_in(partition, message)
        elif isinstance(message, Received):
            self._receive(message)
        elif isinstance(message, Acknowledged):
            if message.partition in self._tellers:
                self._tellers[message.partition].acknowledge()
        elif isinstance(message, Assigned):
            self._assign(message)
        elif isinstance(message, TakenOver):
            self._take_over(message)
        elif isinstance(message, Revoked):
            self._rest()
            self._source.given_up()
        elif isinstance(message, Stopped):
            _logger.error("partition %d stands still: %s", message.partition, message.reason)
            self._stopped[message.partition] = message.reason

    def _rest(self) -> None:
        """Commits, and folds no partition until it is taken over once more."""
        self._commit()
        self._resting |= self._partitions
        self._partitions = {}
        self._tellers = {}

    def _assign(self, message: Assigned) -> None:
        """Takes note of the partitions that are this monitor's from now on."""
        self._check(message.log_id, message.of)
        self._log = Log(message.log_id, message.of)
        self._rest()
        self._assigned = frozenset(message.partitions)
        self._resting = {number: self._resting[number] for number in self._assigned if number in self._resting}
        self._rebalances += 1
        self._stopped.clear()
        self._history.expect(message.of)
        names = ", ".join(map(str, message.partitions))
        _logger.info("partitions of %s to read: %s", message.log_id, names or "none, there are more monitors")

    def _take_over(self, message: TakenOver) -> None:
        """Begins to fold a partition, from where its state stands."""
        number = message.partition
        snapshot = self._snapshots.get(number)
        partition = self._resting.pop(number, None)
        if partition is None:
            partition = self._restore(number, snapshot)
        position = partition.position
        end = self._source.ends().get(number, position.offset)
        if not self._source.shared and end < position.offset:
            raise SourceError(
                f"{self._settings.log_name} ends at offset {end}, but {self._settings.state_file} has read "
                f"{position.offset} events of it: it is an older copy"
            )
        self._partitions[number] = partition
        unpublished = self._store.unpublished(number)
        if snapshot is None or (message.panes_end or 0) < self._followed[number]:
            # Nothing was told yet, or the topic of panes was made anew.
            snapshot, unpublished = None, unpublished | self._store.publishable(number)
        events = self._settings.kafka.checkpoint_events
        self._tellers[number] = Teller(unpublished, snapshot, events, time.monotonic())
        self._source.seek(number, partition.next_offset, None if partition.warming else position.mark)
        _logger.info("folding partition %d of the log from offset %d", number, position.offset)

    def _restore(self, number: int, snapshot: Snapshot | None) -> Partition:
        """Returns a partition as the state file has it; its open requests may be of an earlier offset."""
        position = self._store.positions().get(number, Position(0, None))
        joined = self._store.joined(number)
        saved = joined.offset == position.offset or snapshot is None or snapshot.joined <= joined.offset
        if saved or snapshot is None:
            requests = self._store.requests(number)
        else:
            joined = Joined(snapshot.joined, snapshot.joined_watermark_us)
            requests = self._store.checkpoint(number)
        assert self._log.partitions is not None  # said when it was assigned
        return Partition(
            number,
            self._bundles.profiles,
            fold_limits(self._settings, self._log.partitions),
            position,
            joined,
            requests,
            saved,
            self._counters.get(number, {}),
        )

    def _receive(self, message: Received) -> None:
        """Takes over what a monitor says of a partition, unless this one folds it or knows more of it."""
        publication = message.publication
        number, snapshot = publication.partition, publication.snapshot
        kafka = self._settings.kafka
        if snapshot.group != kafka.group:
            raise SourceError(
                f"topic {kafka.panes_topic} is of group {snapshot.group}, but this monitor is of group {kafka.group}: "
                f"give each group a kafka.panes_topic of its own"
            )
        self._check(snapshot.log_id, snapshot.of)
        if snapshot.pane_us != fold_limits(self._settings).pane_us:
            raise SourceError(
                f"pane.length_s is {self._settings.pane.length_s:g}, but another monitor of group "
                f"{kafka.group} has panes of {snapshot.pane_us / 1e6:g} s: give all the same"
            )
        try:
            parts = parts_of(publication)
        except (ValueError, msgspec.DecodeError) as error:
            raise SourceError(f"topic {kafka.panes_topic} holds what cannot be understood: {error}") from error
        adopt = False
        if number not in self._partitions:
            resting = self._resting.get(number)
            known = self._store.positions().get(number) if resting is None else resting.position
            adopt = known is None or snapshot.offset > known.offset
        self._store.receive(publication, parts, message.next_offset, adopt=adopt)
        self._snapshots[number] = snapshot
        self._followed[number] = message.next_offset
        if adopt:
            self._resting.pop(number, None)
            self._counters[number] = Counter(snapshot.counters)
            for key, (digest, _) in parts.versions.items():
                self._digests.setdefault(key, digest)
            self._history.replace(number, parts)
        if number not in self._partitions:
            self._history.tell_time({number: Clock(snapshot.watermark_us, snapshot.at_end)})

    def _tell_others(self) -> None:
        """Publishes what is due; only what is committed is told."""
        now = time.monotonic()
        every_s = self._settings.kafka.publish_s
        due = [
            partition
            for number, partition in self._partitions.items()
            if not partition.warming and self._tellers[number].is_due(partition, now, every_s)
        ]
        if any(partition.uncommitted_events for partition in due):
            self._commit()
        for partition in due:
            publication, letters = self._tellers[partition.number].tell(partition, self._store, self._sender(), now)
            self._source.publish(publication, letters)

    def _sender(self) -> Sender:
        log, settings = self._log, self._settings
        assert log.log_id is not None  # known once a partition is folded
        assert log.partitions is not None
        pane_us = fold_limits(settings).pane_us
        return Sender(settings.kafka.group, log.log_id, log.partitions, pane_us, self._url)

    def _check(self, log_id: str, of: int) -> None:
        if self._log.log_id not in (None, log_id):
            raise SourceError(
                f"{self._settings.state_file} belongs to log {self._log.log_id}, but {self._settings.log_name} "
                f"is log {log_id}: give the log it belongs to, or start anew with another --state"
            )
        if self._log.partitions not in (None, of):
            raise SourceError(
                f"{self._settings.state_file} is of {self._log.partitions} partitions, but {self._settings.log_name} "
                f"has {of}: requests would be torn apart; start anew with another --state"
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
        if delta is None:
            return
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
        for number, partition in self._partitions.items():
            at_end = partition.next_offset >= self._ends.get(number, partition.next_offset + 1)
            partition.position = partition.position._replace(at_end=at_end and not partition.warming)
        if self._partitions:
            self._history.tell_time(
                {
                    number: Clock(partition.position.watermark_us, partition.position.at_end)
                    for number, partition in self._partitions.items()
                }
            )
            if all(partition.position.at_end for partition in self._partitions.values()):
                self._caught_up_at = now
        places = self._progress.places
        if self._assigned is not None and len(self._partitions) == len(self._assigned):
            places = {
                number: Place(partition.next_offset, self._ends.get(number))
                for number, partition in sorted(self._partitions.items())
            }
        self._progress = Progress(
            self._log.log_id, places, now - self._caught_up_at, waiting, self._rebalances, self._source.rebuilt
        )
        self._published = self._count()

    def _count(self) -> Counter[str]:
        """Returns the counts of this monitor's partitions; of all before it has any."""
        counters: Counter[str] = Counter()
        for number in self._counters if self._assigned is None else self._assigned:
            partition = self._partitions.get(number)
            counters.update(self._counters.get(number, Counter()) if partition is None else partition.counters)
        open_requests = sum(partition.open_requests for partition in self._partitions.values())
        counters["open_requests"] = open_requests
        return counters

    def _commit(self) -> None:
        changed = [
            partition
            for number, partition in self._partitions.items()
            if partition.uncommitted_events or self._tellers[number].has_news
        ]
        if not changed:
            return
        changes = [partition.changes(self._history.unsaved(partition.number), self._digests) for partition in changed]
        if self._source.shared:
            changes = [self._tellers[each.partition].add(each) for each in changes]
        self._store.commit(self._log, changes)
        self._history.saved()
        for partition in changed:
            partition.committed()
            self._counters[partition.number] = Counter(partition.counters)
        self._source.committed([(partition.number, partition.position.offset) for partition in changed])
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
