import numpy as np
import pytest

from monitor.comparison.paired import PairedCells, bounded_error_gain, bounded_gain


def test_pairs_are_told_apart() -> None:
    """Every pair is in one of four cells, by who was right."""
    cells = PairedCells.empty()
    kinds = [(True, True), (True, False), (False, True), (False, False)]
    champion, challenger = np.repeat(np.array(kinds), [4, 1, 3, 2], axis=0).T

    cells.add(champion, challenger, champion == challenger, np.zeros(10))

    assert (10, 4, 1, 3, 2, 6) == (
        cells.n,
        cells.both_right,
        cells.champion_only,
        cells.challenger_only,
        cells.both_wrong,
        cells.agree,
    )


def test_gain_is_the_fall_of_log_loss() -> None:
    """Within the limit, four times the gain is by how many nats the challenger's log loss is lower."""
    champion, challenger = np.array([0.2, 1.0, 3.9]), np.array([0.3, 0.1, 0.0])

    assert 4 * bounded_gain(champion, challenger) == pytest.approx(champion - challenger)


def test_gain_is_bounded() -> None:
    """However large, infinite or undefined the losses are, a gain lies in [-1, 1]."""
    losses = np.array([0.0, 3.0, 16.0, np.inf, np.nan])

    gains = bounded_gain(losses, losses[::-1])

    assert [-1.0, -0.25, 0.0, 0.25, 1.0] == gains.tolist()


def test_error_gain_is_in_variances() -> None:
    """Within the limit, four times a regression's gain is the fall of the squared error in variances."""
    gains = bounded_error_gain(np.array([1.0, -3.0]), np.array([2.0, 0.0]), variance=9.0)

    assert (4 * gains).tolist() == pytest.approx([-3 / 9, 1.0])


def test_error_gain_is_bounded() -> None:
    """Errors too large to square, or undefined, count as the limit."""
    gains = bounded_error_gain(np.array([1e300, np.nan, 0.0]), np.array([0.0, 0.0, -np.inf]), variance=1.0)

    assert [1.0, 1.0, -1.0] == gains.tolist()


@pytest.mark.parametrize("variance", [0.0, -1.0, float("nan")])
def test_variance_is_checked(variance: float) -> None:
    """A target that does not vary gives no unit to measure gains in."""
    with pytest.raises(ValueError, match="expected a variance above 0"):
        bounded_error_gain(np.zeros(1), np.zeros(1), variance)


@pytest.mark.parametrize("gain", [1.01, np.nan])
def test_gain_is_checked(gain: float) -> None:
    """A gain outside [-1, 1] would break the interval's guarantee and is refused."""
    with pytest.raises(ValueError, match=r"expected gains in \[-1, 1\]"):
        PairedCells.empty().add(*[np.array([True])] * 3, gain=np.array([gain]))
