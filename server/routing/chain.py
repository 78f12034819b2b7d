"""Which changes of routes hold, out of all that several servers wrote in one order.

Two servers may change the same revision of a route at the same time. Both changes are written, one after the
other, to a place that keeps them in one order for everybody; the first on its base holds, the other does not.
Nobody is asked: each reader decides by this rule alone, so all decide alike.
"""

from server.routing.revision import Revision


class Chain:
    """The revisions that hold, per model, decided one by one in the order they were written.

    A revision holds when none of its model did before, or when it changes the one that holds: its ``base`` is not
    below that one's number. Equality alone would do where everything written is read; a reader whose first records
    were trimmed away finds gaps, and goes on after them.

    Example:
        >>> from datetime import UTC, datetime
        >>> from server.routing.document import Route
        >>> def change(id: str, base: int) -> Revision:
        ...     route = Route(champion=id, revision=base + 1)
        ...     now = datetime.now(UTC)
        ...     return Revision(id=id, model="flight", base=base, time=now, by="", action="set", route=route)
        >>> chain = Chain()
        >>> [chain.add(each) for each in (change("a", 0), change("b", 0), change("c", 1))]
        [True, False, True]
        >>> chain.current("flight"), "b" in chain
        (2, False)
    """

    def __init__(self) -> None:
        self._current: dict[str, int] = {}
        self._ids: set[str] = set()

    def __contains__(self, revision_id: object) -> bool:
        """Says whether the revision with this id has ever held."""
        return revision_id in self._ids

    def current(self, model: str) -> int | None:
        """Returns the number of a model's revision that holds, None where none does."""
        return self._current.get(model)

    def add(self, revision: Revision) -> bool:
        """Takes the revision that was written next, and says whether it holds from now on.

        One whose number is not above its base, and one that has held already, do not.
        """
        if revision.number <= revision.base or revision.base < self._current.get(revision.model, revision.base):
            return False
        self._current[revision.model] = revision.number
        self._ids.add(revision.id)
        return True
