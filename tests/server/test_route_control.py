"""Changes of routes: one at a time, kept, obeyed by every process, and told to the log, whoever dies or edits."""

import asyncio
import shutil
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import server.route_control as module
from server.contract.events import Audited
from server.errors import BundleError, OutboxError, RouteError, RouteStoreError, StaleRouteError, UnknownModelError
from server.eventlog.event_log import EventLog
from server.route_control import RouteControl
from server.routes.folder import RouteFolder
from server.routing.changes import promoted, replaced, restored, with_shares
from server.routing.document import Challenger, Guard, Route, decode_route, format_route
from server.routing.replay import route_at
from server.routing.revision import Revision
from server.routing.wanted import Document
from server.traffic import Traffic
from tests.server.live_server import read_events
from tests.server.test_swap import Parts
from tests.server.turns import until

CANARY = Route(champion="1", challengers=[Challenger(version="2", mode="split", share=0.1)])


class Refusing:
    """A log that refuses durable lines while it is told to; otherwise the outbox itself."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.refuses = False

    async def append_durably(self, lines: Sequence[bytes]) -> None:
        if self.refuses:
            raise OutboxError("the event log has no room for 1 events: try again later")
        await self._log.append_durably(lines)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


class Doubtful(RouteFolder):
    """A folder whose reads can be held up or fail, and whose marks can fail."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reading, self.go_on = threading.Event(), threading.Event()
        self.held_up = self.unreadable = self.unmarkable = False
        self.rival: Callable[[], None] | None = None

    def read(self, model: str) -> tuple[Document, Revision | None]:
        found = super().read(model)
        if self.held_up:
            self.held_up = False
            self.reading.set()
            assert self.go_on.wait(20)
        return (RouteError("too many open files"), None) if self.unreadable else found

    def append(self, revision: Revision, seen: Document) -> None:
        if self.rival is not None:
            rival, self.rival = self.rival, None
            rival()
        super().append(revision, seen)

    def mark_audited(self, revision: Revision) -> None:
        if self.unmarkable:
            raise RouteStoreError("disk full")
        super().mark_audited(revision)


class Server(Parts):
    """Two versions of `flight` without a document, and as many processes' controls as a test asks for."""

    def __init__(self, packed: Path, folder: Path) -> None:
        super().__init__(packed, folder)
        self.add("2")
        self.swapper.load_all()
        self.folder = self.models / "flight"
        self.log = Refusing(self.outbox)
        self.routes = Doubtful(self.models)
        self.announced = 0
        self.control = self.worker(self.traffic, self.routes)

    def worker(self, traffic: Traffic | None = None, routes: RouteFolder | None = None) -> RouteControl:
        """Returns the control of a process, with traffic of its own."""
        if traffic is None:
            traffic = Traffic(self.repository, self.metrics)
            traffic.refresh("flight", self.wanted("flight"))
        store = routes or RouteFolder(self.models)
        return RouteControl(store, self.repository, traffic, self.log, self.metrics, announce=self._announce)

    def _announce(self) -> None:
        self.announced += 1

    def edit(self, document: bytes | Route) -> None:
        """Writes a document as people do."""
        (self.folder / "route.json").write_bytes(document if isinstance(document, bytes) else format_route(document))

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir() if path.is_file()}

    def revisions(self) -> list[Revision]:
        return self.routes.history("flight").revisions

    async def audits(self) -> list[Audited]:
        """Returns the log's audit events of routes, once nothing waits."""
        await self.outbox.committed()
        events = read_events(self.models.parent / "outbox.db")
        return [each for each in events if isinstance(each, Audited) and each.data.action.startswith("route.")]

    def obeyed(self, control: RouteControl | None = None) -> Route:
        return (control or self.control)._traffic.document("flight")


