"""Routes, differences and histories as people read them, on 80 columns or in a pipe.

What came from a server is shown as it is: no markup in it, no control characters.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from server.routes.client import Entry, plain
from server.routing.assignment import lanes_of
from server.routing.changes import Arm, Difference
from server.routing.document import Guard, Range, Route
from server.routing.ranges import champion_share

_WIDE = 1000  # in a pipe nothing is wrapped: a line of a table is a line


def console_for(*, stderr: bool = False) -> Console:
    """Returns the console of standard output or error; a terminal has its width, a pipe takes whole lines."""
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=_WIDE)


def percent(share: float) -> str:
    """Returns a share in percent, to the billionth.

    Example:
        >>> percent(0.05), percent(0.005), percent(1 / 3), percent(0.0)
        ('5 %', '0.5 %', '33.3333333 %', '0 %')
    """
    digits = f"{share * 100:.7f}".rstrip("0").rstrip(".")
    return f"{digits} %"


def print_route(console: Console, model: str, route: Route, revision: int) -> None:
    """Prints who answers what, and by which rules."""
    held = f"revision {revision}" if revision else "no document yet: the newest version is champion"
    _say(console, f"{model}, {held}")
    rules = Table.grid(padding=(0, 2))
    rules.add_row("unit", _text(route.unit or "the request id"))
    rules.add_row("salt", _text(route.salt or f"{model} (the model's name)"))
    for place, override in enumerate(route.overrides):
        rules.add_row("" if place else "overrides", _text(f"{override.header}: {override.value} → {override.version}"))
    console.print(rules)
    console.print()
    table = _table("version", "role", "share", "parts of the units", "guard")
    table.columns[2].justify = "right"
    parts = _parts(route)
    table.add_row(
        _text(route.champion),
        "champion",
        _text(percent(champion_share(route))),
        _ranges(console, parts.get(route.champion, ())),
    )
    for each in route.challengers:
        table.add_row(
            _text(each.version),
            each.mode,
            _text(percent(each.share)),
            _ranges(console, parts.get(each.version, ())),
            _guard(console, each.guard),
        )
    console.print(table)


def print_difference(console: Console, difference: Difference, route: Route) -> None:
    """Prints what a change means; ``route`` is the one after it."""
    if not (difference.versions or difference.moves or difference.members or difference.reassigned):
        _say(console, "Nothing differs.")
        return
    if difference.versions:
        table = _table("version", "before", "", "after", "")
        for column in (table.columns[2], table.columns[4]):
            column.justify = "right"
        for each in difference.versions:
            table.add_row(_text(each.version), *_arm(each.before), *_arm(each.after))
        console.print(table)
    for move in difference.moves:
        _say(console, f"{percent(move.share)} of the units move from version {move.source} to version {move.target}.")
    if difference.members:
        _say(console, f"Also different: {', '.join(_member(name, route) for name in difference.members)}.")
    if difference.reassigned:
        _say(console, "Every unit gets a new place, as unit or salt differ: many will have another version.")


def print_history(console: Console, entries: Sequence[Entry]) -> None:
    """Prints revisions, the newest first."""
    table = _table("revision", "time (UTC)", "change", "route", "reason")
    table.columns[0].justify = "right"
    for place, entry in enumerate(entries):
        if place and console.is_terminal:
            table.add_row()
        table.add_row(
            str(entry.revision),
            _lines(console, moment(entry.time).split(), " "),
            _lines(console, _doer(entry), " "),
            _lines(console, _roles(entry.route), ", "),
            _text(entry.reason or ""),
        )
    console.print(table)


def print_entry(console: Console, entry: Entry) -> None:
    """Prints how a revision came about, in one line."""
    reason = f": {entry.reason}" if entry.reason else ""
    _say(console, f"{moment(entry.time)} UTC  revision {entry.revision}, {' '.join(_doer(entry))}{reason}")


def moment(time: datetime) -> str:
    """Returns a time in UTC, to the second."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _say(console: Console, sentence: str) -> None:
    console.print(_text(sentence))


def _doer(entry: Entry) -> list[str]:
    """Returns the action and who did it; ``guard`` and ``file`` are both."""
    return [entry.action] if entry.by in ("", entry.action) else [entry.action, f"by {entry.by}"]


def _text(text: str) -> Text:
    return Text(plain(text))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def _lines(console: Console, lines: Sequence[str], separator: str) -> Text:
    """Returns lines below each other on a terminal, one line in a pipe."""
    return Text(("\n" if console.is_terminal else separator).join(plain(line) for line in lines))


def _ranges(console: Console, ranges: Sequence[Range]) -> Text:
    return _lines(console, [f"{percent(start)[:-2]}-{percent(end)}" for start, end in ranges], ", ")


def _parts(route: Route) -> dict[str, list[Range]]:
    """Returns which parts of [0, 1) each version answers."""
    lanes = lanes_of(route)
    found: dict[str, list[Range]] = {}
    for start, end, owner in zip((0.0, *lanes.cuts), (*lanes.cuts, 1.0), lanes.owners, strict=True):
        if start < end:
            found.setdefault(owner, []).append((start, end))
    return found


def _guard(console: Console, guard: Guard | None) -> Text:
    if guard is None:
        return Text("")
    lines = [] if guard.error_rate is None else [f"failed > {percent(guard.error_rate)}"]
    if guard.latency_ms is not None:
        lines.append(f"over {guard.latency_ms:g} ms > {percent(guard.slow_rate)}")
    lines.append(f"of {guard.min_requests} or more in {guard.window_s:g} s")
    return _lines(console, lines, "; ")


def _arm(arm: Arm) -> tuple[Text, Text]:
    return (_text("not there"), Text("")) if arm.role == "none" else (_text(arm.role), _text(percent(arm.share)))


def _member(name: str, route: Route) -> str:
    """Returns a member's name, with its value after the change where that is short."""
    if name == "unit":
        return f"unit (now {route.unit or 'the request id'})"
    if name == "salt":
        return f"salt (now {route.salt or 'the name of the model'})"
    return name


def _roles(route: Route) -> list[str]:
    rows = [f"{route.champion} champion {percent(champion_share(route))}"]
    return rows + [f"{each.version} {each.mode} {percent(each.share)}" for each in route.challengers]
