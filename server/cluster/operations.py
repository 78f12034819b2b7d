"""Changes of the repository over all workers: every one of them prepares, then all switch, or none does."""

import asyncio
import logging
import signal
from typing import Literal

from server.cluster.member import Member
from server.cluster.messages import (
    Abandon,
    Commit,
    Drained,
    Fault,
    Lead,
    Outcome,
    Plan,
    Planned,
    Prepared,
    Serve,
    Turn,
)
from server.errors import NotReadyError
from server.identifiers import uuid7

logger = logging.getLogger(__name__)

PLAN_S = 60.0
PREPARE_S = 300.0
GRACE_S = 5.0


class Operations:
    """One change at a time, and what all workers are to serve when none is under way."""

    def __init__(self, drain_s: float) -> None:
        """drain_s: how long a worker waits for requests that use what a change has replaced."""
        self._drained_s = drain_s + GRACE_S
        self._one_at_a_time = asyncio.Lock()
        self._members: list[Member] = []
        self._leader: Member | None = None
        # Version by version, the number of the change that loaded it last; None until the first worker has loaded.
        self._settled: dict[tuple[str, str], int] | None = None
        self.revision = 0

    def serving(self) -> list[tuple[str, str]] | None:
        """Returns model and version of all that should be loaded, None while that is for a worker to find out."""
        return None if self._settled is None else sorted(self._settled)

    async def join(self, member: Member, known: list[tuple[str, str]]) -> None:
        """Lets a worker serve, once it has what the others have."""
        async with self._one_at_a_time:
            if self._settled is None:
                self._settled = dict.fromkeys(known, 0)
            for plan in self._missed(member, set(known)):
                fault = await self._change(plan, [member])
                if fault is not None:
                    logger.error("worker %d cannot %s %s: %s", member.slot, plan.action, plan.model, fault.text)
            self._members.append(member)
            member.send(Serve())
            self._elect()

    def leave(self, member: Member) -> None:
        """Forgets a worker that has ended."""
        if member in self._members:
            self._members.remove(member)
        if member is self._leader:
            self._leader = None
            self._elect()

    async def carry_out(self, asker: Member, ask: int) -> None:
        """Gives a worker its turn, and makes what it then plans hold in all of them."""
        async with self._one_at_a_time:
            try:
                planned = await asker.request(Turn(ask=ask), Planned, ask, PLAN_S)
            except TimeoutError:
                asker.send(Outcome(ask=ask, fault=_late(asker, "say what to change", PLAN_S)))
                return
            if planned is None or planned.plan is None:
                return
            fault = await self._change(planned.plan, list(self._members))
            if fault is None:
                self._settle(planned.plan)
            asker.send(Outcome(ask=ask, fault=fault))

    async def _change(self, plan: Plan, members: list[Member]) -> Fault | None:
        """Returns None once a change holds in all members, or why it holds in none; one that ends is left out."""
        faults = [fault for fault in await asyncio.gather(*(self._prepare(plan, each) for each in members)) if fault]
        if faults:
            for member in members:
                member.send(Abandon(change=plan.change))
            return faults[0]
        await asyncio.gather(*(self._commit(plan, each) for each in members))
        return None

    async def _prepare(self, plan: Plan, member: Member) -> Fault | None:
        try:
            prepared = await member.request(plan, Prepared, plan.change, PREPARE_S)
        except TimeoutError:
            return _late(member, f"{plan.action} {plan.model}", PREPARE_S)
        return prepared.fault if prepared else None

    async def _commit(self, plan: Plan, member: Member) -> None:
        try:
            await member.request(Commit(change=plan.change), Drained, plan.change, self._drained_s)
        except TimeoutError:  # whatever it serves now, its successor serves what the others do
            logger.error("worker %d did not switch within %g s and is ended", member.slot, self._drained_s)
            member.signal(signal.SIGKILL)

    def _settle(self, plan: Plan) -> None:
        assert self._settled is not None
        self.revision += 1
        for version in plan.versions:
            if plan.action == "load":
                self._settled[plan.model, version] = self.revision
            else:
                self._settled.pop((plan.model, version), None)

    def _missed(self, member: Member, known: set[tuple[str, str]]) -> list[Plan]:
        """Returns the changes that bring a worker to what is settled: it began to load some time ago."""
        assert self._settled is not None
        late = {key for key, revision in self._settled.items() if revision > member.revision}
        wanted: tuple[tuple[Literal["load", "unload"], set[tuple[str, str]]], ...] = (
            ("load", late | (self._settled.keys() - known)),
            ("unload", known - self._settled.keys()),
        )
        return [
            Plan(change=uuid7(), action=action, model=model, versions=[version])
            for action, keys in wanted
            for model, version in sorted(keys)
        ]

    def _elect(self) -> None:
        """Makes a worker watch the store, where none does."""
        if self._leader is None and self._members:
            self._leader = min(self._members, key=lambda member: member.slot)
            self._leader.send(Lead())


def _late(member: Member, what: str, within_s: float) -> Fault:
    return Fault.of(NotReadyError(f"worker {member.slot}: expected to {what} within {within_s:g} s, still at it"))
