"""What a verification has counted, and what is wrong."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

_NAMED: Final = 5


class Row(msgspec.Struct, frozen=True):
    """One line of the balance: how many of what, and a word on it."""

    what: str
    count: int
    note: str = ""


@dataclass(slots=True)
class Seen:
    """How often a fault was met, and the first few places."""

    count: int = 0
    first: list[str] = field(default_factory=list)
    unnamed: int = 0

    def add(self, place: object, count: int = 1) -> None:
        """Counts a place, or so many that have one name together."""
        self.count += count
        self._name([place], 1)

    def add_many(self, count: int, first: Sequence[object]) -> None:
        """Counts so many places, of which the first few are named."""
        self.count += count
        self._name(first, count)

    def _name(self, places: Sequence[object], count: int) -> None:
        room = places[: _NAMED - len(self.first)]
        self.first += map(str, room)
        self.unnamed += count - len(room)

    def __bool__(self) -> bool:
        return self.count > 0

    def __str__(self) -> str:
        return ", ".join(self.first) + (", …" if self.unnamed else "")


class Findings(msgspec.Struct):
    """The balance: its lines, and every fault as a sentence; without faults it balances."""

    rows: list[Row] = []
    faults: list[str] = []

    def note(self, what: str, count: int, note: str = "") -> None:
        """Adds a line."""
        self.rows.append(Row(what, int(count), note))

    def fault(self, sentence: str) -> None:
        """Adds what is wrong."""
        self.faults.append(sentence)
