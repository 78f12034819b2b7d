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
    """Returns the route. It answers 503 once the consume loop has died or a partition stands still, with the reason.

    A log that is waited for, a broker that is away among them, is a reason beside 200: a restart would not bring it.
    """

    async def health(_: Request) -> Response:
        progress, counters, failure = consumer.progress, consumer.counters, consumer.failure
        document = {
            "status": "ok" if failure is None else "failing",
            "reason": progress.waiting if failure is None else failure,
            "source": {
                "log_id": progress.log_id,
                "offset": progress.offset,
                "end": progress.end,
                "lag_events": None if progress.end is None else sum(place.lag for place in progress.places.values()),
                "lag_s": progress.lag_s,
                "partitions": {str(number): place._asdict() for number, place in progress.places.items()},
            },
            "counters": {name: counters[name] for name in sorted({*_ALWAYS, *counters})},
            "bundles": {
                "watched": [f"{key.model}/{key.version}" for key in sorted(bundles.profiles)],
                "refused": {f"{key.model}/{key.version}": text for key, text in sorted(bundles.failures.items())},
            },
        }
        return json_answer(document, 200 if failure is None else 503)

    return [Route("/health", health)]
