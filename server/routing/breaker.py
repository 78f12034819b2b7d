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
        # Of each part of the window: requests, failures, slow ones.
        self._counts = [[0, 0, 0] for _ in range(_PARTS)]
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
        counts = self._counts[part % _PARTS]
        counts[0] += 1
        slow = seconds > self._limit_s
        if not failed and not slow:
            return False
        counts[1] += failed
        counts[2] += slow
        if self.open_because is not None:
            return False
        self.open_because = self._judge()
        return self.open_because is not None

    def _forget(self, part: int) -> None:
        """Empties the parts of the window that have passed, and begins the present one."""
        for gone in range(max(self._part + 1, part - _PARTS + 1), part + 1):
            self._counts[gone % _PARTS] = [0, 0, 0]
        self._part = part

    def _judge(self) -> str | None:
        guard = self._guard
        requests, failed, slow = (sum(column) for column in zip(*self._counts, strict=True))
        if requests < guard.min_requests:
            return None
        over = f"of {requests} requests within {guard.window_s:g} s"
        if guard.error_rate is not None and failed > guard.error_rate * requests:
            return f"{failed} {over} failed, expected at most {guard.error_rate:.3g} of them"
        if guard.latency_ms is not None and slow > guard.slow_rate * requests:
            most = f"expected at most {guard.slow_rate:.3g} of them"
            return f"{slow} {over} took longer than {guard.latency_ms:g} ms, {most}"
        return None
