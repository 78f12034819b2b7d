"""Changes of routes: one at a time, each kept, obeyed, and told to the log as an audit event."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from server.audit import route_line
from server.bundles.repository import Repository
from server.errors import OutboxError, RouteError, RouteStoreError, StaleRouteError, TiltyardError
from server.eventlog.event_log import EventLog
from server.execution.session import Version
from server.identifiers import uuid7
from server.metrics import Metrics
from server.routes.store import RouteStore
from server.routing.changes import same, with_shares
from server.routing.document import Route
from server.routing.revision import Action, Revision
from server.routing.wanted import Document, Wanted, digest_of, wanted_of
from server.traffic import Traffic

logger = logging.getLogger(__name__)

# A store behind a URL is asked less often than a folder.
REMOTE_S = 10.0
# An audit event that its writer has not marked by then is written again, with the same id: the writer may have died.
AUDIT_S = 5.0
# How long a server that starts waits for brokers before it serves its last routes.
CATCH_UP_S = 10.0
_TRIES = 10


class Accepted(Protocol):
    """What is told of revisions that hold, in their order; ``history``: they held when the topic was first read."""

    async def __call__(self, revisions: Sequence[Revision], *, history: bool) -> None:
        """Takes them over; when it raises, they come again."""
        ...


class Topic(Protocol):
    """Where all servers read which changes hold; ``fault`` says why that cannot be read at present."""

    fault: str | None
    caught_up: asyncio.Event

    async def change(self, revision: Revision) -> Revision:
        """Returns a change once it holds and has been accepted, or raises StaleRouteError or RouteStoreError."""
        ...

    async def run_forever(self) -> None:
        """Reads until it is cancelled."""
        ...


@dataclass(frozen=True, slots=True)
class Changed:
    """A route before and after a change; equal but for nothing where there was nothing to change."""

    before: Route
    after: Route


class RouteControl:
    """The routes of one process's models: what is wanted of them, and changes that hold for the whole server."""

    def __init__(
        self,
        store: RouteStore,
        repository: Repository[Version],
        traffic: Traffic,
        log: EventLog,
        metrics: Metrics,
        *,
        announce: Callable[[], None] = lambda: None,
        topic: Callable[[Accepted], Topic] | None = None,
    ) -> None:
        """announce: called when a change holds that others of this server need not find by looking; topic: makes,
        out of what takes over revisions that hold, the topic that all servers share."""
        self._store = store
        self._metrics = metrics
        self._announce = announce
        self._called = asyncio.Event()
        self._repository = repository
        self._traffic = traffic
        self._log = log
        self.topic = None if topic is None else topic(self._accept)
        self._one_at_a_time = asyncio.Lock()
        # What was read before a change must not be obeyed after it.
        self._looking = asyncio.Lock()
        self._read: dict[str, tuple[object, Wanted]] = {}
        self._kept: dict[str, tuple[object, Wanted]] = {}
        self._told: dict[str, str] = {}
        self._owed: dict[str, str] = {}
        self._trips: set[asyncio.Task[None]] = set()

    def look(self) -> None:
        """Ends the wait between two looks: another process has changed a route."""
        self._called.set()

    async def wait(self, watch_s: float) -> None:
        """Returns when it is time for the next look at the store."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(watch_s, REMOTE_S) if self._store.remote else watch_s):
                await self._called.wait()
        self._called.clear()

    async def caught_up(self) -> None:
        """Returns once the shared topic has been read as it stood, at once without one, or after CATCH_UP_S."""
        if self.topic is None:
            return
        try:
            async with asyncio.timeout(CATCH_UP_S):
                await self.topic.caught_up.wait()
        except TimeoutError:
            logger.warning("%s; the last routes of this server hold", self.topic.fault)

    def wanted(self, model: str) -> Wanted:
        """Returns what is wanted of a model as the store has it now; may block."""
        return wanted_of(*self._store.read(model))

    async def history(self, model: str) -> list[Revision]:
        """Returns a model's revisions, newest first.

        Raises:
            UnknownModelError: no such model.
            RouteStoreError: they cannot be read.
        """
        self._traffic.document(model)
        return (await asyncio.to_thread(self._store.history, model)).revisions[::-1]

    async def change(
        self,
        model: str,
        base: int | None,
        make: Callable[[Route], Route],
        *,
        action: Action,
        by: str,
        reason: str | None = None,
        dry_run: bool = False,
    ) -> Changed:
        """Returns what a change has changed, or with dry_run would change, once it holds.

        Args:
            model: whose route.
            base: the revision that the change is of, None for whichever holds.
            make: returns the new route from the one that holds, or raises RouteError.
            action, by, reason: kept in history and audit event.

        Raises:
            UnknownModelError: no such model.
            StaleRouteError: another revision holds.
            RouteError: the new route cannot be obeyed; every reason is named.
            RouteStoreError, ConflictError: it cannot be kept; nothing has changed.
        """
        async with self._one_at_a_time:
            before, newest, seen = await self._present(model, adopt=not dry_run)
            if base is not None and base != before.revision:
                raise StaleRouteError(
                    f"model {model!r}: expected a change of revision {before.revision}, which holds, got one of {base}",
                    before.revision,
                )
            after = make(before)
            # What is to hold already is no change, unless its document has gone or cannot be read.
            if same(before, after) and wanted_of(seen, newest).fault is None:
                return Changed(before, before)
            faults = self._traffic.faults_of(model, after)
            if faults:
                raise RouteError.of(faults)
            if not dry_run:
                await self._commit(model, before, after, newest, seen, action=action, by=by, reason=reason)
            return Changed(before, after)

    async def follow(self, *, leading: bool) -> None:
        """Obeys what others have changed; the process that leads also keeps what people have edited.

        One look; what cannot be done is logged once and tried again at the next.
        """
        keeps = leading and (self.topic is None or self.topic.caught_up.is_set())
        async with self._looking:
            found = await asyncio.to_thread(self._look, self._repository.models())
            for model, (_, wanted) in found.items():
                # Kept before it is obeyed: else the next edit, if it is faulty, would lead back behind this one.
                if not (keeps and wanted.edited):
                    self._traffic.follow(model, wanted)
            self._read = found
        if not keeps:
            return
        for model, present in found.items():  # whoever begins to lead sees to everything once
            if present != self._kept.get(model) or present[1].edited or model in self._told:
                self._kept[model] = present
                await self._keep(model, present[1])
            if present[1].edited:  # where it cannot be kept it is obeyed all the same
                async with self._looking:
                    self._traffic.follow(model, await asyncio.to_thread(self.wanted, model))

    def tripped(self, model: str, version: str, reason: str) -> None:
        """Takes a challenger out of the traffic whose guard has opened in this process; returns at once."""
        task = asyncio.get_running_loop().create_task(self._take_out(model, version, reason))
        self._trips.add(task)
        task.add_done_callback(self._trips.discard)

    async def close(self) -> None:
        """Ends changes that guards have begun; what is left of them is seen to at the next start."""
        for task in self._trips:
            task.cancel()
        await asyncio.gather(*self._trips, return_exceptions=True)

    def _look(self, models: list[str]) -> dict[str, tuple[object, Wanted]]:
        """Returns each model's stamp and what is wanted of it; what has not changed is not read again."""
        found: dict[str, tuple[object, Wanted]] = {}
        for model in models:
            stamp = self._store.stamp(model)
            known = self._read.get(model)
            if known is not None and stamp is not None and known[0] == stamp:
                found[model] = known
            else:
                document, newest = self._store.read(model)
                # What could not be read may be readable the next time, with the same stamp.
                found[model] = None if isinstance(document, RouteError) else stamp, wanted_of(document, newest)
        return found

    async def _present(self, model: str, *, adopt: bool) -> tuple[Route, Revision | None, Document]:
        """Returns the route that holds, the newest revision, and the document.

        A document that somebody has edited becomes a revision first.
        """
        tries = _TRIES
        while True:
            obeyed = self._traffic.document(model)
            document, newest = await asyncio.to_thread(self._store.read, model)
            wanted = wanted_of(document, newest)
            if wanted.route is None:
                return obeyed, newest, document
            if not wanted.edited:
                return wanted.route, newest, document
            if self._traffic.faults_of(model, wanted.route):
                return wanted.last or obeyed, newest, document
            if not adopt:
                return wanted.route, newest, document
            try:
                await self._commit(model, wanted.last, wanted.route, newest, document, action="file", by="file")
            except StaleRouteError:  # another process was first, most likely with the same
                tries -= 1
                if not tries:
                    raise

    async def _commit(
        self,
        model: str,
        before: Route | None,
        after: Route,
        newest: Revision | None,
        seen: Document,
        *,
        action: Action,
        by: str,
        reason: str | None = None,
    ) -> None:
        now = datetime.now(UTC)
        revision = Revision(
            id=uuid7(),
            model=model,
            base=0 if before is None else before.revision,
            # A clock that was set back must not make the later change the earlier one.
            time=now if newest is None else max(now, newest.time),
            by=by,
            action=action,
            reason=reason,
            route=after,
            document=digest_of(seen) if action == "file" and isinstance(seen, bytes) else msgspec.UNSET,
        )
        if self.topic is not None:
            await self.topic.change(revision)  # which has it accepted
            return
        await asyncio.to_thread(self._store.append, revision, seen)
        await self._obey([revision])
        await self._tell(revision, before)

    async def _accept(self, revisions: Sequence[Revision], *, history: bool) -> None:
        """Takes over revisions of the shared topic; of several workers one finds each of them new."""
        new = {revision.id for revision in await asyncio.to_thread(self._store.accept, revisions)}
        await self._obey(revisions)
        for model in {revision.model for revision in revisions if revision.id in new}:
            await self._tell_what_is_owed(model, lambda revision: revision.id in new)

    async def _obey(self, revisions: Sequence[Revision]) -> None:
        """Lets requests meet what holds now, in this process and then in the others."""
        for model, revision in {revision.model: revision for revision in revisions}.items():
            logger.info("model %s: route is revision %d by %s", model, revision.number, revision.by or "anyone")
            async with self._looking:
                self._traffic.follow(model, await asyncio.to_thread(self.wanted, model))
        self._announce()

    async def _tell(self, revision: Revision, before: Route | None) -> bool:
        """Writes a revision's audit event; where that fails returns False, and the process that leads tries again."""
        try:
            await self._log.append_durably([route_line(revision, before)])
            self._metrics.audits.inc()
            await asyncio.to_thread(self._store.mark_audited, revision)
        except (OutboxError, RouteStoreError) as error:
            if self._owed.get(revision.id) != str(error):
                logger.error(
                    "model %s: the audit event of revision %d waits: %s", revision.model, revision.number, error
                )
            self._owed[revision.id] = str(error)
            return False
        self._owed.pop(revision.id, None)
        return True

    async def _keep(self, model: str, wanted: Wanted) -> None:
        """Makes an edited document a revision, and sees to audit events that are owed."""
        try:
            if wanted.edited:
                async with self._one_at_a_time:
                    await self._present(model, adopt=True)
            owed = await self._tell_what_is_owed(model, _is_late)
        except TiltyardError as error:
            if self._told.get(model) != str(error):
                logger.error("model %s: an edited route document could not be kept: %s", model, error)
            self._told[model] = str(error)
        else:
            if owed:
                self._told[model] = "audit events are owed"
            else:
                self._told.pop(model, None)

    async def _tell_what_is_owed(self, model: str, due: Callable[[Revision], bool]) -> bool:
        """Writes the audit events that are due and not marked; returns whether there are others."""
        history = await asyncio.to_thread(self._store.history, model)
        before: Route | None = None
        waiting = False
        for revision in history.revisions:
            if revision.id not in history.audited:
                waiting |= not due(revision) or not await self._tell(revision, before)
            before = revision.route
        return waiting

    async def _take_out(self, model: str, version: str, reason: str) -> None:
        def without_share(route: Route) -> Route:
            has = {each.version for each in route.challengers}
            return with_shares(route, {version: 0.0}) if version in has else route

        logger.error("model %s: guard takes version %s out of the traffic: %s", model, version, reason)
        for _ in range(_TRIES):
            try:
                await self.change(model, None, without_share, action="guard", by="guard", reason=reason)
                return
            except StaleRouteError:  # another worker was first, perhaps with the same
                continue
            except TiltyardError as error:
                # The breaker stays open: this process sends it nothing all the same.
                logger.error("model %s: the route could not be changed: %s", model, error)
                return


def _is_late(revision: Revision) -> bool:
    age_s = (datetime.now(UTC) - revision.time).total_seconds()
    return not 0 <= age_s < AUDIT_S  # a time to come is that of a clock that has been set back
