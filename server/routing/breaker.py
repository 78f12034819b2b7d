"""A circuit breaker: counts how a challenger does over a sliding window, and opens for good beyond its limits."""

from server.routing.document import Guard

_PARTS = 10


class Breaker:
    """Counts one challenger's requests in this process. ``open_because`` says why it gets no more of them."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._part_s = guard.window_s / _PARTS
        self._limit_s = float("inf") if guard.latency_ms is None else guard.latency_ms / 1000
        self._part = 0
        # Requests, failures, slow ones: of each part of the window, and of all parts together.
        self._counts = [[0, 0, 0] for _ in range(_PARTS)]
        self._sums = [0, 0, 0]
        self.open_because: str | None = None

    def record(self, now_s: float, seconds: float, *, failed: bool) -> bool:
        """Counts a request, and returns True when it is the one that opens the breaker.

        Args:
            now_s: of a monotonic clock.
            seconds: the request's time.
            failed: whether it ended in an error.
        """
        part = int(now_s / self._part_s)
        if part != self._part:
            self._forget(part)
        for counts in (self._counts[part % _PARTS], self._sums):
            counts[0] += 1
            counts[1] += failed
            counts[2] += seconds > self._limit_s
        if self.open_because is not None:
            return False
        self.open_because = self._judge()
        return self.open_because is not None

    def _forget(self, part: int) -> None:
        """Empties the parts of the window that have passed, and begins the present one."""
        for gone in range(max(self._part + 1, part - _PARTS + 1), part + 1):
            self._sums = [total - count for total, count in zip(self._sums, self._counts[gone % _PARTS], strict=True)]
            self._counts[gone % _PARTS] = [0, 0, 0]
        self._part = part

    def _judge(self) -> str | None:
        guard = self._guard
        requests, failed, slow = self._sums
        if requests < guard.min_requests:
            return None
        over = f"of {requests} requests within {guard.window_s:g} s"
        # Divided rather than multiplied: 0.29 * 100 is less than 29.
        if guard.error_rate is not None and failed / requests > guard.error_rate:
            return f"{failed} {over} failed, expected at most {guard.error_rate:.3g} of them"
        if guard.latency_ms is not None and slow / requests > guard.slow_rate:
            most = f"expected at most {guard.slow_rate:.3g} of them"
            return f"{slow} {over} took longer than {guard.latency_ms:g} ms, {most}"
        return None
