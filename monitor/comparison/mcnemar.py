"""McNemar's test as an e-process: who wins where champion and challenger differ, at every look."""

import math
from collections.abc import Iterable

import msgspec

_LOG_2 = math.log(2)


class McNemarProcess(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence that wins are not a fair coin: ``log_e`` now, its maximum so far, and the p-value."""

    log_e: float
    log_e_max: float
    p_anytime: float


def mcnemar_e_value(challenger_wins: int, champion_wins: int, a: float = 10.0) -> float:
    """Returns the natural logarithm of the e-value of W wins and L losses of the challenger.

    Formula: E = 2^(W+L) · B(a + W, a + L) / B(a, a): the likelihood of the wins under a coin whose bias
    is drawn from Beta(a, a), over that under a fair coin. Two-sided.

    Null hypothesis: where exactly one of both is right, each is with probability ½, whatever came
    before. Then E[E] = 1 after any number of pairs and P(E ever ≥ 1/alpha) ≤ alpha (Ville), so one may look as
    often as one likes and stop when one likes.

    Range: (0, ∞); above 1 is evidence against the null, below 1 for it. a = 10 bets on a challenger
    that wins 39 to 61 % of the discordant pairs (one standard deviation).

    Reference: McNemar (1947), Psychometrika 12(2); Robbins (1970), Annals of Mathematical Statistics
    41(5), for the mixture; Grünwald, de Heide and Koolen (2024), "Safe testing", JRSS B 86(5).

    Args:
        challenger_wins: pairs in which only the challenger was right.
        champion_wins: pairs in which only the champion was right.
        a: concentration of the bets around ½, above 0.

    >>> round(mcnemar_e_value(60, 30), 3), round(mcnemar_e_value(45, 45), 3)
    (3.319, -0.863)
    """
    wins, losses = challenger_wins, champion_wins
    return (wins + losses) * _LOG_2 + _log_beta(a + wins, a + losses) - _log_beta(a, a)


def mcnemar_process(panes: Iterable[tuple[int, int]], a: float = 10.0) -> McNemarProcess:
    """Returns the e-process over panes, looked at after each.

    Formula: E of the wins and losses so far; p = min(1, 1 / max E), which stays valid at every look.
    Null hypothesis, range, reference: see ``mcnemar_e_value``. p in (0, 1].

    Args:
        panes: (challenger wins, champion wins) of each pane, oldest first.

    >>> found = mcnemar_process([(30, 10), (30, 20)])
    >>> round(found.log_e, 3), round(found.log_e_max, 3), round(found.p_anytime, 3)
    (3.319, 3.319, 0.036)
    """
    wins = losses = 0
    log_e = log_e_max = 0.0
    for more_wins, more_losses in panes:
        wins += more_wins
        losses += more_losses
        log_e = mcnemar_e_value(wins, losses, a)
        log_e_max = max(log_e_max, log_e)
    return McNemarProcess(log_e=log_e, log_e_max=log_e_max, p_anytime=math.exp(-log_e_max))


def _log_beta(x: float, y: float) -> float:
    return math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y)
