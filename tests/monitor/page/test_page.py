"""The status page in a real browser, over a server that answers as the monitor's API does."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from monitor.comparison.compare import compare
from monitor.comparison.paired import PairedCells
from monitor.drift.feature import feature_drift
from monitor.performance.cells import ClassificationCells
from monitor.performance.metrics import classification_metrics
from monitor.quality.rates import feature_quality
from server.contract.histogram import CategoricalBins, quantile_bins
from tests.browser import open_browser

PAGE = Path(__file__).parents[3] / "monitor" / "page"
HOSTILE = "<img src=x onerror=alert(1)>"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
)
VERDICT = (
    r"^Challenger 2 beats champion 1 by 0\.400 nats of log loss \[0\.39\d, 0\.40\d\] on 18,000 labelled rows; "
    "e-value 10\\^\N{MINUS SIGN}1\\.1$"
)
DAY_S = 86_400

HEALTH = {
    "status": "ok",
    "source": {"log_id": "a", "offset": 90, "end": 97, "lag_events": 7, "lag_s": 0.25},
    "counters": {
        "prediction": 1000,
        "label": 500,
        "malformed": 2,
        "unknown_version": 1,
        "open_requests": 12,
    },
}


def finding(seed: int, start: str, end: str, *, shift: float, rows: int, labelled: int, hostile: str) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    training = rng.normal(size=5_000)
    temperature, carrier = quantile_bins(training), CategoricalBins(categories=["AA", hostile])
    p = rng.beta(2, 5, labelled)
    cells = ClassificationCells.empty(2)
    cells.add((rng.random(labelled) < p).astype(np.int64), (p >= 0.5).astype(np.int64), np.stack([1 - p, p], axis=1))
    judged = []
    for name, bins, live, baseline, importance in (
        ("temperature", temperature, temperature.count(rng.normal(shift, 1, rows)), temperature.count(training), 0.02),
        (hostile, carrier, np.array([rows // 2, rows // 4, rows // 4, 0]), np.array([2_500, 2_500, 0, 0]), 0.0001),
    ):
        drift = feature_drift(bins, live, baseline, importance=importance, alpha=0.001, tolerance=0.1)
        quality = feature_quality(bins, live, baseline, alpha=0.001)
        judged.append(
            {
                "name": name,
                "kind": bins.__struct_config__.tag,
                "importance": importance,
                "drift": drift,
                "quality": quality,
            }
        )
    return {
        "start": start,
        "end": end,
        "closed": True,
        "matured": True,
        "requests": rows // 2,
        "rows": rows,
        "errors": 0,
        "labelled": labelled,
        "coverage": labelled / rows,
        "features": judged,
        "score": {"mean": 0.3, "drift": judged[0]["drift"]},
        "performance": classification_metrics(cells),
    }


def model(
    name: str = "flight-delay", *, labels: bool = True, hostile: str = "carrier", rows: int = 400
) -> dict[str, Any]:
    """A model of two versions over four days, of which the third is silent."""
    days = [("2013-03-01T00:00:00Z", "2013-03-02T00:00:00Z"), ("2013-03-02T00:00:00Z", "2013-03-03T00:00:00Z")]
    days.append(("2013-03-04T00:00:00Z", "2013-03-05T00:00:00Z"))
    labelled = 300 if labels else 0
    versions = []
    for number, role in (("1", "champion"), ("2", "shadow")):
        panes = [
            finding(day, *ends, shift=float(day), rows=rows, labelled=labelled, hostile=hostile)
            for day, ends in enumerate(days)
        ]
        total = finding(9, days[0][0], days[-1][1], shift=1.0, rows=3 * rows, labelled=3 * labelled, hostile=hostile)
        baseline = {"rows": 5_000, "metrics": {"roc_auc": 0.99, "accuracy": 0.5, "log_loss": 0.1}}
        versions.append({"version": number, "role": role, "baseline": baseline, "total": total, "panes": panes})
    pairs = PairedCells.empty()
    if labels:
        right = np.arange(900) % 10 > 2
        pairs.add(np.roll(right, 1), right, right, np.full(900, 0.1))
    comparison = msgspec.to_builtins(compare([pairs] * 20, alpha=0.05))
    comparison |= {"champion": "1", "challenger": "2", "matured_panes": 20}
    comparison["current"] = {"pairs": 18_900, "accuracy_gain": 0.0, "gain": 0.4} if labels else {"pairs": 0}
    document = {"model": name, "task": "binary", "pane_s": DAY_S, "watermark": days[-1][1], "versions": versions}
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode({**document, "comparisons": [comparison]}))
    return decoded


class Monitor:
    """The monitor's HTTP face with answers that a test sets, under the strictest of policies."""

    def __init__(self) -> None:
        self.health: dict[str, Any] = HEALTH
        self.health_status = 200
        self.models: dict[str, dict[str, Any]] = {}
        app = Starlette(
            routes=[
                Route("/", lambda _: FileResponse(PAGE / "index.html", headers={"content-security-policy": POLICY})),
                Mount("/page", StaticFiles(directory=PAGE)),
                Route("/health", self._health),
                Route("/v1/models", self._models),
                Route("/v1/models/{name:path}", self._model),
            ]
        )
        config = uvicorn.Config(app, port=0, ws="none", lifespan="off", log_config=None, timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="monitor-stub")

    def _run(self) -> None:
        startup = self._server.startup

        async def announce(*args: Any, **kwargs: Any) -> None:
            await startup(*args, **kwargs)
            self._started.set()

        self._server.startup = announce  # type: ignore[method-assign]  # uvicorn has no event for this
        self._server.run()

    def start(self) -> str:
        """Returns the address, once the server listens."""
        self._thread.start()
        assert self._started.wait(10)
        return f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    async def _health(self, _: Request) -> Response:
        return JSONResponse(self.health, status_code=self.health_status)

    async def _models(self, _: Request) -> Response:
        return JSONResponse({"models": [{"model": name, "task": "binary"} for name in self.models]})

    async def _model(self, request: Request) -> Response:
        return JSONResponse(self.models[request.path_params["name"]])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    stub = Monitor()
    yield stub
    stub.stop()


