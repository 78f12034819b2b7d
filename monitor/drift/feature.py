"""One feature's drift: effect sizes, evidence, and the bins that moved most."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from monitor.drift.ks import KolmogorovSmirnov, kolmogorov_smirnov
from monitor.drift.psi import population_stability
from monitor.drift.rollup import coarse_cells, group_names, roll_up
from monitor.drift.wasserstein import wasserstein
from monitor.effective_size import effective_counts
from server.contract.histogram import Bins, NumericBins

_TOP_BINS = 3


class MovedBin(msgspec.Struct, frozen=True, kw_only=True):
    """A coarse bin and its share of the live and of the baseline rows."""

    bin: str
    live: float
    baseline: float


class FeatureDrift(msgspec.Struct, frozen=True, kw_only=True):
    """What a feature's counts say of its drift.

    ``n`` live rows, missing included; where the log is a sample ``n_effective`` is how many they are worth as
    evidence, else the same. ``psi_debiased`` is the effect size and ``psi_p_value`` the
    evidence. ``ks``, ``ks_threshold`` and ``wasserstein`` (in robust standard deviations) are None
    for a categorical feature, and where no live value is known. ``ranked`` is shift times importance:
    the order in which to look at features. ``top_bins``: those that contribute most to PSI.
    """

    n: int
    n_effective: float
    psi: float
    psi_debiased: float
    psi_p_value: float
    ks: float | None
    ks_threshold: float | None
    wasserstein: float | None
    ranked: float
    drifted: bool
    top_bins: list[MovedBin]


def feature_drift(
    bins: Bins,
    live: NDArray[np.int64],
    baseline: NDArray[np.int64],
    *,
    importance: float,
    alpha: float,
    tolerance: float,
    weight_excess: int = 0,
) -> FeatureDrift:
    """Returns the drift of one feature in one pane or window.

    A feature has drifted when there is evidence (PSI's p-value below alpha) *and* the shift
    matters (debiased PSI above the tolerance). Null hypothesis, ranges and references: see
    ``population_stability``, ``kolmogorov_smirnov`` and ``wasserstein``.

    Args:
        bins: the feature's bins.
        live: int64, (cells,); may be all zeros.
        baseline: int64, (cells,).
        importance: the fall in the model's score when the column is permuted; below 0 counts as 0.
        alpha: false-alarm probability for this feature alone, already divided by their number.
        tolerance: debiased PSI up to which a shift is of no interest.
        weight_excess: Σ(w² - w) of the live rows, 0 where each counts once: see ``effective_counts``.

    >>> from server.contract.histogram import CategoricalBins
    >>> bins = CategoricalBins(categories=["AA", "UA"])
    >>> found = feature_drift(
    ...     bins, np.array([20, 70, 10, 0]), np.array([500, 500, 0, 0]), importance=0.5, alpha=0.01, tolerance=0.1
    ... )
    >>> found.drifted, round(found.psi, 2), [moved.bin for moved in found.top_bins]
    (True, 0.88, ['new category', 'AA', 'UA'])
    """
    groups = coarse_cells(bins, baseline)
    coarse_live, coarse_baseline = roll_up(live, groups), roll_up(baseline, groups)
    effective = effective_counts(live, weight_excess)
    stability = population_stability(roll_up(effective, groups), coarse_baseline)
    ks: KolmogorovSmirnov | None = None
    distance: float | None = None
    if isinstance(bins, NumericBins) and live[:-1].sum() > 0 and baseline[:-1].sum() > 0:
        ks = kolmogorov_smirnov(effective[:-1], baseline[:-1], alpha)
        distance = wasserstein(bins, live, baseline)
    return FeatureDrift(
        n=int(live.sum()),
        n_effective=float(effective.sum()),
        psi=stability.value,
        psi_debiased=stability.debiased,
        psi_p_value=stability.p_value,
        ks=ks.statistic if ks else None,
        ks_threshold=ks.threshold if ks else None,
        wasserstein=distance,
        ranked=max(stability.debiased, 0.0) * max(importance, 0.0),
        drifted=stability.p_value < alpha and stability.debiased > tolerance,
        top_bins=_top_bins(coarse_live, coarse_baseline, group_names(bins, groups)),
    )


def _top_bins(live: NDArray[np.int64], baseline: NDArray[np.int64], names: list[str]) -> list[MovedBin]:
    n, m = int(live.sum()), int(baseline.sum())
    if n <= 0 or m <= 0:
        return []
    p, q = (live + 0.5) / (n + len(live) / 2), (baseline + 0.5) / (m + len(live) / 2)
    contribution = (p - q) * np.log(p / q) * ((live + baseline) > 0)
    return [
        MovedBin(bin=names[group], live=int(live[group]) / n, baseline=int(baseline[group]) / m)
        for group in np.argsort(-contribution, kind="stable")[:_TOP_BINS].tolist()
        if contribution[group] > 0
    ]
