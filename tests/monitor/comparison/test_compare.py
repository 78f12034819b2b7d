import msgspec
import numpy as np
import pytest

from monitor.comparison.compare import Comparison, compare
from monitor.comparison.paired import PairedCells, bounded_gain


def pane(rng: np.random.Generator, n: int, better: float) -> PairedCells:
    """A pane in which both see the same truth through noise, and the challenger has less of it when better > 0."""
    logit = rng.normal(0, 1.5, n)
    truth = rng.random(n) < 1 / (1 + np.exp(-logit))
    champion, challenger = (1 / (1 + np.exp(-logit - rng.normal(0, noise, n))) for noise in (1.0, 1.0 - better))
    losses = [-np.log(np.where(truth, p, 1 - p)) for p in (champion, challenger)]
    right = [(p >= 0.5) == truth for p in (champion, challenger)]
    cells = PairedCells.empty()
    cells.add(right[0], right[1], (champion >= 0.5) == (challenger >= 0.5), bounded_gain(losses[0], losses[1]))
    return cells


@pytest.mark.parametrize(("better", "leader"), [(0.5, "challenger"), (-0.5, "champion")])
def test_better_one_leads(better: float, leader: str) -> None:
    """The better of both is named, with an interval on its side of 0 and overwhelming evidence."""
    rng = np.random.default_rng(0)

    found = compare([pane(rng, 800, better) for _ in range(30)], alpha=0.05)

    assert leader == found.leader
    assert found.gain is not None
    assert found.gain_low < found.gain < found.gain_high
    assert found.gain_low * found.gain_high > 0
    assert found.log10_e_value > 3
    assert found.p_anytime < 0.001


def test_equals_have_no_leader() -> None:
    """Looking after every pane, 5 % of 100 A/A comparisons at most ever name a leader."""
    rng = np.random.default_rng(1)
    named = 0
    for _ in range(100):
        panes = [pane(rng, 200, 0.0) for _ in range(20)]
        named += any(compare(panes[:look], 0.05).leader for look in range(1, 21))

    assert named <= 5


def test_counts_are_of_all_panes() -> None:
    """Counts are the sums over panes, and gains agree with them."""
    panes = [pane(np.random.default_rng(seed), 500, 0.3) for seed in range(8)]

    found = compare(panes, alpha=0.05)

    assert found.pairs == 4_000
    assert found.pairs == found.both_right + found.champion_only + found.challenger_only + found.both_wrong
    assert found.accuracy_gain == pytest.approx((found.challenger_only - found.champion_only) / 4_000)
    assert found.disagreement == pytest.approx(1 - sum(one.agree for one in panes) / 4_000)
    assert found.gain == pytest.approx(4 * sum(one.gain_total for one in panes) / 4_000)


def test_panes_are_left_alone() -> None:
    """Comparing changes no pane."""
    panes = [pane(np.random.default_rng(seed), 50, 0.0) for seed in range(3)]
    before = [one.copy() for one in panes]

    compare(panes, alpha=0.05)

    assert before == panes


@pytest.mark.parametrize("panes", [[], [PairedCells.empty()]], ids=["no-panes", "empty-pane"])
def test_no_pairs(panes: list[PairedCells]) -> None:
    """Without pairs nothing is claimed: no means, the widest intervals, no leader."""
    found = compare(panes, alpha=0.05)

    assert (0, None, None, None, None) == (
        found.pairs,
        found.disagreement,
        found.accuracy_gain,
        found.gain,
        found.leader,
    )
    assert (-1, 1, -4, 4) == (found.accuracy_gain_low, found.accuracy_gain_high, found.gain_low, found.gain_high)
    assert (0, 1) == (found.log10_e_value, found.p_anytime)


def test_comparison_is_json() -> None:
    """A comparison goes through JSON unharmed."""
    found = compare([pane(np.random.default_rng(2), 100, 0.0)], alpha=0.05)

    assert found == msgspec.json.decode(msgspec.json.encode(found), type=Comparison)
