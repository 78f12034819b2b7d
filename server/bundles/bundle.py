"""One bundle on disk: its manifest read, every file's digest verified, its examples decoded."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from server.contract.manifest import (
    EXAMPLES_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    Examples,
    Manifest,
    decode_examples,
    decode_manifest,
)
from server.errors import BundleError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose files are what its manifest says they are."""

    folder: Path
    manifest: Manifest
    model: bytes
    examples: Examples


def read_bundle(folder: Path) -> Bundle:
    """Returns the bundle in ``MODELS/<model>/<version>/``.

    Raises:
        BundleError: a file is missing or unreadable, differs from its digest, or contradicts the
            folder's names.
    """
    manifest = decode_file(folder / MANIFEST_FILE, _read(folder / MANIFEST_FILE), decode_manifest)
    for name, got in (("model", folder.parent.name), ("version", folder.name)):
        said = getattr(manifest, name)
        if said != got:
            raise BundleError(f"{folder / MANIFEST_FILE}: expected {name} {got!r} as its folder, got {said!r}")
    for name in (MODEL_FILE, EXAMPLES_FILE):
        if name not in manifest.files:
            raise BundleError(f"{folder / MANIFEST_FILE}: expected the digest of {name} in files, got none")
    files = {name: _verified(folder, name, manifest) for name in manifest.files}
    examples = decode_file(folder / EXAMPLES_FILE, files[EXAMPLES_FILE], decode_examples)
    return Bundle(folder=folder, manifest=manifest, model=files[MODEL_FILE], examples=examples)


def _verified(folder: Path, name: str, manifest: Manifest) -> bytes:
    """Returns a file's bytes once they match the manifest; names cannot leave the folder."""
    if name != Path(name).name:
        raise BundleError(f"{folder / MANIFEST_FILE}: expected a plain file name in files, got {name!r}")
    data = _read(folder / name)
    digest = hashlib.sha256(data).hexdigest()
    expected = manifest.files[name].sha256
    if digest != expected:
        raise BundleError(f"{folder / name}: expected SHA-256 {expected}, got {digest}: it was damaged or changed")
    return data


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: expected a readable file, got: {error.strerror}") from error
    except ValueError as error:  # a null byte in a name that the manifest gives
        raise BundleError(f"{str(path)!r}: expected a readable file, got a name that no file has: {error}") from error


def decode_file(path: Path | str, data: bytes, decode: Callable[[bytes], T]) -> T:
    """Returns what a bundle's JSON file says, or raises BundleError with its path."""
    try:
        return decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: {error}") from error
    except RecursionError as error:
        raise BundleError(f"{path}: expected JSON of modest depth, got a file nested too deeply") from error
