"""How long a graph's runs take, by their rows, learned from those it has had."""

_SIZES = 40
_GAIN = 0.2
_SURPRISE = 4.0


class Pace:
    """Expected seconds of a run, kept for every power of two of rows.

    A moving average, in which a run counts as four times what was expected at most: one that the machine interrupted
    says little about the next one.
    """

    __slots__ = ("_seconds",)

    def __init__(self) -> None:
        self._seconds: list[float] = [0.0] * _SIZES

    def ran(self, rows: int, seconds: float) -> None:
        """Learns from a run of so many rows."""
        size = rows.bit_length()
        expected = self._seconds[size]
        if expected == 0.0:
            self._seconds[size] = seconds
        else:
            self._seconds[size] = expected + _GAIN * (min(seconds, _SURPRISE * expected) - expected)

    def expected_s(self, rows: int) -> float:
        """Returns what a run of so many rows will take, 0 when there was none yet.

        For rows never seen, the next smaller size scaled up as if every row cost the same, else the next larger one.
        """
        size = rows.bit_length()
        seconds = self._seconds
        if seconds[size]:
            return seconds[size]
        for smaller in range(size - 1, -1, -1):
            if seconds[smaller]:
                return seconds[smaller] * 2.0 ** (size - smaller)
        return next((each for each in seconds[size + 1 :] if each), 0.0)
