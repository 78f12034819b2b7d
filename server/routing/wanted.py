"""What a model's route should be, out of its document, which people may edit, and its newest revision."""

import hashlib
from dataclasses import dataclass

import msgspec

from server.errors import RouteError
from server.routing.changes import same
from server.routing.document import Route, decode_route
from server.routing.ranges import lay_out
from server.routing.revision import Revision

Document = bytes | RouteError | None
"""A document's bytes, why it cannot be read, or None where there is none."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A route to be obeyed, whole, and what to obey where it cannot be.

    ``route`` is None where there is neither a document nor a revision. ``edited``: the route is no revision yet,
    somebody wrote the document. ``fault`` says why the document is not what is obeyed.
    """

    route: Route | None = None
    last: Route | None = None
    edited: bool = False
    fault: str | None = None


def wanted_of(document: Document, newest: Revision | None) -> Wanted:
    """Returns what a document and the newest revision say together; equal in every process that reads both."""
    last = None if newest is None else newest.route
    if document is None:
        return Wanted(last, last, fault=None if last is None else "the document has gone; its last revision is obeyed")
    try:
        if isinstance(document, RouteError):
            raise document
        # Laid out a second time, from where its own first time led, an edited document may say something else.
        if newest is not None and newest.document == digest_of(document):
            return Wanted(last, last)
        route = lay_out(decode_route(document), last)
    except RouteError as error:
        return Wanted(last, last, fault=str(error))
    if last is not None and same(route, last):
        return Wanted(last, last)
    number = max(route.revision, 1 if last is None else last.revision + 1)
    return Wanted(msgspec.structs.replace(route, revision=number), last, edited=True)


def digest_of(document: bytes) -> str:
    """Returns what a revision remembers of the document it was made from."""
    return hashlib.sha256(document).hexdigest()
