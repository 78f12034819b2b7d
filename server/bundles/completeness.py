"""Whether a bundle that is being copied is all there, as far as sizes can tell."""

from collections.abc import Mapping

from server.bundles.bundle import decode_file
from server.contract.manifest import MANIFEST_FILE, decode_manifest
from server.errors import BundleError


def shortfall(where: str, manifest: bytes, sizes: Mapping[str, int | None]) -> str | None:
    """Returns what a bundle still lacks, None when every file has the size that its manifest gives.

    Args:
        where: the bundle's folder, for the sentence.
        manifest: the bytes of its ``bundle.json`` as they are now.
        sizes: its files' sizes in bytes, None where the store does not tell.
    """
    try:
        listed = decode_file(f"{where}/{MANIFEST_FILE}", manifest, decode_manifest).files
    except BundleError as error:
        return str(error)
    for name, digest in listed.items():
        if name not in sizes:
            return f"{where}/{name}: expected {digest.size_bytes} bytes, found no such file yet"
        size = sizes[name]
        if size is not None and size < digest.size_bytes:
            return f"{where}/{name}: expected {digest.size_bytes} bytes, got {size} so far"
    return None