@pytest.fixture
def server(packed: Path, tmp_path: Path) -> Iterator[Server]:
    made = Server(packed, tmp_path)
    yield made
    made.swapper.close()
    made.outbox.close()


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs work, bounded in time."""

    async def bounded() -> None:
        await asyncio.wait_for(work(), 30)

    asyncio.run(bounded())


def put(control: RouteControl, base: int | None, wanted: Route, **named: Any) -> Coroutine[Any, Any, module.Changed]:
    """Returns a change to a whole new route."""
    named = {"action": "set", "by": "ann", **named}
    return control.change("flight", base, lambda former: replaced(former, wanted), **named)


def shares(control: RouteControl, base: int | None, share: float, by: str = "ann") -> Coroutine[Any, Any, Any]:
    return control.change(
        "flight", base, lambda former: with_shares(former, {"2": share}), action="shares", by=by, reason="a ramp"
    )


def parsed(raw: msgspec.Raw | msgspec.UnsetType) -> Route | None:
    return None if isinstance(raw, msgspec.UnsetType) else decode_route(bytes(raw))


def told(events: list[Audited]) -> list[tuple[str, str, str, str | None, Route | None, Route | None]]:
    """Returns what audit events say."""
    return [
        (each.id, each.data.action, each.data.by, each.data.reason, parsed(each.data.before), parsed(each.data.after))
        for each in events
    ]


def test_a_change_is_kept_obeyed_and_told(server: Server) -> None:
    """It returns once it holds: in the document, the history, the traffic, the log, and other processes know."""

    async def work() -> None:
        changed = await put(server.control, 0, CANARY, reason="try it")
        ramped = await shares(server.control, 1, 0.2, by="bob")

        default = Route(champion="2", salt="flight")
        assert changed.before == default
        assert changed.after == replaced(default, CANARY) == ramped.before
        assert (ramped.after.revision, ramped.after.splits[0].ranges) == (2, [(0.0, 0.2)])
        assert server.obeyed() == ramped.after == server.wanted("flight").route
        assert (server.folder / "route.json").read_bytes() == format_route(ramped.after)
        one, two = server.revisions()
        assert ([one.base, two.base], server.routes.history("flight").audited) == ([0, 1], {one.id, two.id})
        assert told(await server.audits()) == [
            (one.id, "route.set", "ann", "try it", default, changed.after),
            (two.id, "route.shares", "bob", "a ramp", changed.after, ramped.after),
        ]
        assert [each.time for each in await server.audits()] == [one.time, two.time]
        assert (server.announced, server.metrics.audits._value.get()) == (2, 2)
        assert await server.control.history("flight") == [two, one]

    run(work)


def test_a_change_of_another_revision_is_stale(server: Server) -> None:
    """Before and after the one that holds; None changes whichever holds."""

    async def work() -> None:
        await put(server.control, 0, CANARY)
        before = server.files()
        for base in (0, 2):
            with pytest.raises(StaleRouteError, match=f"revision 1, which holds, got one of {base}") as caught:
                await shares(server.control, base, 0.5)
            assert caught.value.revision == 1
        assert (server.files(), server.obeyed().revision, server.announced) == (before, 1, 1)
        assert (await shares(server.control, None, 0.5)).after.revision == 2

    run(work)


def test_a_change_that_changes_nothing_is_none(server: Server) -> None:
    """No revision, no event, the same route before and after; a stale one is told so all the same."""

    async def work() -> None:
        first = (await put(server.control, 0, CANARY)).after
        before = server.files()
        assert await shares(server.control, 1, 0.1) == module.Changed(first, first)
        with pytest.raises(StaleRouteError):
            await shares(server.control, 0, 0.1)
        assert (server.files(), len(await server.audits())) == (before, 1)

    run(work)


@pytest.mark.parametrize("edited", [False, True])
def test_a_dry_run_writes_nothing(server: Server, edited: bool) -> None:
    """Neither a revision, an event, nor an edited document's adoption; it answers what would be."""

    async def work() -> None:
        if edited:
            server.edit(b'{"champion": "1", "revision": 6}')
        before = server.files()
        changed = await put(server.control, 6 if edited else 0, CANARY, dry_run=True)

        expected = Route(champion="1", revision=6) if edited else Route(champion="2", salt="flight")
        assert changed == module.Changed(expected, replaced(expected, CANARY))
        assert (server.files(), await server.audits(), server.announced) == (before, [], 0)
        assert server.obeyed().revision == 0

    run(work)


