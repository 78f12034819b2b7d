"""What to load and unload when the folders of a store change.

The watcher only decides; whoever asks it carries the changes out and tells it how they went.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from server.bundles.store import BundleStore
from server.errors import BundleError

Key = tuple[str, str]
Fingerprint = tuple[object, ...] | None


@dataclass(frozen=True, slots=True)
class Change:
    """A version that should serve as the store has it now, or serve no longer."""

    action: Literal["load", "unload"]
    model: str
    version: str


class Watcher:
    """Compares a store with what serves, scan by scan.

    A change counts once two scans in a row have seen the same: what is being copied grows between
    them, and what is being replaced may be gone for a moment. A version that failed to load is tried
    again only when its files change; one that could not be unloaded is announced in every scan.

    A store without any bundle, while some of its versions serve, is taken for a volume that is not
    mounted, which looks no different: nothing is unloaded.
    """

    def __init__(self, store: BundleStore, loaded: Mapping[Key, Fingerprint]) -> None:
        """loaded: the versions that are known, with the fingerprints they were loaded from; None for a refused one."""
        self._store = store
        self._known = set(loaded)
        self._serving = {key for key, fingerprint in loaded.items() if fingerprint is not None}
        self._tried = dict(loaded)
        self._seen: dict[Key, Fingerprint] = {}
        self._announced: dict[Key, Change] = {}
        self.fault: str | None = None

    def scan(self) -> list[Change]:
        """Returns what should change now: first loads, so that a successor serves before its model's last version goes.

        When the store or a part of it cannot be read, or has nothing where something serves, ``fault``
        then says so and nothing changes there.
        """
        self.fault = None
        try:
            found = {(model, version) for model, versions in self._store.versions().items() for version in versions}
        except BundleError as error:
            self.fault = str(error)
            return []
        if self._serving and not found:
            self.fault = (
                f"models {self._store.where}: expected bundles, of which {len(self._serving)} serve, found none, as "
                "where a volume is not mounted: nothing is unloaded; to end the last of them, stop the server"
            )
            return []
        changes = []
        for key in sorted(found | self._known | set(self._seen)):
            try:
                change = self._look(key)
            except BundleError as error:
                self.fault = str(error)
                continue
            if change is not None:
                self._announced[key] = change
                changes.append(change)
        return sorted(changes, key=lambda change: change.action == "unload")

    def loaded(self, model: str, version: str) -> None:
        """Notes that the change last announced of a version was carried out, be it a load or an unload."""
        key = (model, version)
        change = self._announced.pop(key)
        if change.action == "load":
            self._known.add(key)
            self._serving.add(key)
        else:
            self._forget(key)

    def failed(self, model: str, version: str) -> None:
        """Notes that the change last announced of a version could not be carried out."""
        self._announced.pop((model, version))

    def _look(self, key: Key) -> Change | None:
        """Returns the change that a version needs, if any."""
        fingerprint = self._store.fingerprint(*key)
        settled = key in self._seen and self._seen[key] == fingerprint
        self._seen[key] = fingerprint
        if fingerprint is None:
            if key not in self._known:
                self._forget(key)
                return None
            return Change("unload", *key) if settled else None
        if fingerprint == self._tried.get(key):
            return None
        if self._store.missing(*key) is not None or not settled:
            return None
        self._tried[key] = fingerprint
        return Change("load", *key)

    def _forget(self, key: Key) -> None:
        self._known.discard(key)
        self._serving.discard(key)
        self._seen.pop(key, None)
        self._tried.pop(key, None)
