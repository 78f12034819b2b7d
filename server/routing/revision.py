"""One change of a model's route, as it is kept, shown and sent to other servers."""

from datetime import datetime
from typing import Literal

import msgspec

from server.routing.document import Route

Action = Literal["set", "shares", "promote", "rollback", "guard", "file"]


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """A route that holds from ``time`` on, and how it came about.

    ``id`` is the change's own, and that of its audit event. ``base`` is the revision it changed; ``by`` the name of
    the token, "" where nobody needs one, or the part of the server that did it (``guard``: a challenger went beyond
    its limits; ``file``: somebody edited route.json, whose SHA-256 is ``document``). Members unknown to a reader are
    skipped.
    """

    id: str
    model: str
    base: int
    time: datetime
    by: str
    action: Action
    reason: str | None = None
    route: Route
    document: str | msgspec.UnsetType = msgspec.UNSET

    @property
    def number(self) -> int:
        """The revision's number, which is its route's."""
        return self.route.revision


_decoder = msgspec.json.Decoder(Revision)
_encoder = msgspec.json.Encoder()


def encode_revision(revision: Revision) -> bytes:
    """Returns a revision as one line of JSON, without the line's end."""
    return _encoder.encode(revision)


def decode_revision(line: bytes) -> Revision:
    """Returns the revision in a line.

    Raises:
        msgspec.DecodeError: the line is not JSON, or (as msgspec.ValidationError) no revision.
    """
    return _decoder.decode(line)