@pytest.mark.parametrize("dry_run", [False, True])
def test_every_fault_is_named_and_nothing_changes(server: Server, dry_run: bool) -> None:
    """Versions nobody knows, a champion that was refused, a unit that requests do not have."""
    server.repository.refuse("flight", "3", BundleError("damaged"))
    unknown = Route(champion="7", challengers=[Challenger(version="8"), Challenger(version="2")])
    cases = [
        (unknown, [f"expected versions among ['1', '2', '3'], got '{each}'" for each in "78"]),
        (Route(champion="3"), ["expected a champion that serves, got version '3', which was refused"]),
        (Route(champion="1", unit="input:tailnum"), None),
    ]

    async def work() -> None:
        before = server.files()
        for wanted, faults in cases:
            with pytest.raises(RouteError) as caught:
                await put(server.control, 0, wanted, dry_run=dry_run)
            assert len(caught.value.faults) == len(faults or [""])
            assert faults is None or caught.value.faults == faults
        assert "'carrier'" in str(caught.value)
        with pytest.raises(RouteError, match="challengers"):
            await shares(server.control, 0, 0.5)
        assert (server.files(), await server.audits(), server.obeyed().revision) == (before, [], 0)

    run(work)


def test_a_refused_version_may_be_a_challenger(server: Server) -> None:
    """It takes part once it serves; until then its part of the traffic is the champion's, with that propensity."""
    server.repository.refuse("flight", "3", BundleError("damaged"))
    wanted = Route(
        champion="1", challengers=[Challenger(version="3", mode="split", share=0.4), Challenger(version="2")]
    )

    async def work() -> None:
        await put(server.control, 0, wanted)

        route = server.traffic.routes["flight"]
        assert route.champion is not None
        assert route.lanes is not None
        assert (route.champion.share, route.lanes.owner(0.1)) == (1.0, route.champion)
        assert ([arm.name for arm in route.shadows], sorted(route.by_version)) == (["2"], ["1", "2"])
        gauge = server.metrics.route_share.labels("flight", "1", "champion")
        assert (gauge._value.get(), server.obeyed().splits[0].ranges) == (1.0, [(0.0, 0.4)])

    run(work)


def test_models_nobody_knows_are_unknown(server: Server) -> None:
    """To change and to read the history of; nothing is made of their name."""

    async def work() -> None:
        for ask in (
            server.control.change("nobody", None, lambda former: former, action="set", by=""),
            server.control.history("nobody"),
        ):
            with pytest.raises(UnknownModelError):
                await ask
        assert [path.name for path in server.models.iterdir()] == ["flight"]

    run(work)


@pytest.mark.parametrize(
    "document",
    [
        b'{"champion": "1"}',
        b'{"champion":"1","challengers":[{"version":"2","mode":"split","share":0.2,"ranges":[[0,0.1]]}]}',
        b'{"champion":"1","challengers":[{"version":"2","mode":"split","share":0.2,"ranges":[[0,0.5]]},'
        b'{"version":"3","mode":"split","share":0.3}]}',
        b'{"champion":"2","challengers":[{"version":"1","mode":"split","share":0.3333333333333}],"revision":9}',
    ],
    ids=["champion", "grown", "shrunk", "thirds"],
)
def test_an_edit_is_one_revision_and_one_event(server: Server, document: bytes) -> None:
    """However often and in however many processes it is looked at; its file is left as it is."""
    server.repository.put("flight", "3", server.repository.get("flight", "1"))
    workers = [server.control, server.worker(), server.worker()]

    async def look(times: int) -> None:
        for _ in range(times):
            await asyncio.gather(*(worker.follow(leading=worker is workers[1]) for worker in workers))

    async def work() -> None:
        await put(server.control, 0, Route(champion="2"))
        await look(1)
        first = server.obeyed()
        server.edit(document)
        await look(4)

        one, two = server.revisions()
        assert (two.base, two.by, two.action, two.reason) == (1, "file", "file", None)
        assert two.route.revision == max(2, decode_route(document).revision)
        assert {each.id for each in (one, two)} == server.routes.history("flight").audited
        assert told(await server.audits())[1:] == [(two.id, "route.file", "file", None, first, two.route)]
        assert [server.obeyed(worker) for worker in workers] == [two.route] * 3
        assert (server.folder / "route.json").read_bytes() == document
        assert [worker._traffic.faults for worker in workers] == [{}] * 3

    run(work)


