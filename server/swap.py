"""Changing what serves while it serves: load, verify, warm, switch, drain, free.

A change has two phases, so that several processes can agree on it: ``prepare`` does everything that
takes time or can fail and shows nothing of it; ``commit`` is one step of the event loop.
"""

import asyncio
import ctypes
import logging
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from server.bundles.repository import Repository, version_key
from server.bundles.store import BundleStore
from server.errors import BundleError, ConflictError, StoreError, UnknownModelError
from server.execution.session import Version
from server.identifiers import uuid7
from server.routing.wanted import Wanted
from server.traffic import Traffic

logger = logging.getLogger(__name__)

R = TypeVar("R")


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Versions of one model that are to serve, or to serve no longer."""

    id: str
    action: Literal["load", "unload"]
    model: str
    versions: list[str]


class RepositoryControl(Protocol):
    """How an endpoint or the watcher asks for a change; it holds for the whole server when it returns.

    ``leading`` says whether this process is the one that watches the store.
    """

    leading: bool

    async def load(self, model: str, version: str | None) -> None:
        """Makes a model's version serve, or with None all that the store has, or raises TiltyardError."""
        ...

    async def unload(self, model: str, version: str | None) -> None:
        """Ends a model's version, or with None all of them, or raises TiltyardError."""
        ...