class Visit:
    """An open page and what its console complained of."""

    def __init__(self, browser: Browser, address: str, width: int, scheme: Any) -> None:
        self.page: Page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page.set_default_timeout(10_000)
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append("a dialog"), dialog.dismiss()))
        self.page.goto(address)


@pytest.fixture
def visit(browser: Browser, monitor: Monitor) -> Iterator[Any]:
    visits: list[Visit] = []

    def open_page(width: int = 1280, scheme: str = "light") -> Visit:
        visits.append(Visit(browser, monitor.start(), width, scheme))
        return visits[-1]

    yield open_page
    for one in visits:
        one.page.close()


def test_panels_are_filled(monitor: Monitor, visit: Any) -> None:
    """Every panel shows what the API says, without a word in the console under a policy that allows nothing inline."""
    monitor.models = {"flight-delay": model()}
    opened = visit()
    page = opened.page

    expect(page.locator("#updated")).to_contain_text("Last updated")
    expect(page.locator("#health")).to_contain_text("7 events, 250 ms")
    expect(page.locator("#health")).to_contain_text("! 3")
    expect(page.locator("#versions article")).to_have_count(2)
    expect(page.locator("#versions article").first).to_contain_text(
        "1,200 rows in 600 requests, 0 errors. 900 labelled"
    )
    changes = page.locator("#versions article").first.locator("tbody tr td:last-child")
    expect(changes).to_have_text([re.compile(want) for want in ("worse", "better", "worse", r"^\W$", r"^\W$")])
    expect(page.locator("#comparisons .verdict")).to_have_text(re.compile(VERDICT))
    expect(page.locator("#comparisons svg")).to_have_attribute("role", "img")
    expect(page.locator("#charts svg[role=img]")).to_have_count(3)
    expect(page.locator("#features tbody tr")).to_have_count(3)
    expect(page.locator("#features tbody tr").nth(1)).to_contain_text("drifted")
    expect(page.locator("#features tbody tr").nth(2)).to_contain_text("new category")
    expect(page.locator("#reliability svg[role=img]")).to_have_count(1)
    expect(page.locator("#reliability")).to_contain_text("calibration error")
    expect(page.locator("#model-picker")).to_be_hidden()
    assert opened.complaints == []


