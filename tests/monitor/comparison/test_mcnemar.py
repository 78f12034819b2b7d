import math

import numpy as np
import pytest
from scipy.special import betaln

from monitor.comparison.mcnemar import mcnemar_e_value, mcnemar_process


@pytest.mark.parametrize(("wins", "losses", "a"), [(0, 0, 10.0), (60, 30, 10.0), (7, 90_000, 2.5)])
def test_value_is_the_formula(wins: int, losses: int, a: float) -> None:
    """The logarithm of E is that of 2^(W+L) B(a + W, a + L) / B(a, a)."""
    expected = (wins + losses) * math.log(2) + betaln(a + wins, a + losses) - betaln(a, a)

    assert expected == pytest.approx(mcnemar_e_value(wins, losses, a))


@pytest.mark.parametrize("pairs", [1, 2, 7, 50, 400])
def test_expectation_is_one(pairs: int) -> None:
    """Summed over all sequences of wins and losses of a fair coin, E has mean 1 exactly."""
    mean = sum(
        math.exp(
            math.lgamma(pairs + 1)
            - math.lgamma(wins + 1)
            - math.lgamma(pairs - wins + 1)
            - pairs * math.log(2)
            + mcnemar_e_value(wins, pairs - wins)
        )
        for wins in range(pairs + 1)
    )

    assert mean == pytest.approx(1)


def test_expectation_never_rises() -> None:
    """From any state, a fair coin's next toss leaves E the same on average: it is a martingale."""
    for wins, losses in [(0, 0), (5, 1), (300, 200), (0, 999)]:
        now = mcnemar_e_value(wins, losses)
        after = [mcnemar_e_value(wins + 1, losses), mcnemar_e_value(wins, losses + 1)]

        assert sum(math.exp(one - now) for one in after) / 2 == pytest.approx(1)


def test_peeking_after_every_pair() -> None:
    """Looking after each of 2,000 discordant pairs, 5 % of 1,000 A/A runs at most ever call a difference."""
    rng = np.random.default_rng(0)
    wins = np.cumsum(rng.random((1_000, 2_000)) < 0.5, axis=1)
    table = [[mcnemar_e_value(w, n - w) for w in range(n + 1)] for n in range(1, 2_001)]
    barrier = [
        next(w for w in range((n + 1) // 2, n + 2) if w == n + 1 or row[w] >= math.log(20))
        for n, row in enumerate(table, 1)
    ]

    n = np.arange(1, 2_001)
    crossed = (np.maximum(wins, n - wins) >= np.array(barrier)).any(axis=1).mean()

    assert 0.005 < crossed <= 0.05


def test_power() -> None:
    """A challenger that wins 60 % of the discordant pairs is found in most runs of 400."""
    rng = np.random.default_rng(1)
    found = [mcnemar_process([(int(w), 400 - int(w))]).p_anytime < 0.05 for w in rng.binomial(400, 0.6, 200)]

    assert np.mean(found) > 0.75


def test_two_sided() -> None:
    """Wins of the challenger and of the champion are the same evidence of a difference."""
    assert mcnemar_e_value(70, 30) == mcnemar_e_value(30, 70)


def test_evidence_once_found_stays() -> None:
    """The p-value is of the largest E so far, so later panes cannot raise it."""
    early = mcnemar_process([(40, 5)])
    late = mcnemar_process([(40, 5), (5, 40)])

    assert late.log_e < early.log_e
    assert early.p_anytime == late.p_anytime == math.exp(-early.log_e)


def test_huge_evidence() -> None:
    """Evidence beyond what a double can hold is kept as a logarithm."""
    found = mcnemar_process([(1_000_000, 0)])

    assert found.log_e > 600_000
    assert found.p_anytime == 0


def test_no_pairs() -> None:
    """Without discordant pairs E is 1 and p is 1."""
    found = mcnemar_process([])

    assert (0.0, 1.0) == (found.log_e, found.p_anytime)
    assert mcnemar_e_value(0, 0) == 0
