"""``/health``: whether the log is being read, how far, and what was passed over."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from monitor.consumer import Consumer
from monitor.endpoints.answers import json_answer
from monitor.sources.bundles import BundleFolder

_ALWAYS = (
    "prediction", "shadow", "label", "audit", "malformed", "unknown_version", "corrupt", "duplicates", "late",
    "expired", "orphan_labels", "invalid_labels", "gap_events", "open_requests",
)  # fmt: skip


def routes(consumer: Consumer, bundles: BundleFolder) -> list[Route]:
    """Returns the route. It answers 503 once the consume loop has died, with the reason."""

    async def health(_: Request) -> Response:
        progress, counters, failure = consumer.progress, consumer.counters, consumer.failure
        reason = failure
        if reason is None and progress.end is None:
            reason = "waiting for the outbox"
        document = {
            "status": "ok" if failure is None else "failing",
            "reason": reason,
            "source": {
                "log_id": progress.log_id,
                "offset": progress.offset,
                "end": progress.end,
                "lag_events": None if progress.end is None else max(0, progress.end - progress.offset),
                "lag_s": progress.lag_s,
            },
            "counters": {name: counters[name] for name in sorted({*_ALWAYS, *counters})},
            "bundles": {
                "watched": [f"{key.model}/{key.version}" for key in sorted(bundles.profiles)],
                "refused": {f"{key.model}/{key.version}": text for key, text in sorted(bundles.failures.items())},
            },
        }
        return json_answer(document, 200 if failure is None else 503)

    return [Route("/health", health)]
