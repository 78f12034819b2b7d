"""``tiltyard monitor``: the command. Light to import, for the root command's help shows it too."""

from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

_GROUPS = {"pane_s": ("pane", "length_s"), "join_ttl_s": ("join", "ttl_s"), "maturity_s": ("join", "maturity_s")}


def monitor(
    models: Annotated[
        Path | None, typer.Option(help="Folder of the bundles, MODELS/<model>/<version>/.", show_default="models")
    ] = None,
    outbox: Annotated[
        Path | None, typer.Option(help="The server's event log. It may be created later.", show_default="outbox.db")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="The monitor's own file.", show_default="monitor.db beside the outbox")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 takes a free one.", show_default="8090")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="File of settings.", show_default="tiltyard.toml, if there is one")
    ] = None,
    pane_s: Annotated[
        float | None, typer.Option(help="Length of a pane, in seconds of event time.", show_default="60")
    ] = None,
    join_ttl_s: Annotated[
        float | None,
        typer.Option(help="How long an answer waits for its label, in event time.", show_default="30 days"),
    ] = None,
    maturity_s: Annotated[
        float | None,
        typer.Option(help="How long after its end a pane's labels count as complete.", show_default="1 day"),
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.", show_default="INFO")] = None,
) -> None:
    """Watches the log: drift, performance, champion against challenger, on a page and for Prometheus.

    Every option is also a setting: a variable (TILTYARD_MONITOR_PORT, TILTYARD_MONITOR_JOIN__TTL_S)
    and a member of the table [monitor] in tiltyard.toml.
    """
    try:
        # Local, because the monitor's libraries are an extra, and slow to import.
        import river
        import scipy
    except ImportError as error:
        _fail(f"{error.name} is not installed: pip install 'tiltyard[monitor]'", error)
    del river, scipy
    # Local for the same reason.
    from monitor import app, logs, settings
    from monitor.errors import MonitorError

    flags: dict[str, Any] = {}
    for name, value in (
        ("models", models),
        ("outbox", outbox),
        ("state", state),
        ("host", host),
        ("port", port),
        ("log_level", log_level),
        ("pane_s", pane_s),
        ("join_ttl_s", join_ttl_s),
        ("maturity_s", maturity_s),
    ):
        if value is not None and name in _GROUPS:
            group, member = _GROUPS[name]
            flags.setdefault(group, {})[member] = value
        elif value is not None:
            flags[name] = value
    try:
        chosen = settings.load(flags, config)
        logs.configure(chosen.log_level)
        app.run(chosen, lambda url: typer.echo(f"tiltyard monitor: {url} (status page, /v1/models, /metrics, /health)"))
    except MonitorError as error:
        _fail(str(error), error)


def _fail(sentence: str, error: Exception) -> NoReturn:
    typer.echo(f"tiltyard monitor: {sentence}", err=True)
    raise typer.Exit(1) from error
