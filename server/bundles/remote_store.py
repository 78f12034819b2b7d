"""Bundles behind a URL that fsspec knows, kept on disk by the digest of their manifest.

Nothing that comes from the store is trusted: names are plain or refused, a file is never larger than
its manifest says, and no file is used before its SHA-256 is the manifest's.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urlsplit

from server.bundles.bundle import decode_file
from server.bundles.completeness import shortfall
from server.bundles.names import check_model, check_version, is_bundle_name, is_file_name
from server.contract.manifest import MANIFEST_FILE, FileDigest, Manifest, decode_manifest
from server.errors import BundleError, RouteError, SettingsError, StoreError

ROUTE_FILE = "route.json"
DOCUMENT_BYTES = 16 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024
CONNECT_S = 10.0
READ_S = 30.0

# What the drivers' listings tell of a file beside its size; none has all of them.
_STAMPS = ("ETag", "etag", "generation", "LastModified", "Last-Modified", "updated", "mtime", "modified", "created")


class RemoteStore:
    """Bundles at ``URL/<model>/<version>/``. Any method may block for as long as the network takes."""

    def __init__(self, url: str, cache: Path) -> None:
        """Makes the driver; the store itself is not asked yet.

        Args:
            url: such as ``s3://bucket/models``, ``gs://…``, ``https://…`` with directory listings.
            cache: the folder that keeps what was fetched; made when it is needed.

        Raises:
            SettingsError: the URL's scheme is unknown, its driver is not installed, or refuses it.
        """
        split = urlsplit(url)
        self._secret = split.netloc.rpartition("@")[0]
        self.where = self._without_secret(url)
        self._http = split.scheme in ("http", "https")
        if self._http and (split.query or split.fragment):
            shown = self.where.partition("?")[0].partition("#")[0]
            raise SettingsError(f"models {shown}: expected a URL without ? and #")
        self._files, root = _driver(url, split.scheme, self.where)
        self._root = root.rstrip("/")
        self._cache = cache

    def versions(self) -> dict[str, list[str]]:
        """Returns the versions of every model, or raises BundleError when the store cannot be listed."""
        found = {}
        for model in self._folders(self._root):
            versions = self._folders(self._path(model), absent_is_empty=True)
            if versions:
                found[model] = versions
        return found

    def fetch(self, model: str, version: str) -> Path:
        """Returns the folder in the cache that holds the version, downloaded where it was not there yet.

        Raises:
            BundleError: the store has no such bundle, cannot be reached, or sends another one than its
                manifest says.
        """
        check_version(model, version)
        place = self._path(model, version, MANIFEST_FILE)
        data = self._read(place)
        manifest = decode_file(self._without_secret(place), data, decode_manifest)
        for name in manifest.files:
            if not is_file_name(name) or name == MANIFEST_FILE:
                raise BundleError(f"{self._without_secret(place)}: expected a plain file name in files, got {name!r}")
        kept = self._cache / hashlib.sha256(data).hexdigest()
        folder = kept / model / version
        try:
            with _alone(kept):
                if not _complete(folder, data, manifest):
                    self._download(self._path(model, version), folder, data, manifest)
        except OSError as error:
            raise BundleError(f"{folder}: expected a cache that can be written, got: {error.strerror}") from error
        return folder

    def fingerprint(self, model: str, version: str) -> tuple[object, ...] | None:
        """Returns names, sizes and entity tags or times of a version's files, None when it is gone."""
        check_version(model, version)
        found = self._list_files(model, version)
        if found is None:
            return None
        return tuple((name, info["size"], *(str(info.get(stamp)) for stamp in _STAMPS)) for name, info in found)

    def missing(self, model: str, version: str) -> str | None:
        """Returns why a version is not complete yet, None when by its files' sizes it is."""
        check_version(model, version)
        place = self._path(model, version)
        sizes = {name: info["size"] for name, info in self._list_files(model, version) or ()}
        if MANIFEST_FILE not in sizes:
            return f"{self._without_secret(place)}/{MANIFEST_FILE}: expected a manifest, found none yet"
        return shortfall(self._without_secret(place), self._read(f"{place}/{MANIFEST_FILE}"), sizes)

    def read_route(self, model: str) -> bytes | None:
        """Returns a model's route document, None where there is none, or raises RouteError."""
        check_model(model)
        try:
            return self._read(self._path(model, ROUTE_FILE))
        except BundleError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise RouteError(str(error)) from error

    def _path(self, *names: str) -> str:
        return "/".join([self._root, *(quote(name, safe="") if self._http else name for name in names)])

    def _without_secret(self, text: str) -> str:
        return text.replace(f"{self._secret}@", "") if self._secret else text

    def _folders(self, place: str, absent_is_empty: bool = False) -> list[str]:
        """Returns the names of the folders in a place; one that is not there raises, or has none."""
        with self._reaching(place):
            try:
                entries = self._files.ls(f"{place}/", detail=True)
            except FileNotFoundError:
                if absent_is_empty:
                    return []
                raise
        names = [self._name(place, entry["name"]) for entry in entries if entry["type"] == "directory"]
        return sorted({name for name in names if is_bundle_name(name)})

    def _list_files(self, model: str, version: str) -> list[tuple[str, dict[str, Any]]] | None:
        """Returns a version's files by name with their sizes (None where not told), None when it is gone."""
        place = self._path(model, version)
        with self._reaching(place):
            try:
                entries = self._files.ls(f"{place}/", detail=True)
            except FileNotFoundError:
                return None
            files = {self._name(place, entry["name"]): entry for entry in entries if entry["type"] == "file"}
            plain = sorted((name, entry) for name, entry in files.items() if is_file_name(name))
            if self._http:  # a listing of links tells neither sizes nor times
                plain = [(name, self._files.info(self._path(model, version, name))) for name, _ in plain]
        # An object store has no folders: when the last of its objects has gone, so has the version.
        return plain or None

    def _name(self, place: str, entry: str) -> str:
        """Returns an entry's name in its folder; "" for one that is not in it."""
        name = entry.removeprefix(f"{place}/").removesuffix("/")
        return "" if "/" in name else unquote(name) if self._http else name

    def _read(self, place: str) -> bytes:
        """Returns a document's bytes."""
        with self._reaching(place), self._open(place) as remote:
            data = b"".join(_bounded(remote, DOCUMENT_BYTES, self._without_secret(place)))
        return data

    def _download(self, place: str, folder: Path, data: bytes, manifest: Manifest) -> None:
        """Makes a folder of the cache: written beside it, verified, synced, and renamed when it is whole."""
        partial = folder.with_name(f".{folder.name}.partial")
        for left_over in (partial, folder):
            if left_over.exists():
                shutil.rmtree(left_over)
        partial.mkdir(parents=True)
        try:
            for name, digest in manifest.files.items():
                remote = f"{place}/{quote(name, safe='') if self._http else name}"
                self._download_file(remote, partial / name, digest)
            with (partial / MANIFEST_FILE).open("xb") as file:
                file.write(data)
                _sync(file)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _download_file(self, place: str, path: Path, expected: FileDigest) -> None:
        said = self._without_secret(place)
        digest = hashlib.sha256()
        size = 0
        with path.open("xb") as file:
            with self._reaching(place), self._open(place) as remote:
                for chunk in _bounded(remote, expected.size_bytes, said):
                    digest.update(chunk)
                    size += len(chunk)
                    file.write(chunk)
            _sync(file)
        if size != expected.size_bytes:
            raise BundleError(f"{said}: expected {expected.size_bytes} bytes, got {size}")
        if digest.hexdigest() != expected.sha256:
            raise BundleError(
                f"{said}: expected SHA-256 {expected.sha256}, got {digest.hexdigest()}: it was damaged or changed"
            )

    def _open(self, place: str) -> Any:
        # Over HTTP a block size of 0 is one plain GET, and a size spares the request that asks for it.
        return self._files.open(place, "rb", **({"block_size": 0, "size": 1} if self._http else {}))

    @contextmanager
    def _reaching(self, place: str) -> Iterator[None]:
        """Makes whatever a driver raises a BundleError that names the place."""
        said = self._without_secret(place)
        try:
            yield
        except BundleError:
            raise
        except FileNotFoundError as error:
            raise BundleError(f"{said}: expected a file or folder of the store, found none") from error
        except Exception as error:  # the drivers' errors share no class but Exception
            reason = self._without_secret(str(error)) or type(error).__name__
            raise StoreError(f"{said}: expected a store that answers, got: {reason}") from error


