"""The monoid the monitor is built on: what one version did in one interval of event time.

``merge`` is associative and commutative, exactly, with ``Pane.empty()`` as its neutral element:
everything in a pane is an integer. So sliding windows, totals, restarts and replicas are all the
same operation.
"""

import zlib
from typing import Any, Final, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from monitor.performance.cells import ClassificationCells, RegressionCells

PerformanceCells = ClassificationCells | RegressionCells

_FORMAT: Final = 2
_READABLE: Final = (1, 2)
_FAST: Final = 1  # zlib's level: counts are mostly zeros, so more effort gains little


class Pane(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Sums over the answers of one version; never changed in place, so readers may share it.

    An answer that stands for w requests counts w times, in everything. ``weight_excess`` (int64, (features + 1,))
    is Σ(w² - w) over the rows in each histogram, the score's last, empty where all are 0; ``heaviest`` the
    largest w. ``hidden`` counts the rows in which a feature was not told.
    ``roles`` counts answers by role. ``counts`` (int64, (cells,)) are the histograms of features and score
    side by side, ``classes`` (int64, (classes,)) the predicted classes; both are empty in an empty pane.
    ``score_sum`` is Σscore of the ``scored`` rows in units of 2⁻²⁴. ``performance`` is None without labels.
    ``type_errors`` are answers whose inputs do not fit the signature.
    """

    requests: int = 0
    rows: int = 0
    errors: int = 0
    type_errors: int = 0
    roles: dict[str, int] = {}
    counts: NDArray[np.int64]
    classes: NDArray[np.int64]
    scored: int = 0
    score_sum: int = 0
    performance: PerformanceCells | None = None
    weight_excess: NDArray[np.int64] = msgspec.field(default_factory=lambda: _no_counts())
    heaviest: int = 1
    hidden: dict[str, int] = {}

    @classmethod
    def empty(cls) -> Self:
        """Returns the pane of nothing."""
        return cls(counts=_no_counts(), classes=_no_counts())

    @property
    def labelled(self) -> int:
        """Rows whose truth has arrived."""
        return self.performance.n if self.performance else 0

    def merge(self, other: "Pane") -> "Pane":
        """Returns the pane of both."""
        return Pane(
            requests=self.requests + other.requests,
            rows=self.rows + other.rows,
            errors=self.errors + other.errors,
            type_errors=self.type_errors + other.type_errors,
            roles=_merge_tallies(self.roles, other.roles),
            counts=_merge_counts(self.counts, other.counts),
            classes=_merge_counts(self.classes, other.classes),
            scored=self.scored + other.scored,
            score_sum=self.score_sum + other.score_sum,
            performance=merge_performance(self.performance, other.performance),
            weight_excess=_merge_counts(self.weight_excess, other.weight_excess),
            heaviest=max(self.heaviest, other.heaviest),
            hidden=_merge_tallies(self.hidden, other.hidden),
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Pane):
            return NotImplemented
        return self._record() == other._record()

    __hash__ = None  # type: ignore[assignment]  # holds arrays

    def to_bytes(self) -> bytes:
        """Returns the pane as compressed msgpack."""
        return zlib.compress(msgspec.msgpack.encode(self._record()), _FAST)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Returns the pane that ``to_bytes`` wrote.

        Raises:
            ValueError: not such bytes, or of a newer format.
        """
        try:
            record = msgspec.msgpack.decode(zlib.decompress(data), type=dict[str, Any])
        except (zlib.error, msgspec.DecodeError) as error:
            raise ValueError(f"not a pane: {error}") from error
        if record.pop("format") not in _READABLE:
            raise ValueError(f"expected a pane of format {_FORMAT} or below")
        performance = record.pop("performance")
        kind = ClassificationCells if performance and "classes" in performance else RegressionCells
        return cls(
            counts=_from_bytes(record.pop("counts")),
            classes=_from_bytes(record.pop("classes")),
            score_sum=int.from_bytes(record.pop("score_sum"), "little", signed=True),
            performance=kind.from_record(performance) if performance else None,
            # In format 1 every row counted once, and no column was hidden.
            weight_excess=_from_bytes(record.pop("weight_excess", b"")),
            **record,
        )

    def _record(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "requests": self.requests,
            "rows": self.rows,
            "errors": self.errors,
            "type_errors": self.type_errors,
            "roles": self.roles,
            "counts": _to_bytes(self.counts),
            "classes": _to_bytes(self.classes),
            "scored": self.scored,
            "score_sum": self.score_sum.to_bytes(self.score_sum.bit_length() // 8 + 1, "little", signed=True),
            "performance": self.performance.to_record() if self.performance else None,
            "weight_excess": _to_bytes(self.weight_excess),
            "heaviest": self.heaviest,
            "hidden": self.hidden,
        }


def merge_performance(left: PerformanceCells | None, right: PerformanceCells | None) -> PerformanceCells | None:
    """Returns the cells of both; None when nothing is left in them, as after a label was taken back."""
    if left is None or right is None:
        return left or right
    merged = left.copy()
    merged.merge(right)  # type: ignore[arg-type]  # one version's cells are of one kind
    return None if is_blank(merged) else merged


def is_blank(cells: PerformanceCells) -> bool:
    """Returns whether the cells hold no row at all."""
    if cells.n:
        return False
    if isinstance(cells, ClassificationCells):
        return cells == ClassificationCells.empty(cells.classes)
    return cells == RegressionCells.empty()


def _merge_tallies(left: dict[str, int], right: dict[str, int]) -> dict[str, int]:
    return {name: left.get(name, 0) + right.get(name, 0) for name in sorted({*left, *right})}


def _merge_counts(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    if not left.size or not right.size:
        return left if left.size else right
    return left + right


def _no_counts() -> NDArray[np.int64]:
    return np.zeros(0, dtype=np.int64)


def _to_bytes(counts: NDArray[np.int64]) -> bytes:
    return counts.astype("<i8", copy=False).tobytes()


def _from_bytes(data: bytes) -> NDArray[np.int64]:
    return np.frombuffer(data, dtype="<i8").astype(np.int64)