def test_several_that_lead_adopt_an_edit_once(server: Server) -> None:
    """Two servers on one folder: exactly one revision, and a change beside it is of that revision."""
    workers = [server.worker() for _ in range(6)]
    server.edit(b'{"champion": "1"}')

    async def work() -> None:
        following = [worker.follow(leading=True) for worker in workers[:5]]
        *_, changed = await asyncio.gather(*following, put(workers[5], 1, CANARY))

        assert [each.action for each in server.revisions()] == ["file", "set"]
        assert changed.before == Route(champion="1", revision=1)
        assert len(await server.audits()) == 2

    run(work)


def test_a_change_goes_on_where_another_process_was_quicker_to_adopt(server: Server) -> None:
    """It is of the edit's revision, whoever has kept that."""

    async def work() -> None:
        server.edit(b'{"champion": "1"}')
        other = RouteFolder(server.models)

        def adopt() -> None:
            route = server.wanted("flight").route
            assert route is not None
            other.append(
                Revision(
                    id="other", model="flight", base=0, time=datetime.now(UTC), by="file", action="file", route=route
                ),
                other.read("flight")[0],
            )

        server.routes.rival = adopt
        changed = await put(server.control, 1, CANARY)

        assert [each.id for each in server.revisions()][:1] == ["other"]
        assert [each.route for each in server.revisions()] == [changed.before, changed.after]

    run(work)


def test_a_change_beside_a_faulty_edit_is_of_what_holds(server: Server) -> None:
    """Also in a process that has not looked since: the newest revision, not the one it obeys still."""
    other = server.worker()

    async def work() -> None:
        first = (await put(other, 0, CANARY)).after
        server.edit(b'{"champion": "7"}')

        assert (await shares(server.control, 1, 0.3)).before == first

    run(work)


def test_an_edit_is_a_revision_before_the_next_change(server: Server) -> None:
    """A change made while nobody has looked: the edit is not lost, and the change is of it."""

    async def work() -> None:
        server.edit(b'{"champion": "1", "revision": 4}')
        with pytest.raises(StaleRouteError, match="of revision 4, which holds, got one of 0"):
            await put(server.control, 0, CANARY)
        changed = await put(server.control, 4, CANARY)

        edit, change = server.revisions()
        assert (edit.route, change.route) == (changed.before, changed.after)
        assert [each[1:] for each in told(await server.audits())] == [
            ("route.file", "file", None, None, Route(champion="1", revision=4)),
            ("route.set", "ann", None, edit.route, change.route),
        ]

    run(work)


def test_who_does_not_lead_obeys_an_edit_and_does_not_keep_it(server: Server) -> None:
    """Keeping is for one process; the others see the same route from the same document."""

    async def work() -> None:
        server.edit(b'{"champion": "1", "revision": 4}')
        await server.control.follow(leading=False)

        assert (server.obeyed(), server.revisions()) == (Route(champion="1", revision=4), [])
        assert sorted(path.name for path in server.folder.iterdir()) == ["1", "2", "route.json"]

    run(work)


@pytest.mark.parametrize("document", [b"{", b'{"champion": "7"}'])
def test_a_faulty_edit_is_no_revision_and_the_next_change_mends_it(server: Server, document: bytes) -> None:
    """Torn, or naming what is not there: what held is obeyed, the fault told, a change replaces the document."""

    async def work() -> None:
        first = (await put(server.control, 0, CANARY)).after
        server.edit(document)
        for _ in range(2):
            await server.control.follow(leading=True)
        assert (server.obeyed(), len(server.revisions())) == (first, 1)
        assert "flight" in server.traffic.faults
        assert server.obeyed(server.worker()) == first

        changed = await shares(server.control, 1, 0.3)
        await server.control.follow(leading=True)

        assert (changed.before, server.obeyed(), server.traffic.faults) == (first, changed.after, {})
        assert (server.folder / "route.json").read_bytes() == format_route(changed.after)
        assert len(server.revisions()) == 2

    run(work)


