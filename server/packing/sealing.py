"""The manifest of a bundle's files: the digest of each, so that no other can take its place."""

import hashlib
from collections.abc import Mapping

import msgspec

from server.contract.manifest import MANIFEST_FILE, FileDigest, Manifest, decode_manifest


def sealed(manifest: Manifest, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Returns the files with the manifest beside them, which has the digest of each.

    Raises:
        msgspec.ValidationError: the manifest contradicts itself.
    """
    digests = {
        name: FileDigest(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
        for name, content in files.items()
    }
    written = msgspec.json.encode(msgspec.structs.replace(manifest, files=digests))
    decode_manifest(written)
    return {**files, MANIFEST_FILE: msgspec.json.format(written, indent=2) + b"\n"}
