"""How a change of a route stands in Kafka: a key of its own, and the revision as JSON."""

import msgspec

from server.bundles.names import is_bundle_name
from server.errors import RouteError
from server.routing.document import faults_in
from server.routing.revision import Revision, decode_revision, encode_revision

LARGEST_BYTES = 512 * 1024
"""A record's value at most; brokers take 1 MiB unless they are told otherwise."""

_LONGEST_ID = 200


def encode_record(revision: Revision) -> tuple[bytes, bytes]:
    """Returns a record's key and value.

    Raises:
        RouteError: no reader would accept the revision.
    """
    key, value = key_of(revision), encode_revision(revision)
    _check(revision, key, value)
    return key, value


def decode_record(key: bytes | None, value: bytes) -> Revision:
    """Returns the revision in a record.

    Raises:
        RouteError: it has none, one that nobody can use, or another than its key says.
    """
    try:
        revision = decode_revision(value)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RouteError(f"expected a revision in JSON, got: {error}") from error
    _check(revision, key, value)
    return revision


def key_of(revision: Revision) -> bytes:
    """Returns the key of a revision's record, which no other has: ``<model>/<revision>/<id>``."""
    return f"{revision.model}/{revision.number}/{revision.id}".encode()


def _check(revision: Revision, key: bytes | None, value: bytes) -> None:
    faults = []
    if not is_bundle_name(revision.model):
        faults.append(f"model: expected the plain name of a folder, got {revision.model!r}")
    if not 0 < len(revision.id) <= _LONGEST_ID:
        faults.append(f"id: expected 1 to {_LONGEST_ID} characters, got {len(revision.id)}")
    if revision.number <= revision.base:
        faults.append(f"expected a revision above its base {revision.base}, got {revision.number}")
    if key != key_of(revision):
        faults.append(f"expected the key {key_of(revision)!r}, got {key!r}")
    if len(value) > LARGEST_BYTES:
        faults.append(f"expected at most {LARGEST_BYTES} bytes, got {len(value)}")
    faults += faults_in(revision.route)
    if faults:
        raise RouteError.of(faults)