def _driver(url: str, scheme: str, where: str) -> tuple[Any, str]:
    """Returns fsspec's file system for a URL and the URL's place in it, or raises SettingsError."""
    install = "run: pip install 'tiltyard[remote]'"
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    try:
        # Optional extra `remote`, which a server of local bundles does not need.
        import fsspec

        if scheme in ("http", "https"):
            import aiohttp

            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=READ_S)
            options.update(simple_links=False, client_kwargs={"timeout": timeout})
        files = fsspec.filesystem(scheme, **options)
        return files, files._strip_protocol(url)
    except ImportError as error:
        raise SettingsError(f"models {where}: expected fsspec and its driver for {scheme}://, {install}") from error
    except Exception as error:  # an unknown scheme is a ValueError; a driver may refuse in its own way
        reason = str(error).replace(url, where)
        raise SettingsError(f"models {where}: expected a URL that fsspec knows, got: {reason}") from error


def _bounded(remote: BinaryIO, size_bytes: int, place: str) -> Iterator[bytes]:
    """Yields a file's bytes in pieces, and refuses more of them than it may have."""
    left = size_bytes
    while chunk := remote.read(min(CHUNK_BYTES, left + 1)):
        left -= len(chunk)
        if left < 0:
            raise BundleError(f"{place}: expected at most {size_bytes} bytes, got more")
        yield chunk


@contextmanager
def _alone(kept: Path) -> Iterator[None]:
    """Lets one process at a time fill a folder of the cache; the system frees the lock of one that dies."""
    kept.mkdir(parents=True, exist_ok=True)
    with (kept / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _complete(folder: Path, data: bytes, manifest: Manifest) -> bool:
    """Says whether a folder of the cache holds a bundle's every file undamaged."""
    try:
        return (folder / MANIFEST_FILE).read_bytes() == data and all(
            _digest(folder / name) == digest.sha256 for name, digest in manifest.files.items()
        )
    except OSError:  # never downloaded, or somebody tidied up
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
