"""The demo's closing table: what the monitor found, month by month, asked over its own API."""

import itertools
from datetime import UTC, datetime
from typing import Any

import httpx
from rich import box
from rich.console import Console
from rich.table import Table

from server.demo.training import CHALLENGER, CHAMPION, MODEL
from server.errors import TiltyardError


class ReportError(TiltyardError):
    """The monitor has nothing to report."""


MONTHS = (*(datetime(2013, month, 1, tzinfo=UTC) for month in range(3, 13)), datetime(2014, 1, 2, tzinfo=UTC))


def print_report(monitor: httpx.Client, console: Console) -> None:
    """Prints the table and, in words, what drifted, how AUC moved, and which model won."""
    table = Table(title="What the monitor saw", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("month", "flights", "late", "AUC 1", "AUC 2", "gain of 2", "moved most (PSI)"):
        table.add_column(heading, justify="left" if heading in ("month", "moved most (PSI)") else "right", no_wrap=True)
    aucs: list[tuple[str, float, float]] = []
    for start, end in itertools.pairwise(MONTHS):
        champion = _window(monitor, f"versions/{CHAMPION}", start, end)
        challenger = _window(monitor, f"versions/{CHALLENGER}", start, end)
        if not champion["rows"]:
            continue
        pair = _window(monitor, f"comparisons/{CHAMPION}/{CHALLENGER}", start, end)
        aucs.append((f"{start:%B}", _metric(champion, "auc"), _metric(challenger, "auc")))
        table.add_row(
            f"{start:%b}",
            f"{champion['rows']:,}",
            _percent(_late(champion)),
            *(f"{auc:.3f}" for auc in aucs[-1][1:]),
            f"{pair['current']['gain']:+.4f}",
            ", ".join(f"{name} {psi:.2f}" for name, psi in _moved(champion)[:2]) or "none",
        )
    if not aucs:
        raise ReportError("the monitor counted none of the flights; its log says more")
    console.print(table)
    console.print("gain of 2: nats of log loss per flight that version 2 is better than version 1\n", style="dim")
    for sentence in _sentences(monitor.get(f"/v1/models/{MODEL}", params={"panes": 1}).raise_for_status().json(), aucs):
        console.print(f"• {sentence}", highlight=False)


def _sentences(document: dict[str, Any], aucs: list[tuple[str, float, float]]) -> list[str]:
    champion = next(version for version in document["versions"] if version["version"] == CHAMPION)
    moved = _moved(champion["total"], by="ranked")
    total = champion["total"]["performance"]
    trained = champion["baseline"]["metrics"]
    best, worst = max(aucs, key=lambda row: row[1]), min(aucs, key=lambda row: row[1])
    better = sum(challenger > champion for _, champion, challenger in aucs)
    sentences = [
        f"Drift that matters (shift times importance): {', '.join(name for name, _ in moved[:4]) or 'none'}.",
        f"AUC of the champion (logistic regression): {trained['roc_auc']:.3f} in training, {total['auc']:.3f} since; "
        f"best in {best[0]} ({best[1]:.3f}), worst in {worst[0]} ({worst[1]:.3f}).",
        f"The challenger (gradient boosting) had the higher AUC in {better} of {len(aucs)} months.",
    ]
    for pair in document["comparisons"]:
        leader = {"champion": "the champion stays ahead", "challenger": "the challenger wins", None: "no winner yet"}
        sentences.append(
            f"Paired on {pair['pairs']:,} flights whose truth is in, {leader[pair['leader']]}: "
            f"{pair['gain']:+.4f} nats of log loss a flight, 95 % confidence sequence "
            f"[{pair['gain_low']:+.4f}, {pair['gain_high']:+.4f}], valid however often one looks."
        )
    return sentences


def _window(monitor: httpx.Client, what: str, start: datetime, end: datetime) -> dict[str, Any]:
    bounds = {"start": start.isoformat(), "end": end.isoformat()}
    finding: dict[str, Any] = monitor.get(f"/v1/models/{MODEL}/{what}/window", params=bounds).raise_for_status().json()
    return finding


def _metric(finding: dict[str, Any], name: str) -> float:
    value = (finding["performance"] or {}).get(name)
    return float("nan") if value is None else float(value)


def _late(finding: dict[str, Any]) -> float:
    """Returns the share of labelled flights that were late, from the reliability bins."""
    bins = (finding["performance"] or {}).get("reliability") or []
    n = sum(part["n"] for part in bins)
    return sum(part["y"] * part["n"] for part in bins) / n if n else float("nan")


def _moved(finding: dict[str, Any], by: str = "psi_debiased") -> list[tuple[str, float]]:
    """Returns the features that drifted with their debiased PSI, the most moved first."""
    drifted = [feature for feature in finding["features"] if feature["drift"]["drifted"]]
    drifted.sort(key=lambda feature: -feature["drift"][by])
    return [(feature["name"], feature["drift"]["psi_debiased"]) for feature in drifted]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
