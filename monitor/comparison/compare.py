"""Champion against challenger on the same requests: who is better, by how much, how surely."""

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from monitor.comparison.confidence_sequence import Interval, PaneSums, empirical_bernstein
from monitor.comparison.mcnemar import mcnemar_process
from monitor.comparison.paired import GAIN_RANGE, PairedCells


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What pairs of answers say of the challenger.

    ``disagreement`` is the share of pairs predicted differently. ``accuracy_gain`` is the mean of right - right
    and ``gain`` the mean fall of log loss in nats (of squared error in variances, for a
    regression), each with an interval that holds at every look; both are above 0 when the challenger is
    better. ``leader`` is named only when the interval of ``gain`` excludes 0. Means are None without pairs.
    """

    pairs: int
    both_right: int
    champion_only: int
    challenger_only: int
    both_wrong: int
    disagreement: float | None
    accuracy_gain: float | None
    accuracy_gain_low: float
    accuracy_gain_high: float
    gain: float | None
    gain_low: float
    gain_high: float
    log10_e_value: float
    p_anytime: float
    leader: Literal["champion", "challenger"] | None


def compare(panes: Sequence[PairedCells], alpha: float) -> Comparison:
    """Returns the comparison over matured panes.

    Formula: two empirical-Bernstein confidence sequences, of right - right ∈ {-1, 0, 1} and of the
    bounded gain (times 4, back in nats), and McNemar's e-process on the discordant pairs.

    Null hypothesis: the mean gain is 0. A leader is then named with probability alpha at most, however
    often one looks; each of the three statements holds at level alpha on its own.

    Range: accuracy gain in [-1, 1], gain in [-4, 4], p_anytime in (0, 1].

    Reference: see ``empirical_bernstein`` and ``mcnemar_process``.

    Args:
        panes: matured panes in time order: a pane must not change after it was first looked at.
        alpha: probability of ever naming a leader among equals, in (0, 1).

    >>> import numpy as np
    >>> pane = PairedCells.empty()
    >>> right = np.repeat([True, False], [80, 20])
    >>> pane.add(np.roll(right, 10), right, agree=right == np.roll(right, 10), gain=np.full(100, 0.05))
    >>> found = compare([pane] * 100, alpha=0.05)
    >>> found.pairs, found.disagreement, found.accuracy_gain, found.leader
    (10000, 0.2, 0.0, 'challenger')
    >>> round(found.gain_low, 3), round(found.gain, 3), round(found.gain_high, 3)
    (0.19, 0.2, 0.21)
    """
    whole = PairedCells.empty()
    for pane in panes:
        whole.merge(pane)
    accuracy = empirical_bernstein([_accuracy_sums(pane) for pane in panes], alpha)
    gain = empirical_bernstein(
        [PaneSums(n=pane.n, total=pane.gain_total, squares=pane.gain_squares) for pane in panes], alpha
    )
    evidence = mcnemar_process((pane.challenger_only, pane.champion_only) for pane in panes)
    return Comparison(
        pairs=whole.n,
        both_right=whole.both_right,
        champion_only=whole.champion_only,
        challenger_only=whole.challenger_only,
        both_wrong=whole.both_wrong,
        disagreement=(whole.n - whole.agree) / whole.n if whole.n else None,
        accuracy_gain=accuracy.estimate,
        accuracy_gain_low=accuracy.low,
        accuracy_gain_high=accuracy.high,
        gain=None if gain.estimate is None else GAIN_RANGE * gain.estimate,
        gain_low=GAIN_RANGE * gain.low,
        gain_high=GAIN_RANGE * gain.high,
        log10_e_value=evidence.log_e / math.log(10),
        p_anytime=evidence.p_anytime,
        leader=_leader(gain),
    )


def _accuracy_sums(pane: PairedCells) -> PaneSums:
    difference = pane.challenger_only - pane.champion_only
    return PaneSums(n=pane.n, total=difference, squares=pane.challenger_only + pane.champion_only)


def _leader(gain: Interval) -> Literal["champion", "challenger"] | None:
    if gain.low > 0:
        return "challenger"
    return "champion" if gain.high < 0 else None
