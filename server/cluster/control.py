"""A worker's side of changes of the repository: it asks for them, and carries out its part of everyone's."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable

from server.cluster.messages import (
    Abandon,
    Ask,
    Commit,
    Drained,
    Fault,
    FromWorker,
    Lead,
    Outcome,
    Plan,
    Planned,
    Prepared,
    Turn,
)
from server.errors import TiltyardError
from server.swap import Change, Swapper

logger = logging.getLogger(__name__)


class ClusterControl:
    """A RepositoryControl whose changes hold in all workers."""

    def __init__(self, swapper: Swapper, send: Callable[[FromWorker], None]) -> None:
        """swapper: of this process; send: takes messages to the supervisor."""
        self.leading = False
        self._swapper = swapper
        self._send = send
        self._asks = itertools.count(1)
        self._asked: dict[int, tuple[asyncio.Future[None], asyncio.Future[Fault | None]]] = {}
        self._changes: dict[str, tuple[Change, asyncio.Task[None]]] = {}
        self._drains: set[asyncio.Task[None]] = set()

    async def load(self, model: str, version: str | None) -> None:
        """Returns once the versions serve in every worker; see swap.RepositoryControl."""
        await self._change(lambda: self._swapper.plan_load(model, version))

    async def unload(self, model: str, version: str | None) -> None:
        """Returns once the versions are gone from every worker; see swap.RepositoryControl."""

        async def plan() -> Change:
            return self._swapper.plan_unload(model, version)

        await self._change(plan)

    async def _change(self, plan: Callable[[], Awaitable[Change]]) -> None:
        loop = asyncio.get_running_loop()
        ask = next(self._asks)
        turn, outcome = self._asked[ask] = loop.create_future(), loop.create_future()
        planned: Plan | None = None
        try:
            self._send(Ask(ask=ask))
            try:
                await turn
                change = await plan()
                planned = Plan(change=change.id, action=change.action, model=change.model, versions=change.versions)
            finally:
                if turn.done() and not turn.cancelled():  # everyone else waits for this word
                    self._send(Planned(ask=ask, plan=planned))
            fault = await outcome
        finally:
            del self._asked[ask]
        if fault is not None:
            raise fault.error()

    def receive(self, message: Turn | Outcome | Plan | Commit | Abandon | Lead) -> None:
        """Does what the supervisor says."""
        match message:
            case Turn():
                self._take_turn(message.ask)
            case Outcome():
                if message.ask in self._asked and not self._asked[message.ask][1].done():
                    self._asked[message.ask][1].set_result(message.fault)
            case Plan():
                change = Change(
                    id=message.change, action=message.action, model=message.model, versions=message.versions
                )
                self._changes[change.id] = change, asyncio.create_task(self._prepare(change))
            case Commit():
                change, _ = self._changes.pop(message.change)
                self._swapper.commit(change)
                drain = asyncio.create_task(self._drain(change))
                self._drains.add(drain)
                drain.add_done_callback(self._drains.discard)
            case Abandon():
                change, prepare = self._changes.pop(message.change)
                # It may still be at it, where another worker was the one to fail.
                prepare.add_done_callback(lambda task: self._swapper.abandon(change))
            case Lead():
                self.leading = True

    def _take_turn(self, ask: int) -> None:
        turn, _ = self._asked.get(ask, (None, None))
        if turn is None or turn.done():  # whoever asked has gone
            self._send(Planned(ask=ask, plan=None))
        else:
            turn.set_result(None)

    async def _prepare(self, change: Change) -> None:
        fault = None
        try:
            await self._swapper.prepare(change)
        except TiltyardError as error:
            fault = Fault.of(error)
        except Exception:
            logger.exception("could not prepare to %s %s", change.action, change.model)
            fault = Fault.of(TiltyardError(f"a worker failed to {change.action} {change.model}; its log says more"))
        self._send(Prepared(change=change.id, fault=fault))

    async def _drain(self, change: Change) -> None:
        await self._swapper.drained(change)
        self._send(Drained(change=change.id))
