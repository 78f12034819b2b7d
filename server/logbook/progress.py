"""A bar that shows how far a long reading is, where there is a terminal to show it on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Advance = Callable[[int], Any]


@contextmanager
def shown_progress(what: str, total: int) -> Iterator[Advance]:
    """Gives what is called with how many more are done; shows it on a terminal at standard error, else nothing.

    Args:
        what: is being done, in a few words.
        total: how many there are to do.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda more: progress.advance(task, more)
