"""The monoid of pairs: champion's and challenger's answers to the same rows, in exact integers."""

from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

_SCALE: Final = 2**24
GAIN_RANGE: Final = 4.0


def bounded_gain(
    champion_log_loss: NDArray[np.float64], challenger_log_loss: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns the challenger's gain of every row in [-1, 1]: by how much its log loss is lower.

    Formula: (min(champion, 4) - min(challenger, 4)) / 4, in units of 4 nats. A loss is limited to
    4 nats, a probability of 0.018 for what came true: an interval that holds at every look needs
    a bounded gain, and one confident mistake should not outweigh a thousand rows.

    Args:
        champion_log_loss: float64, (rows,), nats; not a number counts as 4.
        challenger_log_loss: the same rows.

    >>> bounded_gain(np.array([0.7, 9.0]), np.array([0.3, 0.0])).round(3).tolist()
    [0.1, 1.0]
    """
    return (_limited(champion_log_loss) - _limited(challenger_log_loss)) / GAIN_RANGE


def bounded_error_gain(
    champion_error: NDArray[np.float64], challenger_error: NDArray[np.float64], variance: float
) -> NDArray[np.float64]:
    """Returns the challenger's gain of every row in [-1, 1] for a regression, from the errors.

    Formula: (min(e²/v, 4) - min(e'²/v, 4)) / 4 with e the champion's and e' the challenger's error:
    a squared error is limited to 4 variances of the target, so that as with log loss four times
    the mean gain is in natural units, here variances: what R² rises by.

    Args:
        champion_error: float64, (rows,), predicted - truth; not a number counts as 4 variances.
        challenger_error: the same rows.
        variance: the target's variance in training, above 0.

    >>> bounded_error_gain(np.array([1.0, 50.0]), np.array([0.0, 0.0]), variance=2.0).tolist()
    [0.125, 1.0]
    """
    if not variance > 0:
        raise ValueError(f"expected a variance above 0, got {variance}")
    with np.errstate(over="ignore"):
        return (_limited(champion_error**2 / variance) - _limited(challenger_error**2 / variance)) / GAIN_RANGE


class PairedCells:
    """Pairs of answers, counted. ``gain_sum`` and ``square_sum`` are Σgain and Σgain² in units of 2⁻²⁴.

    For a regression nothing is right or wrong: let "right" be "strictly closer to the truth than
    the other".

    >>> cells = PairedCells.empty()
    >>> right, wrong = np.array([True, True]), np.array([True, False])
    >>> cells.add(wrong, right, agree=np.array([True, False]), gain=np.array([0.0, 0.25]))
    >>> cells.n, cells.challenger_only, cells.gain_sum / 2**24
    (2, 1, 0.25)
    """

    _FIELDS = (
        "n",
        "both_right",
        "champion_only",
        "challenger_only",
        "both_wrong",
        "agree",
        "gain_sum",
        "square_sum",
    )

    def __init__(self) -> None:
        self.n = 0
        self.both_right = 0
        self.champion_only = 0
        self.challenger_only = 0
        self.both_wrong = 0
        self.agree = 0
        self.gain_sum = 0
        self.square_sum = 0

    @classmethod
    def empty(cls) -> Self:
        """Returns cells that hold no pair."""
        return cls()

    @property
    def gain_total(self) -> float:
        """Σgain as a real number."""
        return self.gain_sum / _SCALE

    @property
    def gain_squares(self) -> float:
        """Σgain² as a real number."""
        return self.square_sum / _SCALE

    def add(
        self,
        champion_right: NDArray[np.bool_],
        challenger_right: NDArray[np.bool_],
        agree: NDArray[np.bool_],
        gain: NDArray[np.float64],
        times: int = 1,
    ) -> None:
        """Counts pairs in place; with times -1 takes back exactly what +1 added.

        Args:
            champion_right: bool, (pairs,).
            challenger_right: bool, (pairs,).
            agree: bool, (pairs,), whether both predicted the same.
            gain: float64, (pairs,), in [-1, 1], above 0 where the challenger is better.
            times: 1 or -1.

        Raises:
            ValueError: shapes that differ, or a gain outside [-1, 1].
        """
        shapes = {champion_right.shape, challenger_right.shape, agree.shape, gain.shape}
        if len(shapes) != 1:
            raise ValueError(f"expected four arrays of one shape, got {sorted(shapes)}")
        if not (np.abs(gain) <= 1).all():
            raise ValueError(f"expected gains in [-1, 1], got {gain.min()} to {gain.max()}")
        self.n += times * len(gain)
        self.both_right += times * int(np.count_nonzero(champion_right & challenger_right))
        self.champion_only += times * int(np.count_nonzero(champion_right & ~challenger_right))
        self.challenger_only += times * int(np.count_nonzero(~champion_right & challenger_right))
        self.both_wrong += times * int(np.count_nonzero(~(champion_right | challenger_right)))
        self.agree += times * int(np.count_nonzero(agree))
        self.gain_sum += times * int(np.rint(gain * _SCALE).astype(np.int64).sum())
        self.square_sum += times * int(np.rint(gain**2 * _SCALE).astype(np.int64).sum())

    def merge(self, other: "PairedCells") -> None:
        """Adds the pairs of other cells in place."""
        for name in self._FIELDS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def copy(self) -> "PairedCells":
        """Returns cells of the same content that share nothing."""
        cells = PairedCells()
        cells.merge(self)
        return cells

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PairedCells):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self._FIELDS)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def to_record(self) -> dict[str, Any]:
        """Returns the content as integers; 64 bits hold the sums of 2³⁸ pairs."""
        return {name: getattr(self, name) for name in self._FIELDS}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        """Returns the cells that ``to_record`` made the record of."""
        cells = cls()
        for name in cls._FIELDS:
            setattr(cells, name, record[name])
        return cells


def _limited(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(np.nan_to_num(losses, nan=GAIN_RANGE), 0.0, GAIN_RANGE)
