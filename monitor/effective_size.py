"""How many rows a weighted count is worth: Kish's effective sample size.

Where one request in k is logged, each stands for k. Counts then add weights, which estimates the counts of
all requests without bias; but how far such an estimate may be off is a matter of how many were logged.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def effective_share(n: int, excess: int) -> float:
    """Returns the part of a sum of weights that counts as rows: (Σw)² / Σw² over Σw, in (0, 1].

    Formula: n_eff = (Σw)² / Σw² = n · n / (n + excess) with n = Σw and excess = Σ(w² - w). Rows of one weight w are
    worth n / w, which is how many were logged. Of several weights it is the number of equal rows with which a mean
    would vary as much, for rows whose weight says nothing of their value.

    Reference: Kish (1965), "Survey Sampling", section 11.2 and 11.7; Kish (1992), Journal of Official
    Statistics 8(2).

    Args:
        n: sum of the weights.
        excess: sum of weight² - weight; 0 where every row counts once.

    >>> effective_share(400, 4 * 4 * 100 - 400), effective_share(100, 0)
    (0.25, 1.0)
    """
    return n / (n + excess) if n > 0 and excess > 0 else 1.0


def effective_counts(counts: NDArray[np.int64], excess: int) -> NDArray[Any]:
    """Returns counts in effective rows: the very integers where every row counts once, else floats.

    Args:
        counts: int64, sums of weights by cell.
        excess: sum of weight² - weight over all rows in them.

    >>> effective_counts(np.array([8, 4]), 12 * 3).tolist()
    [2.0, 1.0]
    """
    if excess <= 0:
        return counts
    return counts * effective_share(int(counts.sum()), excess)
