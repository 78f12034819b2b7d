"""A log that is a sample: what is estimated from it is right on average, and alarms are no more frequent."""

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from monitor.comparison.paired import PairedCells
from monitor.drift.feature import feature_drift
from monitor.fold import ComparisonKey, Delta, Fold, FoldLimits, PaneKey
from monitor.judge import Interval, judge
from monitor.pane import Pane
from monitor.performance.cells import ClassificationCells, RegressionCells
from monitor.performance.metrics import classification_metrics, regression_metrics
from monitor.quality.rates import rate_p_value, weighted_rate_p_value
from monitor.version_profile import VersionProfile
from server.contract.histogram import NumericBins
from server.contract.sampling import in_sample

_LIMITS = FoldLimits(pane_us=60_000_000, grace_us=0, ttl_us=3_600_000_000, max_open=100_000)
_START_US = 1_767_614_400_000_000
_KEY = PaneKey("delay", "1", _START_US)
_PAIR = ComparisonKey("delay", "1", "2", _START_US)


def _folded(profiles: list[VersionProfile], events: Any, found: list[Any]) -> Delta:
    return Fold({profile.key: profile for profile in profiles}, _LIMITS).fold_lines(events.lines(found))


def _request(events: Any, name: str, p: float, weight: int = 1) -> list[Any]:
    """Returns prediction, shadow and label of a request."""
    return [
        events.answer(name, p * 59, p=[p], weight=weight),
        events.answer(name, p * 59, p=[1 - p], version="2", role="shadow", weight=weight),
        events.label(name, int(p > 0.4)),
    ]


def test_an_answer_of_weight_w_counts_as_w_answers(events: Any, profile_of: Callable[..., VersionProfile]) -> None:
    """In everything that a pane sums, performance included; only what it is worth differs, and a pair counts once."""
    profiles = [profile_of(), profile_of(version="2")]
    chances = [0.1, 0.35, 0.45, 0.9]
    weighted = [event for p in chances for event in _request(events, f"r{p}", p, 3)]
    copied = [event for p in chances for copy in range(3) for event in _request(events, f"r{p}-{copy}", p)]
    # A correction takes back as much as the label before it added.
    weighted += [events.label("r0.9", 0), events.label("r0.9", 1, event_id="again")]

    found, expected = _folded(profiles, events, weighted), _folded(profiles, events, copied)

    pane, whole = found.panes[_KEY], expected.panes[_KEY]
    performance = pane.performance
    assert isinstance(performance, ClassificationCells)
    assert pane.weight_excess.tolist() == [3 * 2 * 4] * 4
    assert (pane.heaviest, performance.weight_excess) == (3, 3 * 2 * 4)
    performance.weight_excess = 0
    assert whole == msgspec.structs.replace(pane, weight_excess=np.zeros(0, dtype=np.int64), heaviest=1)
    assert (found.comparisons[_PAIR].n, expected.comparisons[_PAIR].n) == (4, 12)


def test_weights_out_of_bounds_are_set_aside(events: Any, profile_of: Callable[..., VersionProfile]) -> None:
    """A weight that no server writes must not end in sums beyond 64 bits."""
    found = [events.answer("a", weight=0), events.answer("b", weight=10_001), events.answer("c", weight=10_000)]

    delta = _folded([profile_of()], events, found)

    assert [letter.reason for letter in delta.dead_letters] == ["malformed"] * 2
    assert "Expected a weight of 1 to 10000, got 0" in delta.dead_letters[0].detail
    assert delta.panes[_KEY].requests == 10_000


