"""The monoid of labelled rows: what performance needs to know of them, in exact integers.

Counts are int64. Sums of real numbers are integers in units of 2⁻²⁴: every row is rounded alone, so
the cells of a set of rows do not depend on their order, their batches or who merged whom, and
taking a row back leaves nothing behind.
"""

import math
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

SCALE: Final = 2**24
LOG_LOSS_LIMIT: Final = 16.0
SCORE_BINS: Final = 512
RELIABILITY_BINS: Final = 20

# Equal steps of arcsin √p: a rare class has its scores near 0, where steps of 1/512 in p would tie
# most rows and pull AUC to ½. The steps are 1e-5 wide at the ends and 0.003 in the middle.
_SCORE_EDGES = np.array([math.sin(math.pi * step / (2 * SCORE_BINS)) ** 2 for step in range(1, SCORE_BINS)])
_INT64_SAFE = 2.0**62
_LARGEST = 1e100


def fixed_point_sum(values: NDArray[np.float64]) -> int:
    """Returns the sum of finite values, each rounded to a multiple of 2⁻²⁴, in units of 2⁻²⁴.

    >>> fixed_point_sum(np.array([0.5, 0.25])) / SCALE
    0.75
    """
    units = np.rint(values * SCALE)
    if units.size == 0:
        return 0
    if float(np.abs(units).max()) * units.size < _INT64_SAFE:
        return int(units.astype(np.int64).sum())
    return sum(map(int, units.tolist()))


def fixed_point_square_sum(values: NDArray[np.float64]) -> int:
    """Returns the sum of squares of finite values, each rounded to a multiple of 2⁻²⁴, in units of 2⁻⁴⁸.

    The squares are exact, so the variance of values with a large mean does not drown in rounding.

    >>> fixed_point_square_sum(np.array([0.5, 1e6])) / SCALE**2
    1000000000000.25
    """
    units = np.rint(values * SCALE)
    if units.size == 0:
        return 0
    if float(np.abs(units).max()) / SCALE * math.sqrt(units.size) < 2.0**30:
        # (a·2²⁴ + b)² from products that fit 64 bits.
        high, low = np.divmod(units.astype(np.int64), SCALE)
        squares = (int((high * high).sum()), int((high * low).sum()), int((low * low).sum()))
        return squares[0] * SCALE**2 + 2 * squares[1] * SCALE + squares[2]
    return sum(unit * unit for unit in map(int, units.tolist()))