def test_heat_strip(monitor: Monitor, visit: Any) -> None:
    """Each feature has a cell for every day, the silent one too, and names itself and its figures on hovering."""
    monitor.models = {"flight-delay": model()}
    page = visit().page
    expect(page.locator(".heat-labels li")).to_have_text(["score", "temperature", "carrier"])

    cells = page.locator(".heat svg rect:not(.frame)")

    expect(cells).to_have_count(3 * 4)
    assert "nothing" == cells.nth(4 + 2).get_attribute("class")
    assert cells.nth(4).get_attribute("class") in ("level0", "level1")
    assert "level5" == cells.nth(4 + 3).get_attribute("class")
    title = cells.nth(4 + 3).locator("title").text_content()
    assert re.search(r"temperature, 2013-03-04\nPSI .*\nKS .*\nn = 400\ndrifted", title or "")


def test_choosing_a_pane(monitor: Monitor, visit: Any) -> None:
    """A click on the heat strip shows that pane's features, a second click all panes again."""
    monitor.models = {"flight-delay": model()}
    page = visit().page
    psi = page.locator("#features tbody tr").nth(1).locator("td").first
    expect(psi).to_have_attribute("title", re.compile("n = 1,200"))

    page.locator(".heat svg rect").nth(4).click()

    expect(psi).to_have_attribute("title", re.compile("n = 400"))
    expect(page.locator("#pane option:checked")).to_have_text("2013-03-01")
    page.locator(".heat svg rect").nth(4).click()
    expect(page.locator("#pane option:checked")).to_have_text("all panes")
    page.locator("#pane").select_option("2013-03-04")
    expect(page.locator(".heat svg .frame")).to_have_count(1)


@pytest.mark.parametrize("width", [1280, 400])
def test_hostile_names_are_text(monitor: Monitor, visit: Any, width: int) -> None:
    """A model, feature, category or version named like markup is shown as it is spelt and runs nothing."""
    document = model(HOSTILE, hostile=HOSTILE)
    document["versions"][1]["version"] = document["comparisons"][0]["challenger"] = HOSTILE
    document["versions"][1]["role"] = HOSTILE
    monitor.models = {HOSTILE: document}
    monitor.health, monitor.health_status = {**HEALTH, "status": "failing", "reason": HOSTILE}, 200
    opened = visit(width)
    page = opened.page

    expect(page.locator(".heat-labels li").nth(2)).to_have_text(HOSTILE)
    expect(page.locator("#features tbody th").nth(2)).to_have_text(HOSTILE)
    expect(page.locator("#features tbody tr").nth(2)).to_contain_text(HOSTILE)
    expect(page.locator("#versions h3").nth(1)).to_contain_text(f"{HOSTILE} {HOSTILE}")
    expect(page.locator("#comparisons .verdict")).to_contain_text(f"Challenger {HOSTILE} beats")
    expect(page.locator("#health")).to_contain_text(HOSTILE)
    assert page.locator("img").count() == 0
    assert opened.complaints == []


def test_waiting_for_the_first_event(monitor: Monitor, visit: Any) -> None:
    """A monitor without events says what it waits for, and fills its panels when they come, without a reload."""
    opened = visit()
    page = opened.page
    expect(page.get_by_role("heading", name="Waiting for the first event")).to_be_visible()
    expect(page.locator("#panels")).to_be_hidden()

    monitor.models = {"flight-delay": model()}

    expect(page.locator("#versions article")).to_have_count(2)
    expect(page.locator("#empty")).to_be_hidden()
    assert opened.complaints == []


def test_no_labels_yet(monitor: Monitor, visit: Any) -> None:
    """Without labels drift is shown, and performance says that none have arrived rather than 0."""
    monitor.models = {"flight-delay": model(labels=False)}
    opened = visit()
    page = opened.page

    expect(page.locator("#charts")).to_contain_text("No labels yet")
    expect(page.locator("#reliability")).to_contain_text("No labels yet")
    expect(page.locator("#comparisons")).to_contain_text(
        "No pane with both versions' answers and their truth has matured"
    )
    expect(page.locator("#features tbody tr")).to_have_count(3)
    expect(page.locator("#versions .metrics td").first).to_have_text("\N{EN DASH}")
    assert opened.complaints == []


