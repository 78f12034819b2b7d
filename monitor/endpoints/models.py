"""``/v1/models``: findings and comparisons as JSON."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from monitor.consumer import Consumer
from monitor.endpoints.answers import json_answer
from monitor.errors import InvalidError
from monitor.findings import Findings
from monitor.history import PairsKey
from monitor.version_profile import VersionKey

_DEFAULT_PANES = 400
_SENT_ON = "sent_on"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def routes(findings: Findings, consumer: Consumer) -> list[Route]:
    """Returns the routes. The functions are not async: judging is work, so Starlette gives it a thread.

    Of several monitors each model has one judge; the others send whoever asks there.
    """

    def of_judge(answer: Callable[[Request], Response]) -> Callable[[Request], Response]:
        def answer_or_send_on(request: Request) -> Response:
            elsewhere = consumer.judge_of(request.path_params["model"])
            if elsewhere is None:
                return answer(request)
            if elsewhere.url is None:
                sentence = "another monitor is the judge of this model, and has not said yet where it answers"
                return json_answer({"error": sentence}, 503)
            if _SENT_ON in request.query_params:  # each of two monitors may take the other for the judge for a while
                return json_answer({"error": "the judge of this model is changing: try again in some seconds"}, 503)
            query = f"{request.url.query}&" if request.url.query else ""
            return RedirectResponse(f"{elsewhere.url.rstrip('/')}{request.url.path}?{query}{_SENT_ON}=1", 307)

        return answer_or_send_on

    def models(_: Request) -> Response:
        return json_answer({"models": findings.models()})

    def model(request: Request) -> Response:
        return json_answer(findings.model(request.path_params["model"], _panes(request)))

    def window(request: Request) -> Response:
        key = VersionKey(request.path_params["model"], request.path_params["version"])
        return json_answer(findings.window(key, _time(request, "start"), _time(request, "end")))

    def comparison(request: Request) -> Response:
        key = PairsKey(*(request.path_params[name] for name in ("model", "champion", "challenger")))
        return json_answer(findings.comparison_window(key, _time(request, "start"), _time(request, "end")))

    return [
        Route("/v1/models", models),
        Route("/v1/models/{model}", of_judge(model)),
        Route("/v1/models/{model}/versions/{version}/window", of_judge(window)),
        Route("/v1/models/{model}/comparisons/{champion}/{challenger}/window", of_judge(comparison)),
    ]


def _panes(request: Request) -> int:
    text = request.query_params.get("panes", str(_DEFAULT_PANES))
    # isdecimal alone would pass the digits of other scripts, and a number of any length.
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise InvalidError(f"panes: expected a whole number from 0, got {text[:40]!r}")
    return int(text)


def _time(request: Request, name: str) -> int | None:
    """Returns a time of the query in microseconds since 1970, None when it is not given."""
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        # A plus sign that was not escaped arrives as a space.
        time = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise InvalidError(f"{name}: expected an RFC 3339 time with an offset, got {text[:40]!r}")
    return (time - _EPOCH) // timedelta(microseconds=1)