def test_a_faulty_edit_becomes_a_revision_once_it_can_be_obeyed(server: Server) -> None:
    """Whoever copies the document first and the bundle second."""

    async def work() -> None:
        server.edit(b'{"champion": "3"}')
        await server.control.follow(leading=True)
        assert (server.revisions(), server.obeyed().revision) == ([], 0)
        server.repository.put("flight", "3", server.repository.get("flight", "1"))
        server.traffic.refresh("flight", server.wanted("flight"))
        await server.control.follow(leading=True)

        assert [each.route.champion for each in server.revisions()] == ["3"]

    run(work)


def test_one_of_twenty_changes_wins_and_all_processes_obey_it(server: Server) -> None:
    """Five processes, four changes each, all of revision 1: one holds, nineteen are told which does."""
    workers = [server.worker() for _ in range(5)]

    async def work() -> None:
        await put(workers[0], 0, CANARY)
        changes = [shares(workers[place % 5], 1, (place + 2) / 100, by=str(place)) for place in range(20)]
        results = await asyncio.gather(*changes, return_exceptions=True)

        won = [each for each in results if isinstance(each, module.Changed)]
        lost = [each for each in results if isinstance(each, StaleRouteError)]
        assert (len(won), len(lost), {each.revision for each in lost}) == (1, 19, {2})
        for worker in workers:
            await worker.follow(leading=False)
        assert [server.obeyed(worker) for worker in workers] == [won[0].after] * 5
        assert [each.route for each in server.revisions()][1:] == [won[0].after]
        assert len(await server.audits()) == 2

    run(work)


def test_a_look_does_not_undo_a_change(server: Server) -> None:
    """What was read before a change came to hold is not obeyed after it."""

    async def work() -> None:
        await put(server.control, 0, CANARY)
        server.edit(format_route(server.obeyed()) + b" ")
        server.routes.held_up = True
        looking = asyncio.create_task(server.control.follow(leading=False))
        await until(server.routes.reading.is_set)
        changing = asyncio.create_task(shares(server.control, 1, 0.4))
        await asyncio.wait([changing], timeout=0.1)
        server.routes.go_on.set()
        await looking
        changed = await changing

        assert server.obeyed() == changed.after

    run(work)


def test_what_a_swap_has_read_before_a_change_is_not_obeyed_after_it(server: Server) -> None:
    """A load takes its time, and has looked at the route at its beginning."""
    before = server.wanted("flight")

    async def work() -> None:
        await put(server.control, 0, CANARY)
        read = server.wanted("flight")
        changed = await shares(server.control, 1, 0.4)
        for earlier in (read, before):
            server.traffic.refresh_newer("flight", earlier)
            assert server.obeyed() == changed.after

    run(work)


def test_what_could_not_be_read_is_read_again(server: Server) -> None:
    """A fault of the system's that passes leaves files as they were: only another look tells."""
    other = server.worker()

    async def work() -> None:
        await put(other, 0, CANARY)
        server.routes.unreadable = True
        await server.control.follow(leading=False)
        assert (server.obeyed().revision, server.traffic.faults) == (0, {"flight": "too many open files"})
        server.routes.unreadable = False
        await server.control.follow(leading=False)

        assert (server.obeyed().revision, server.traffic.faults) == (1, {})

    run(work)