class ClassificationCells:
    """Labelled answers of a classifier, counted.

    ``confusion``: int64, (classes, classes), truth by predicted. ``log_loss_sum`` and
    ``brier_sum``: units of 2⁻²⁴. ``score_counts``: int64, (2, 512), truth by score bin, for a binary
    task, else (0, 0). ``reliability``: int64, (3, 20), rows, Σp in units of 2⁻²⁴ and Σy by bin of
    p; p is the probability of the second class and y whether it was true for a binary task, else
    the highest probability and whether the prediction was right (Guo et al., 2017).
    ``weight_excess`` is Σ(w² - w) over rows of weight w: 0 where every row counts once.

    >>> cells = ClassificationCells.empty(2)
    >>> truth, predicted = np.array([0, 1]), np.array([0, 0])
    >>> cells.add(truth, predicted, np.array([[0.75, 0.25], [0.5, 0.5]]))
    >>> cells.confusion.tolist(), cells.brier_sum / SCALE
    ([[1, 0], [1, 0]], 0.3125)
    >>> cells.add(truth, predicted, np.array([[0.75, 0.25], [0.5, 0.5]]), times=-1)
    >>> cells == ClassificationCells.empty(2)
    True
    """

    def __init__(
        self,
        confusion: NDArray[np.int64],
        log_loss_sum: int,
        brier_sum: int,
        score_counts: NDArray[np.int64],
        reliability: NDArray[np.int64],
        weight_excess: int = 0,
    ) -> None:
        self.confusion = confusion
        self.log_loss_sum = log_loss_sum
        self.brier_sum = brier_sum
        self.score_counts = score_counts
        self.reliability = reliability
        self.weight_excess = weight_excess

    @classmethod
    def empty(cls, classes: int) -> Self:
        """Returns cells that hold no row. classes: at least 2."""
        if classes < 2:
            raise ValueError(f"expected at least two classes, got {classes}")
        return cls(
            confusion=np.zeros((classes, classes), dtype=np.int64),
            log_loss_sum=0,
            brier_sum=0,
            score_counts=np.zeros((2, SCORE_BINS) if classes == 2 else (0, 0), dtype=np.int64),
            reliability=np.zeros((3, RELIABILITY_BINS), dtype=np.int64),
        )

    @property
    def classes(self) -> int:
        """How many classes the task has."""
        return len(self.confusion)

    @property
    def n(self) -> int:
        """How many labelled rows are in the cells."""
        return int(self.confusion.sum())

    def add(
        self,
        truth: NDArray[np.int64],
        predicted: NDArray[np.int64],
        probabilities: NDArray[np.float64],
        times: int = 1,
    ) -> None:
        """Counts rows in place; with times -w takes back exactly what w added.

        A row's log loss is -ln p(truth) limited to [0, 16]; its Brier score is (p - y)² for two
        classes and Σ(p - y)² over the classes otherwise. Probabilities are limited to [0, 1], and
        one that is not a number counts as 0: the worst score for the class that came true.

        Args:
            truth: int64, (rows,), places of the true classes in the manifest's order.
            predicted: int64, (rows,).
            probabilities: float64, (rows, classes).
            times: how often each row counts, its weight; below 0 takes back.

        Raises:
            ValueError: shapes that do not fit, or a class that does not exist.
        """
        rows, k = len(truth), self.classes
        if predicted.shape != (rows,) or probabilities.shape != (rows, k):
            raise ValueError(
                f"expected predicted ({rows},) and probabilities ({rows}, {k}), "
                f"got {predicted.shape} and {probabilities.shape}"
            )
        if rows == 0:
            return
        for name, places in (("truth", truth), ("predicted", predicted)):
            if places.min() < 0 or places.max() >= k:
                raise ValueError(f"expected {name} in [0, {k}), got {places.min()} to {places.max()}")
        chances = np.clip(np.nan_to_num(probabilities, nan=0.0), 0.0, 1.0)
        of_truth = chances[np.arange(rows), truth]
        log_loss = np.minimum(-np.log(np.maximum(of_truth, math.exp(-2 * LOG_LOSS_LIMIT))), LOG_LOSS_LIMIT)

        if k == 2:
            p, y = chances[:, 1].copy(), truth
            brier = (p - y) ** 2
            score_bins = np.searchsorted(_SCORE_EDGES, p, side="right")
            self.score_counts += times * _table(truth, score_bins, self.score_counts.shape)
        else:
            p, y = chances.max(axis=1), (truth == predicted).astype(np.int64)
            brier = (chances**2).sum(axis=1) - 2 * of_truth + 1
        bins = np.minimum((p * RELIABILITY_BINS).astype(np.int64), RELIABILITY_BINS - 1)
        np.add.at(self.reliability[1], bins, times * np.rint(p * SCALE).astype(np.int64))
        self.reliability[0] += times * np.bincount(bins, minlength=RELIABILITY_BINS)
        self.reliability[2] += times * np.bincount(bins[y == 1], minlength=RELIABILITY_BINS)
        self.confusion += times * _table(truth, predicted, (k, k))
        self.log_loss_sum += times * fixed_point_sum(log_loss)
        self.brier_sum += times * fixed_point_sum(brier)
        self.weight_excess += _excess(times) * rows

    def merge(self, other: "ClassificationCells") -> None:
        """Adds the rows of other cells, of as many classes, in place."""
        if other.classes != self.classes:
            raise ValueError(f"expected cells of {self.classes} classes, got {other.classes}")
        self.confusion += other.confusion
        self.log_loss_sum += other.log_loss_sum
        self.brier_sum += other.brier_sum
        self.score_counts += other.score_counts
        self.reliability += other.reliability
        self.weight_excess += other.weight_excess

    def copy(self) -> "ClassificationCells":
        """Returns cells of the same content that share nothing."""
        return ClassificationCells(
            self.confusion.copy(),
            self.log_loss_sum,
            self.brier_sum,
            self.score_counts.copy(),
            self.reliability.copy(),
            self.weight_excess,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ClassificationCells):
            return NotImplemented
        return self.to_record() == other.to_record()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def to_record(self) -> dict[str, Any]:
        """Returns the content as numbers and bytes that msgpack can hold."""
        return {
            "classes": self.classes,
            "confusion": _int64_bytes(self.confusion),
            "log_loss_sum": _int_bytes(self.log_loss_sum),
            "brier_sum": _int_bytes(self.brier_sum),
            "score_counts": _int64_bytes(self.score_counts),
            "reliability": _int64_bytes(self.reliability),
            "weight_excess": _int_bytes(self.weight_excess),
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        """Returns the cells that ``to_record`` made the record of."""
        cells = cls.empty(record["classes"])
        for name in ("confusion", "score_counts", "reliability"):
            counts: NDArray[np.int64] = getattr(cells, name)
            counts[...] = np.frombuffer(record[name], dtype="<i8").reshape(counts.shape)
        cells.log_loss_sum = int.from_bytes(record["log_loss_sum"], "little", signed=True)
        cells.brier_sum = int.from_bytes(record["brier_sum"], "little", signed=True)
        cells.weight_excess = int.from_bytes(record.get("weight_excess", b""), "little", signed=True)
        return cells


class RegressionCells:
    """Labelled answers of a regression, summed.

    ``n`` rows; ``error_sum`` Σe, ``absolute_sum`` Σ|e|, ``square_sum`` Σe² with e = predicted - truth,
    ``truth_sum`` Σy and ``truth_square_sum`` Σy²: Python integers, which never overflow, in units of
    2⁻²⁴, the squares of 2⁻⁴⁸. Rows whose truth or prediction is not a number, infinite or beyond 1e100
    are in ``unusable`` and nowhere else.

    >>> cells = RegressionCells.empty()
    >>> cells.add(np.array([1.0, 2.0]), np.array([1.5, 2.0]))
    >>> cells.n, cells.error_sum / SCALE, cells.square_sum / SCALE**2
    (2, 0.5, 0.25)
    """

    _FIELDS = (
        "n",
        "unusable",
        "error_sum",
        "absolute_sum",
        "square_sum",
        "truth_sum",
        "truth_square_sum",
        "weight_excess",
    )

    def __init__(self) -> None:
        self.n = 0
        self.unusable = 0
        self.error_sum = 0
        self.absolute_sum = 0
        self.square_sum = 0
        self.truth_sum = 0
        self.truth_square_sum = 0
        self.weight_excess = 0

    @classmethod
    def empty(cls) -> Self:
        """Returns cells that hold no row."""
        return cls()

    def add(self, truth: NDArray[np.float64], predicted: NDArray[np.float64], times: int = 1) -> None:
        """Sums rows in place; with times -w takes back exactly what w added.

        Args:
            truth: float64, (rows,).
            predicted: float64, (rows,).
            times: how often each row counts, its weight; below 0 takes back.
        """
        if predicted.shape != truth.shape:
            raise ValueError(f"expected predicted of shape {truth.shape}, got {predicted.shape}")
        with np.errstate(over="ignore", invalid="ignore"):
            error = predicted - truth
            usable = np.abs(error) + np.abs(truth) <= _LARGEST
        y, e = truth[usable], error[usable]
        self.n += times * len(y)
        self.unusable += times * (len(truth) - len(y))
        self.error_sum += times * fixed_point_sum(e)
        self.absolute_sum += times * fixed_point_sum(np.abs(e))
        self.square_sum += times * fixed_point_square_sum(e)
        self.truth_sum += times * fixed_point_sum(y)
        self.truth_square_sum += times * fixed_point_square_sum(y)
        self.weight_excess += _excess(times) * len(y)

    def merge(self, other: "RegressionCells") -> None:
        """Adds the rows of other cells in place."""
        for name in self._FIELDS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def copy(self) -> "RegressionCells":
        """Returns cells of the same content that share nothing."""
        cells = RegressionCells()
        cells.merge(self)
        return cells

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RegressionCells):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self._FIELDS)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def to_record(self) -> dict[str, Any]:
        """Returns the content as bytes that msgpack can hold: its own integers end at 64 bits."""
        return {name: _int_bytes(getattr(self, name)) for name in self._FIELDS}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        """Returns the cells that ``to_record`` made the record of."""
        cells = cls()
        for name in cls._FIELDS:
            setattr(cells, name, int.from_bytes(record.get(name, b""), "little", signed=True))
        return cells


def _excess(times: int) -> int:
    """Returns what a row of weight w adds to Σ(w² - w), or with times -w takes from it."""
    return times * (abs(times) - 1)


def _table(rows: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.int64]:
    return np.bincount(rows * shape[1] + columns, minlength=shape[0] * shape[1]).reshape(shape)


def _int64_bytes(counts: NDArray[np.int64]) -> bytes:
    return counts.astype("<i8").tobytes()


def _int_bytes(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