@pytest.mark.parametrize("every", [4, 10])
def test_estimates_from_a_sample_are_unbiased(
    every: int, events: Any, profile_of: Callable[..., VersionProfile]
) -> None:
    """The mean over several samples of every sum lies within five standard errors of the whole log's.

    A sum Σx, of which a request is kept with probability 1/k and then counts k times, has the variance
    (k - 1) Σx²: Horvitz and Thompson (1952). Errors are always kept, so their number is exact.
    """
    profile, other = profile_of(), profile_of(version="2")
    random = np.random.default_rng(11)
    chances, samples = random.beta(2, 5, 1500).tolist(), 16
    failed = {number for number in range(1500) if random.random() < 0.05}

    def log(prefix: str, every: int) -> Pane:
        found: list[Any] = []
        for number, p in enumerate(chances):
            name = f"{prefix}-{number}"
            kept = in_sample(name, every)
            if number in failed:
                found.append(events.answer(name, p * 59, p=[p], status=500))
            elif kept:
                found += _request(events, name, p, every)
        return _folded([profile, other], events, found).panes[_KEY]

    whole = log("whole", 1)
    parts = [log(f"sample-{number}", every) for number in range(samples)]

    def sums(pane: Pane) -> Any:
        performance = pane.performance
        assert isinstance(performance, ClassificationCells)
        counts = [pane.counts, pane.classes, performance.confusion.ravel(), performance.score_counts.ravel()]
        return np.concatenate([*counts, [pane.rows, pane.scored, pane.labelled]]).astype(np.float64)

    expected, found = sums(whole), np.mean([sums(part) for part in parts], axis=0)
    error = np.sqrt((every - 1) * expected / samples)  # each x is 0 or 1, so Σx² is Σx
    assert (np.abs(found - expected) <= 5 * error).all()
    assert {part.errors for part in parts} == {whole.errors} == {len(failed)}
    score_error = math.sqrt((every - 1) * sum(p * p for p in chances) / samples)
    assert abs(np.mean([part.score_sum for part in parts]) - whole.score_sum) / 2**24 <= 5 * score_error


_BINS = NumericBins(edges=[float(edge) for edge in range(20)], upper=20.0)
_CHANCES = np.concatenate([[0], np.full(20, 0.05), [0, 0]])
_ROUNDS, _ALPHA = 1500, 0.05


def _alarms(weights: dict[int, int], seed: int, *, naive: bool = False) -> tuple[int, int]:
    """Returns how often PSI and KS call a drift that is none.

    Args:
        weights: rows logged by their weight.
        seed: of the rows.
        naive: count weights as if they were rows.
    """
    random = np.random.default_rng(seed)
    psi = ks = 0
    excess = 0 if naive else sum(rows * weight * (weight - 1) for weight, rows in weights.items())
    for _ in range(_ROUNDS):
        live = sum(weight * random.multinomial(rows, _CHANCES) for weight, rows in weights.items())
        baseline = random.multinomial(5000, _CHANCES)
        found = feature_drift(
            _BINS, np.asarray(live), baseline, importance=1, alpha=_ALPHA, tolerance=-1, weight_excess=excess
        )
        assert found.ks is not None
        assert found.ks_threshold is not None
        psi += found.drifted
        ks += found.ks > found.ks_threshold
    return psi, ks


@pytest.mark.parametrize("weights", [{4: 400}, {50: 400}, {1: 400, 2: 400, 3: 200}], ids=["4", "50", "mixed"])
def test_false_alarms_do_not_become_more_frequent(weights: dict[int, int]) -> None:
    """As often as from as many rows that count once; both numbers are binomial, so four standard deviations apart."""
    rows = round(sum(w * n for w, n in weights.items()) ** 2 / sum(w * w * n for w, n in weights.items()))
    plain, _ = _alarms({1: rows}, seed=1)

    psi, ks = _alarms(weights, seed=2)

    rate = (psi + plain) / (2 * _ROUNDS)
    assert abs(psi - plain) <= 4 * math.sqrt(2 * _ROUNDS * rate * (1 - rate))
    assert ks <= _ROUNDS * _ALPHA + 4 * math.sqrt(_ROUNDS * _ALPHA * (1 - _ALPHA))


def test_weights_taken_for_rows_would_cry_wolf() -> None:
    """What the test above would find of a monitor without an effective sample size: an alarm most of the time."""
    assert _alarms({4: 400}, seed=2, naive=True)[0] > _ROUNDS / 2