def test_a_folder_that_cannot_be_written_is_obeyed(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """The document counts, an edit of it too; changes are refused, and that it cannot be kept is said once."""

    async def work() -> None:
        (server.folder / ".route.lock").mkdir()
        server.edit(b'{"champion": "1", "revision": 4}')
        for _ in range(3):
            await server.control.follow(leading=True)
        with pytest.raises(RouteStoreError, match="nothing has changed"):
            await put(server.control, 4, CANARY)

        assert (server.obeyed(), server.announced) == (Route(champion="1", revision=4), 0)
        assert caplog.text.count("an edited route document could not be kept") == 1
        (server.folder / ".route.lock").rmdir()
        await server.control.follow(leading=True)
        assert [each.action for each in server.revisions()] == ["file"]

    run(work)


GUARDED = Route(
    champion="1", challengers=[Challenger(version="2", mode="split", share=0.3, guard=Guard(error_rate=0.1))]
)


def test_a_guard_takes_a_challenger_out_once(server: Server) -> None:
    """Of several processes whose breakers open at once, one changes the route: the others find it done."""
    workers = [server.worker() for _ in range(4)]

    async def work() -> None:
        await put(workers[0], 0, GUARDED)
        for worker in workers:
            await worker.follow(leading=False)
        for worker in workers * 2:
            worker.tripped("flight", "2", "9 of 10 failed")
        await until(lambda: not any(worker._trips for worker in workers))

        _, guard = server.revisions()
        assert [(each.version, each.share, each.ranges) for each in guard.route.challengers] == [("2", 0.0, [])]
        event = (await server.audits())[1]
        assert (event.id, event.data.action, event.data.by) == (guard.id, "route.guard", "guard")
        assert (event.data.reason, len(await server.audits())) == ("9 of 10 failed", 2)

    run(work)


def test_a_guard_of_what_has_left_the_route_changes_nothing(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """The champion is not taken out, even where it was the challenger a moment ago."""

    async def work() -> None:
        await put(server.control, 0, GUARDED)
        await server.control.change("flight", 1, lambda former: promoted(former, "2"), action="promote", by="ann")
        server.control.tripped("flight", "2", "9 of 10 failed")
        server.control.tripped("nobody", "2", "9 of 10 failed")
        await until(lambda: not server.control._trips)

        assert [each.action for each in server.revisions()] == ["set", "promote"]
        assert "model flight: the route could not" not in caplog.text

    run(work)


def test_a_guard_whose_change_cannot_be_kept_is_told(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """The breaker stays open; the reason is in the log."""

    async def work() -> None:
        await put(server.control, 0, GUARDED)
        (server.folder / ".route.lock").unlink()
        (server.folder / ".route.lock").mkdir()
        server.control.tripped("flight", "2", "9 of 10 failed")
        await until(lambda: not server.control._trips)

        assert "guard takes version 2 out of the traffic: 9 of 10 failed" in caplog.text
        assert "the route could not be changed" in caplog.text
        assert server.obeyed().splits[0].share == 0.3

    run(work)


def test_closing_ends_what_guards_have_begun(server: Server) -> None:
    """A change that waits for its turn is not made; nothing is left running."""

    async def work() -> None:
        await put(server.control, 0, GUARDED)
        async with server.control._one_at_a_time:
            server.control.tripped("flight", "2", "9 of 10 failed")
            await asyncio.wait(server.control._trips, timeout=0.05)
            await server.control.close()
        assert (server.control._trips, len(server.revisions())) == (set(), 1)

    run(work)


def died(server: Server, former: Route, share: float) -> Revision:
    """Returns a change whose writer died before it could tell the log."""
    revision = Revision(
        id=f"died-{share}",
        model="flight",
        base=former.revision,
        time=datetime.now(UTC),
        by="ann",
        action="shares",
        reason="a ramp",
        route=with_shares(former, {"2": share}),
    )
    server.routes.append(revision, server.routes.read("flight")[0])
    return revision


def test_what_a_dead_writer_owes_is_told_by_who_leads(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the revision's own id and time; not before its writer has had the time to, and once."""

    async def work() -> None:
        first = (await put(server.control, 0, CANARY)).after
        second = died(server, first, 0.2)
        third = died(server, second.route, 0.3)
        for _ in range(2):
            await server.control.follow(leading=True)
        assert len(await server.audits()) == 1
        monkeypatch.setattr(module, "AUDIT_S", 0.0)
        for _ in range(3):
            await server.control.follow(leading=True)

        assert told(await server.audits())[1:] == [
            (second.id, "route.shares", "ann", "a ramp", first, second.route),
            (third.id, "route.shares", "ann", "a ramp", second.route, third.route),
        ]
        assert [each.time for each in (await server.audits())[1:]] == [second.time, third.time]
        assert {second.id, third.id} <= server.routes.history("flight").audited

    run(work)


def test_who_begins_to_lead_tells_what_is_owed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that has seen the change long ago, and takes over from the one that died of it."""
    monkeypatch.setattr(module, "AUDIT_S", 0.0)

    async def work() -> None:
        owed = died(server, (await put(server.control, 0, CANARY)).after, 0.2)
        for _ in range(2):
            await server.control.follow(leading=False)
        assert (len(await server.audits()), server.obeyed()) == (1, owed.route)
        await server.control.follow(leading=True)

        assert [each.id for each in await server.audits()][1:] == [owed.id]

    run(work)


def test_a_change_that_the_log_refuses_holds_and_is_told_later(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As long as the log refuses it stays owed, which is said once; then it is told, with the same id."""
    monkeypatch.setattr(module, "AUDIT_S", 0.0)

    async def work() -> None:
        server.log.refuses = True
        changed = await put(server.control, 0, CANARY)
        for _ in range(4):
            await server.control.follow(leading=True)
        [revision] = server.revisions()
        assert (server.obeyed(), server.routes.history("flight").audited) == (changed.after, set())
        assert (await server.audits(), caplog.text.count("the audit event of revision 1 waits")) == ([], 1)

        server.log.refuses = False
        for _ in range(3):
            await server.control.follow(leading=True)

        assert [each.id for each in await server.audits()] == [revision.id]
        assert server.routes.history("flight").audited == {revision.id}

    run(work)


def test_an_event_that_cannot_be_marked_comes_again_with_its_id(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least once: readers drop duplicates by the event's id, and replay does not mind them."""
    monkeypatch.setattr(module, "AUDIT_S", 0.0)

    async def work() -> None:
        server.routes.unmarkable = True
        changed = await put(server.control, 0, CANARY)
        server.routes.unmarkable = False
        for _ in range(3):
            await server.control.follow(leading=True)

        events = await server.audits()
        assert [each.id for each in events] == [server.revisions()[0].id] * 2
        assert route_at(events, "flight", datetime.now(UTC)) == changed.after

    run(work)


def test_a_clock_that_is_set_back_makes_no_change_the_earlier_one(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The later change has at least the former's time; what is owed of a time to come is told all the same."""

    async def work() -> None:
        first = (await put(server.control, 0, CANARY)).after
        ahead = msgspec.structs.replace(
            server.revisions()[0], id="ahead", base=1, time=datetime.now(UTC) + timedelta(days=9)
        )
        ahead = msgspec.structs.replace(ahead, route=with_shares(first, {"2": 0.5}))
        server.routes.append(ahead, server.routes.read("flight")[0])
        last = await shares(server.control, 2, 0.6)
        await server.control.follow(leading=True)

        events = await server.audits()
        assert server.revisions()[-1].time == ahead.time
        assert sorted(each.id for each in events) == sorted(each.id for each in server.revisions())
        assert route_at(events, "flight", ahead.time) == last.after
        assert route_at(events, "flight", datetime.now(UTC)) == first

    run(work)


def test_the_route_of_any_past_moment_follows_from_the_log_alone(server: Server) -> None:
    """Changes of every kind, an edit among them, by several processes; no file but the log is read."""
    workers = [server.control, server.worker()]

    async def work() -> None:
        held: list[tuple[datetime, Route]] = []

        def note() -> None:
            held.append((datetime.now(UTC), server.wanted("flight").route or CANARY))

        for place, share in enumerate((0.1, 0.4, 0.2)):
            wanted = Route(champion="1", challengers=[Challenger(version="2", mode="split", share=share)])
            await put(workers[place % 2], None, wanted)
            note()
        server.edit(b'{"champion":"1","challengers":[{"version":"2","mode":"split","share":0.9,"ranges":[[0.1,0.2]]}]}')
        await workers[1].follow(leading=True)
        note()
        earlier = server.revisions()[0].route
        await workers[0].change("flight", None, lambda former: restored(former, earlier), action="rollback", by="ann")
        note()
        await workers[1].change("flight", None, lambda former: promoted(former, "2"), action="promote", by="ann")
        note()
        events = await server.audits()
        shutil.rmtree(server.folder)

        assert [each[1].revision for each in held] == [1, 2, 3, 4, 5, 6]
        assert [route_at(events[::-1], "flight", moment) for moment, _ in held] == [route for _, route in held]
        for event in events:
            assert route_at(events, "flight", event.time) == parsed(event.data.after)
            earlier_by = event.time - timedelta(microseconds=1)
            if event is not events[0]:
                assert route_at(events, "flight", earlier_by) == parsed(event.data.before)
        assert route_at(events, "flight", events[0].time - timedelta(seconds=1)) is None

    run(work)
