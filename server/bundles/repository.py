"""Which versions of which models are loaded, and why the others are not.

The repository only remembers. Where bundles come from is the store's business, how one becomes
something that answers the loader's, and when that happens the swap's.
"""

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from server.errors import BundleError, NotReadyError, UnknownModelError

V = TypeVar("V")
State = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]


@dataclass(frozen=True, slots=True)
class Status:
    """What a version is at, and for an unavailable one why."""

    state: State
    reason: str = ""


class Repository(Generic[V]):
    """The versions of all models: those that serve, and those refused with the reason."""

    def __init__(self) -> None:
        self._versions: dict[str, dict[str, V | BundleError]] = {}
        self._changing: dict[tuple[str, str], State] = {}
        self._reports: dict[tuple[str, str], str] = {}

    def put(self, model: str, version: str, loaded: V) -> V | None:
        """Makes a version serve; returns the one it replaces."""
        versions = self._versions.setdefault(model, {})
        former = versions.get(version)
        versions[version] = loaded
        self._reports.pop((model, version), None)
        return None if isinstance(former, BundleError) else former

    def refuse(self, model: str, version: str, reason: BundleError) -> None:
        """Keeps a version that should serve and cannot, with the reason."""
        self._versions.setdefault(model, {})[version] = reason

    def report(self, model: str, version: str, reason: str) -> None:
        """Notes why a version could not be loaded while the server runs; what serves is untouched."""
        self._reports[model, version] = reason

    def remove(self, model: str, version: str) -> V | None:
        """Forgets a version; returns what served under its name."""
        versions = self._versions.get(model, {})
        former = versions.pop(version, None)
        self._reports.pop((model, version), None)
        if not versions:
            self._versions.pop(model, None)
        return None if isinstance(former, BundleError) else former

    def mark(self, model: str, version: str, state: State | None) -> None:
        """Notes that a version is being loaded or unloaded; None ends that."""
        if state is None:
            self._changing.pop((model, version), None)
        else:
            self._changing[model, version] = state

    def models(self) -> list[str]:
        """Returns the names of all models, those without a serving version included."""
        return sorted(self._versions)

    def versions(self, model: str) -> list[str]:
        """Returns a model's versions that serve, oldest first, or raises UnknownModelError."""
        found = self._of(model)
        return sorted(
            (name for name, version in found.items() if not isinstance(version, BundleError)), key=version_key
        )

    def known(self, model: str) -> list[str]:
        """Returns all of a model's versions, the refused ones included, or raises UnknownModelError."""
        return sorted(self._of(model), key=version_key)

    def get(self, model: str, version: str) -> V:
        """Returns a version that serves.

        Raises:
            UnknownModelError: no such model or version.
            NotReadyError: the version is there but was refused.
        """
        found = self._of(model)
        if version not in found:
            raise UnknownModelError(
                f"model {model!r} has no version {version!r}: expected one of {sorted(found, key=version_key)}"
            )
        entry = found[version]
        if isinstance(entry, BundleError):
            raise NotReadyError(f"model {model!r} version {version!r} does not serve: its bundle was refused")
        return entry

    def status(self, model: str, version: str) -> Status | None:
        """Returns what a version is at, None for one of which nothing is known."""
        entry = self._versions.get(model, {}).get(version)
        changing = self._changing.get((model, version))
        if changing is not None:
            return Status(changing)
        if entry is None:
            reason = self._reports.get((model, version))
            return None if reason is None else Status("UNAVAILABLE", reason)
        return Status("UNAVAILABLE", str(entry)) if isinstance(entry, BundleError) else Status("READY")

    def _of(self, model: str) -> dict[str, V | BundleError]:
        try:
            return self._versions[model]
        except KeyError:
            raise UnknownModelError(f"model {model!r} is unknown: expected one of {self.models()}") from None


def version_key(version: str) -> tuple[int, int, str]:
    """Returns a sort key that puts numbers in their order, before all other names."""
    return (0, int(version), "") if version.isdecimal() else (1, 0, version)