def test_a_sample_is_judged_as_the_rows_it_is(profile_of: Callable[..., VersionProfile]) -> None:
    """One in k, weighted by k, has the p-values, thresholds and intervals of the rows that were logged."""
    profile, random = profile_of(), np.random.default_rng(3)
    sampled = np.concatenate([random.multinomial(200, counts / counts.sum()) for counts in profile.baseline_counts])
    truth, p = random.integers(0, 2, 200), random.random(200)
    panes = []
    for weight in (1, 7):
        cells = ClassificationCells.empty(2)
        cells.add(truth, (p > 0.5).astype(np.int64), np.stack([1 - p, p], axis=1), weight)
        excess = np.full(4, weight * (weight - 1) * 200) if weight > 1 else np.zeros(0, dtype=np.int64)
        panes.append(
            Pane(
                requests=weight * 200,
                rows=weight * 200,
                counts=weight * sampled,
                classes=np.zeros(2, dtype=np.int64),
                performance=cells,
                weight_excess=excess,
                heaviest=weight,
            )
        )
    interval = Interval(start_us=0, end_us=1, closed=True, matured=True)

    one, seven = (judge(pane, profile, interval, 0.01, 0.1) for pane in panes)

    for plain, found in zip([*one.features, one.score], [*seven.features, seven.score], strict=True):
        assert (found.drift.n, found.drift.n_effective) == (7 * plain.drift.n, plain.drift.n_effective)
        for name in ("psi", "psi_debiased", "psi_p_value", "ks", "ks_threshold", "wasserstein"):
            expected = getattr(plain.drift, name)
            assert getattr(found.drift, name) == (None if expected is None else pytest.approx(expected, rel=1e-9))
    for plain, found in zip(one.features, seven.features, strict=True):
        assert found.quality == msgspec.structs.replace(plain.quality, n=1400)
    assert one.performance is not None
    assert seven.performance is not None
    for name in ("accuracy", "log_loss", "auc", "auc_low", "auc_high", "ece", "ece_null", "ece_null_95", "n_effective"):
        assert getattr(seven.performance, name) == pytest.approx(getattr(one.performance, name), rel=1e-9)
    assert (one.performance.n, seven.performance.n) == (200, 1400)


def test_a_regression_is_worth_the_rows_that_were_logged() -> None:
    """Means are those of the rows; n is of all requests, and n_effective of those logged."""
    plain, weighted = RegressionCells.empty(), RegressionCells.empty()
    rows = np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.0, 5.0])
    plain.add(*rows)
    weighted.add(*rows, 5)

    one, five = regression_metrics(plain), regression_metrics(weighted)

    assert one is not None
    assert five is not None
    assert five == msgspec.structs.replace(one, n=15)
    assert (one.n_effective, five.n_effective) == (3, 3)


@pytest.mark.parametrize("weights", [{1: 2000, 100: 1}, {1: 500, 10: 50}, {3: 100, 7: 100}])
@pytest.mark.parametrize("rate", [0.0005, 0.01, 0.2])
def test_a_rate_of_rows_of_several_weights_keeps_its_level(weights: dict[int, int], rate: float) -> None:
    """P(p < alpha) ≤ alpha over all that rows of a known rate can show, computed and not drawn.

    The baseline is so large that it adds next to nothing.
    """
    alpha, heaviest = 0.01, max(weights)
    n = sum(weight * rows for weight, rows in weights.items())
    excess = sum(weight * (weight - 1) * rows for weight, rows in weights.items())
    chance = np.ones(1)  # of every weighted count
    for weight, rows in weights.items():
        ways = np.array([math.comb(rows, k) * rate**k * (1 - rate) ** (rows - k) for k in range(min(rows, 200) + 1)])
        spread = np.zeros(weight * (len(ways) - 1) + 1)
        spread[::weight] = ways
        chance = np.convolve(chance, spread)
    baseline_n = 10**9
    p_values = [
        weighted_rate_p_value(
            count, n, int(rate * baseline_n), baseline_n, alpha=alpha, weight_excess=excess, heaviest=heaviest
        )
        for count in range(len(chance))
    ]

    assert float(chance[np.array(p_values) < alpha].sum()) <= alpha


def test_kishs_size_would_not_do_for_rare_events() -> None:
    """One missing value in a heavy row among 10,000 light ones: 50 effective rows are no evidence of anything."""
    n, excess = 10_100, 100 * 99
    effective = round(n * n / (n + excess))
    kish = rate_p_value(round(100 * n / (n + excess)), effective, 1000, 10**7, alpha=1e-6)

    found = weighted_rate_p_value(100, n, 1000, 10**7, alpha=1e-6, weight_excess=excess, heaviest=100)

    assert kish < 1e-6 < 1e-3 < found


def test_pairs_know_no_weight() -> None:
    """What a sequential comparison is fed are pairs, each once: evidence must not be multiplied."""
    assert "weight_excess" not in PairedCells.empty().to_record()


def test_metrics_of_a_log_that_is_no_sample_are_what_they_were() -> None:
    """Effective rows are rows, to the bit."""
    cells = ClassificationCells.empty(2)
    cells.add(np.array([0, 1, 1]), np.array([0, 1, 0]), np.array([[0.8, 0.2], [0.3, 0.7], [0.6, 0.4]]))

    found = classification_metrics(cells)

    assert found is not None
    assert (found.n, found.n_effective) == (3, 3.0)
