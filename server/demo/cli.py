"""``tiltyard demo``: a year of real flights, scored, monitored and compared."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    flights: Annotated[
        int, typer.Option(min=1000, help="How many flights to replay, spread over March to December.")
    ] = 60_000,
    speed: Annotated[
        float, typer.Option(min=0, help="Seconds of 2013 per second of now; 0 is as fast as the server answers.")
    ] = 0.0,
    exit_after: Annotated[bool, typer.Option("--exit", help="End after the closing table.")] = False,
    port: Annotated[int, typer.Option(help="Port of the server; another one when it is taken.")] = 8080,
    monitor_port: Annotated[int, typer.Option(help="Port of the monitor; another one when it is taken.")] = 8090,
    folder: Annotated[Path, typer.Option(help="Where bundles, log and state go; made anew at each run.")] = Path(
        "demo-data"
    ),
) -> None:
    """Train on two months of real flights, then score the rest of the year and watch it drift.

    Version 1 (logistic regression) answers, version 2 (gradient boosting) shadows it. Each flight is
    scored at its scheduled departure; whether it was late is told when it arrived.
    """
    from rich.console import Console

    console = Console()
    try:
        # pandas and scikit-learn come with the optional extra `demo`.
        from server.demo.session import run_demo
    except ModuleNotFoundError as error:
        console.print(f"tiltyard demo: {error.name} is not installed; run: pip install 'tiltyard\\[demo]'", style="red")
        raise typer.Exit(1) from None
    from server.errors import TiltyardError

    try:
        run_demo(console, folder, flights, speed, port, monitor_port, stay=not exit_after)
    except TiltyardError as error:
        console.print(f"tiltyard demo: {error}", style="red", markup=False)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print("stopped")
        raise typer.Exit(130) from None