def test_unreachable(monitor: Monitor, visit: Any) -> None:
    """When the monitor goes away the page keeps its figures, says since when they stand, and calls nothing ok."""
    monitor.models = {"flight-delay": model()}
    page = visit().page
    expect(page.locator("#versions article")).to_have_count(2)

    monitor.stop()

    expect(page.get_by_role("alert")).to_contain_text(
        re.compile(r"Monitor unreachable\. What you see is from \d\d:\d\d:\d\d")
    )
    expect(page.locator("#versions article")).to_have_count(2)
    expect(page.locator("body")).to_have_class("stale")
    expect(page.locator("#health .good")).to_be_hidden()


def test_failing_monitor_gives_its_reason(monitor: Monitor, visit: Any) -> None:
    """A monitor that answers 503 is not unreachable: its reason is shown."""
    monitor.models = {"flight-delay": model()}
    monitor.health, monitor.health_status = {**HEALTH, "status": "failing", "reason": "the outbox is locked"}, 503
    page = visit().page

    expect(page.locator("#health")).to_contain_text("✗ failing")
    expect(page.locator("#health")).to_contain_text("the outbox is locked")
    expect(page.locator("#unreachable")).to_be_hidden()


def test_new_figures_appear(monitor: Monitor, visit: Any) -> None:
    """The page asks again by itself and shows what changed, keeping the choices made."""
    monitor.models = {"flight-delay": model()}
    page = visit().page
    page.locator("#metric").select_option("Log loss")
    page.locator("#version").select_option("2, shadow")
    expect(page.locator("#versions article").first).to_contain_text("1,200 rows")

    monitor.models = {"flight-delay": model(rows=4_000)}

    expect(page.locator("#versions article").first).to_contain_text("12,000 rows")
    expect(page.locator("#metric option:checked")).to_have_text("Log loss")
    expect(page.locator("#features-title")).to_have_text("Features of version 2")


def test_several_models(monitor: Monitor, visit: Any) -> None:
    """With several models one is picked, and the address remembers which."""
    monitor.models = {"flight-delay": model(), "fares?eu": model("fares?eu", rows=80, labels=False)}
    page = visit().page
    expect(page.locator("#versions h3").first).to_contain_text("flight-delay 1")

    page.locator("#model").select_option("fares?eu")

    expect(page.locator("#versions h3").first).to_contain_text("fares?eu 1")
    page.reload()
    expect(page.locator("#versions h3").first).to_contain_text("fares?eu 1")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_screens(monitor: Monitor, visit: Any, scheme: str) -> None:
    """On a telephone nothing is wider than the screen, in either scheme."""
    monitor.models = {"flight-delay": model()}
    opened = visit(400, scheme)
    expect(opened.page.locator("#features tbody tr")).to_have_count(3)

    overflow = opened.page.evaluate("() => document.documentElement.scrollWidth - innerWidth")

    assert overflow <= 0
    assert opened.complaints == []


def test_regression(monitor: Monitor, visit: Any) -> None:
    """A regression shows its own metrics and no reliability."""
    document = model()
    document["task"] = "regression"
    for version in document["versions"]:
        version["baseline"]["metrics"] = {"rmse": 3.0}
        for one in [version["total"], *version["panes"]]:
            one["performance"] = {"n": 300, "unusable": 0, "mae": 1.5, "rmse": 2.25, "bias": 0.1, "r2": None}
    monitor.models = {"fares": document}
    opened = visit()

    expect(opened.page.locator("#versions .metrics").first).to_contain_text("2.250")
    expect(opened.page.locator("#reliability")).to_contain_text("Reliability is of classifiers")
    expect(opened.page.locator(".verdict")).to_contain_text("variances of squared error")
    assert opened.complaints == []


@pytest.mark.parametrize("name", ["index.html", "page.js", "panels.js", "charts.js", "elements.js", "page.css"])
def test_nothing_inline_nothing_outside(name: str) -> None:
    """The page's files load nothing from other hosts and carry no inline script, style or parsed markup."""
    text = (PAGE / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")

    assert re.findall(r"https?://|@import|url\(|innerHTML|outerHTML|insertAdjacentHTML|\.style\b|eval\(", text) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text) == []
