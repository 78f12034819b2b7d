"""The bundles' manifests and baselines, read from MODELS/<model>/<version>/."""

import hashlib
import logging
from pathlib import Path

import msgspec

from monitor.errors import BundleError
from monitor.version_profile import VersionKey, VersionProfile
from server.contract.baseline import decode_baseline
from server.contract.manifest import BASELINE_FILE, MANIFEST_FILE, Manifest, decode_manifest

_logger = logging.getLogger(__name__)


class BundleFolder:
    """The profiles of every version found, and why the others were refused.

    ``profiles`` grows when a version is packed while the monitor runs; ``failures`` are sentences by version.
    ``unwatched`` are versions that serve without being watched: of tensors that are no table's rows there is
    no baseline to compare with.

    Args:
        path: the folder of models. It may be created later.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.profiles: dict[VersionKey, VersionProfile] = {}
        self.failures: dict[VersionKey, str] = {}
        self.unwatched: set[VersionKey] = set()

    def load_all(self) -> None:
        """Loads every version there is; logs and notes those that cannot be read."""
        for manifest in sorted(self._path.glob(f"*/*/{MANIFEST_FILE}")):
            self.load(VersionKey(manifest.parent.parent.name, manifest.parent.name))

    def load(self, key: VersionKey) -> VersionProfile | None:
        """Returns a version's profile, read now if it was not yet; None for one that cannot be, or is not watched."""
        if key in self.profiles:
            return self.profiles[key]
        if key in self.unwatched:
            return None
        if not _is_name(key.model) or not _is_name(key.version):
            return None
        folder = self._path / key.model / key.version
        if not (folder / MANIFEST_FILE).is_file():
            return None
        try:
            profile = read_profile(folder)
        except BundleError as error:
            if self.failures.get(key) != str(error):
                _logger.error("%s", error)
            self.failures[key] = str(error)
            return None
        self.failures.pop(key, None)
        if profile is None:
            _logger.info("not watching %s version %s: a bundle of tensors has no baseline", key.model, key.version)
            self.unwatched.add(key)
            return None
        self.profiles[key] = profile
        _logger.info("watching %s version %s", key.model, key.version)
        return profile

    def refuse(self, key: VersionKey, reason: str) -> None:
        """Stops using a version, for a reason that is shown."""
        _logger.error("%s", reason)
        self.profiles.pop(key, None)
        self.failures[key] = reason


def read_profile(folder: Path) -> VersionProfile | None:
    """Returns the profile of the version in a bundle's folder, None for a bundle of tensors, which has none.

    Raises:
        BundleError: a file is missing, is not what the manifest's digest says, or cannot be understood;
            the message names file and place.
    """
    manifest = _read_manifest(folder)
    if manifest.task == "tensors":
        return None
    path = folder / BASELINE_FILE
    data = _read(path)
    digest = manifest.files.get(BASELINE_FILE)
    if digest is None:
        raise BundleError(f"{folder / MANIFEST_FILE}: no digest of {BASELINE_FILE} - at `$.files`")
    found = hashlib.sha256(data).hexdigest()
    if found != digest.sha256:
        raise BundleError(f"{path}: expected SHA-256 {digest.sha256} as in {MANIFEST_FILE}, got {found}")
    try:
        return VersionProfile(manifest, decode_baseline(data))
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise BundleError(f"{path}: {error}") from error


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST_FILE
    try:
        manifest = decode_manifest(_read(path))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: {error}") from error
    if (manifest.model, manifest.version) != (folder.parent.name, folder.name):
        raise BundleError(
            f"{path}: expected model {folder.parent.name} version {folder.name}, as its folder says, "
            f"got {manifest.model} version {manifest.version}"
        )
    return manifest


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error


def _is_name(name: str) -> bool:
    # A version named by an event must not lead out of the folder.
    return bool(name) and name not in (".", "..") and not any(part in name for part in ("/", "\\", "\0"))
