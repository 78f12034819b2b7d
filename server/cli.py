"""The command ``tiltyard``: a root that finds its subcommands, and the subcommand ``serve``.

Subcommands are the entry-point group ``tiltyard.commands``: server and monitor stay strangers, and
only the command that runs is imported.
"""

from importlib.metadata import EntryPoint, entry_points
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from server.settings import Settings

ORDER = ("demo", "pack", "serve", "monitor", "route", "log", "token")


class Commands(TyperGroup):
    """Subcommands from the entry points, each imported when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Returns the names of all subcommands, the usual ones first."""
        names = {point.name for point in entry_points(group="tiltyard.commands")}
        return [name for name in ORDER if name in names] + sorted(names.difference(ORDER))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Returns a subcommand by its name, None when there is none."""
        for point in entry_points(group="tiltyard.commands", name=cmd_name):
            return _command(point)
        return None


def _command(point: EntryPoint) -> Any:
    """Returns what an entry point names, a function or a group of commands, as a command."""
    loaded = point.load()
    if isinstance(loaded, typer.Typer):
        return typer.main.get_command(loaded)
    sub = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    sub.command(name=point.name)(loaded)
    return typer.main.get_command(sub)


root = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tiltyard {installed_version('tiltyard')}")
        raise typer.Exit


@root.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Score ONNX models in real time, and watch them: drift, performance, champion against challenger."""


def main() -> None:
    """Runs the command line."""
    root()


def serve(
    models: Annotated[
        str | None,
        typer.Option(help="Bundles, MODELS/<model>/<version>/: a folder, or a URL such as s3://bucket/models."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; 127.0.0.1 by default.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one; 8080 by default.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that answer, on one socket; 1 by default.")] = None,
    outbox: Annotated[Path | None, typer.Option(help="File of the event log; outbox.db by default.")] = None,
    repository: Annotated[
        str | None,
        typer.Option(
            help="explicit (the default): versions come and go by the load/unload API; watched: with their folders."
        ),
    ] = None,
    fast_lane: Annotated[
        bool | None,
        typer.Option(
            "--fast-lane/--no-fast-lane", help="Answer straight from the HTTP parser, without ASGI; on by default."
        ),
    ] = None,
    tokens: Annotated[Path | None, typer.Option(help="File of API tokens, as `tiltyard token` writes it.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error; info by default.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file; tiltyard.toml of this folder by default.")] = None,
) -> None:
    """Answer predictions over HTTP, and log every answer as a durable event.

    Every flag is also a setting in tiltyard.toml and a variable: --port is TILTYARD_PORT.
    """
    # The root command's help imports this module: the server's parts only when one starts.
    from server.errors import TiltyardError
    from server.settings import load_settings

    try:
        settings = load_settings(
            config,
            models=models,
            host=host,
            port=port,
            workers=workers,
            outbox=outbox,
            repository=repository,
            fast_lane=fast_lane,
            tokens=tokens,
            log_level=log_level,
        )
        status = _supervise(settings) if settings.workers > 1 else _serve_alone(settings)
    except TiltyardError as error:
        typer.echo(f"tiltyard serve: {error}", err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(status)


def _serve_alone(settings: "Settings") -> int:
    """Serves in this process; returns its exit status."""
    from server.app import build_application, build_service
    from server.bundles.store import open_store
    from server.eventlog.outbox import Outbox
    from server.eventlog.shipper_process import shipping
    from server.http_server import check_tls, listen, run
    from server.logs import configure_logging

    configure_logging(settings.log_level, settings.log_format)
    check_tls(settings)
    open_store(settings.models, settings.cache)  # a wrong folder is refused before a log is made
    listener = listen(settings.host, settings.port)
    outbox = Outbox(settings.outbox, settings.events, shipped=settings.kafka.bootstrap_servers is not None)
    with shipping(settings):
        try:
            service = build_service(settings, outbox)
            application = build_application(service)
            started = run(
                application.asgi,
                settings,
                listener,
                fast_lane=application.fast_lane,
                stopping=service.stop,
                refused=service.metrics.refused_unread,
                arrived=service.admission.arrived,
            )
        finally:
            outbox.close()  # a second Ctrl-C skips the application's own shutdown
    return 0 if started else 1


def _supervise(settings: "Settings") -> int:
    """Serves in worker processes; returns the exit status."""
    from server.cluster.supervisor import supervise
    from server.http_server import check_tls, listen
    from server.logs import configure_logging

    configure_logging(settings.log_level, settings.log_format)
    check_tls(settings)
    return supervise(settings, listen(settings.host, settings.port))


if __name__ == "__main__":
    main()