class Swapper:
    """Carries out changes in this process, one at a time."""

    def __init__(
        self,
        store: BundleStore,
        repository: Repository[Version],
        traffic: Traffic,
        load: Callable[[Path], Version],
        wanted: Callable[[str], Wanted],
        drain_s: float,
    ) -> None:
        """load: returns a version, verified and warm, from its folder; wanted: what route a model is to have;
        drain_s: how long ``drained`` waits."""
        self._store = store
        self._repository = repository
        self._traffic = traffic
        self._load = load
        self._wanted = wanted
        self._drain_s = drain_s
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="bundle-loader")
        self._fingerprints: dict[tuple[str, str], tuple[object, ...] | None] = {}
        self._prepared: dict[str, tuple[dict[str, Version], Wanted]] = {}
        self._leaving: dict[str, list[asyncio.Event]] = {}

    def load_all(self, only: Iterable[tuple[str, str]] | None = None) -> None:
        """Loads every version of the store, or those named, before the event loop runs.

        One that fails is kept with its reason while the others serve.
        """
        found = self._store.versions()
        wanted = [(model, version) for model in sorted(found) for version in sorted(found[model], key=version_key)]
        for model, version in wanted if only is None else sorted(only):
            try:
                self._repository.put(model, version, self._fetch(model, version))
            except (BundleError, UnknownModelError) as error:
                logger.error("refused %s version %s: %s", model, version, error)
                self._repository.refuse(model, version, BundleError(str(error)))
        for model in self._repository.models():
            self._traffic.refresh(model, self._wanted(model))
        if not self._repository.models():
            logger.warning("models %s: found no bundle; every prediction will be answered 404", self._store.where)

    def loaded(self) -> list[tuple[str, str]]:
        """Returns model and version of all that are known, those that were refused included."""
        return [(model, name) for model in self._repository.models() for name in self._repository.known(model)]

    def fingerprints(self) -> dict[tuple[str, str], tuple[object, ...] | None]:
        """Returns what each known version was loaded from, None for one that was refused."""
        return {key: self._fingerprints.get(key) for key in self.loaded()}

    async def plan_load(self, model: str, version: str | None) -> Change:
        """Returns what loading a version, or with None all of a model's, means now; unchanged ones stay.

        Raises:
            UnknownModelError: the store has no such model or version.
        """
        return await self._in_loader(self._plan_load, model, version)

    def plan_unload(self, model: str, version: str | None) -> Change:
        """Returns what unloading means now.

        Raises:
            UnknownModelError: no such model or version is loaded.
            ConflictError: the model's route document names it.
        """
        known = self._repository.known(model)
        if version is not None and version not in known:
            raise UnknownModelError(f"model {model!r} has no version {version!r}: expected one of {known}")
        versions = known if version is None else [version]
        named = sorted(self._traffic.named(model).intersection(versions), key=version_key)
        if named:
            raise ConflictError(
                f"model {model!r}: expected versions that its route document does not name, got "
                f"{', '.join(named)}: change the route first"
            )
        return Change(id=uuid7(), action="unload", model=model, versions=versions)

    async def prepare(self, change: Change) -> None:
        """Does what takes time or can fail; requests see nothing of it.

        Raises:
            BundleError: a version cannot be served, or (StoreError) nobody can tell; nothing of the change is kept.
            UnknownModelError: a name that no bundle can have.
        """
        self._mark(change, "LOADING" if change.action == "load" else "UNLOADING")
        try:
            versions, faults, wanted = await self._in_loader(self._prepare, change)
        except BaseException:
            self._mark(change, None)
            raise
        if faults:
            self._mark(change, None)
            for version, fault in faults.items():
                self._repository.report(change.model, version, fault)
            raise BundleError("; ".join(faults.values()))
        self._prepared[change.id] = versions, wanted

    def commit(self, change: Change) -> None:
        """Switches: the next request meets the new state, those that have begun end in the old one."""
        versions, wanted = self._prepared.pop(change.id)
        self._mark(change, None)
        if change.action == "load":
            replaced = [self._repository.put(change.model, name, version) for name, version in versions.items()]
        else:
            replaced = [self._repository.remove(change.model, name) for name in change.versions]
        self._leaving[change.id] = [_freed(version) for version in replaced if version is not None]
        self._traffic.refresh_newer(change.model, wanted)
        if change.versions:
            logger.info("%sed %s version %s", change.action, change.model, ", ".join(change.versions))

    def abandon(self, change: Change) -> None:
        """Forgets a change that another process could not prepare."""
        self._prepared.pop(change.id, None)
        self._mark(change, None)

    async def drained(self, change: Change) -> None:
        """Returns once no request uses what the change replaced and its memory is free, or after drain_s."""
        leaving = self._leaving.pop(change.id, [])
        try:
            async with asyncio.timeout(self._drain_s):
                for freed in leaving:
                    await freed.wait()
        except TimeoutError:
            logger.warning("%s: requests still use what was replaced; it goes with the last of them", change.model)
        if leaving:
            await self._in_loader(_return_memory)

    def close(self) -> None:
        """Ends the loader's thread."""
        self._loader.shutdown(wait=True, cancel_futures=True)

    def _plan_load(self, model: str, version: str | None) -> Change:
        found = sorted(self._store.versions().get(model, []), key=version_key)
        if not found or (version is not None and version not in found):
            what = f"model {model!r}" if version is None or not found else f"model {model!r} version {version!r}"
            raise UnknownModelError(f"{what} is not in {self._store.where}: expected one of {found}")
        wanted = found if version is None else [version]
        return Change(
            id=uuid7(), action="load", model=model, versions=[name for name in wanted if self._differs(model, name)]
        )

    def _differs(self, model: str, version: str) -> bool:
        """Says whether the store has another bundle than the one that serves."""
        status = self._repository.status(model, version)
        if status is None or status.state != "READY":
            return True
        return self._fingerprints.get((model, version)) != self._store.fingerprint(model, version)

    def _prepare(self, change: Change) -> tuple[dict[str, Version], dict[str, str], Wanted]:
        versions, faults = {}, {}
        for version in change.versions if change.action == "load" else ():
            try:
                versions[version] = self._fetch(change.model, version)
            except StoreError:  # no fault of this version
                raise
            except BundleError as error:
                faults[version] = str(error)
        return versions, faults, self._wanted(change.model)

    def _fetch(self, model: str, version: str) -> Version:
        fingerprint = self._store.fingerprint(model, version)  # before: a later change is then seen as one
        loaded = self._load(self._store.fetch(model, version))
        self._fingerprints[model, version] = fingerprint
        return loaded

    def _mark(self, change: Change, state: Literal["LOADING", "UNLOADING"] | None) -> None:
        for version in change.versions:
            self._repository.mark(change.model, version, state)

    async def _in_loader(self, function: Callable[..., R], *arguments: Any) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._loader, function, *arguments)


class LocalControl:
    """Changes for a server of one process."""

    leading = True

    def __init__(self, swapper: Swapper) -> None:
        self._swapper = swapper
        self._one_at_a_time = asyncio.Lock()

    async def load(self, model: str, version: str | None) -> None:
        """Returns once the versions serve; see RepositoryControl."""
        async with self._one_at_a_time:
            await self._carry_out(await self._swapper.plan_load(model, version))

    async def unload(self, model: str, version: str | None) -> None:
        """Returns once the versions are gone; see RepositoryControl."""
        async with self._one_at_a_time:
            await self._carry_out(self._swapper.plan_unload(model, version))

    async def _carry_out(self, change: Change) -> None:
        await self._swapper.prepare(change)
        self._swapper.commit(change)
        await self._swapper.drained(change)


def _freed(version: Version) -> asyncio.Event:
    """Returns an event that is set once nothing refers to a version any more."""
    freed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(freed.set)

    weakref.finalize(version, tell).atexit = False
    return freed


def _return_memory() -> None:
    """Gives freed memory back to the system where the C library keeps it for itself, as glibc does."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
