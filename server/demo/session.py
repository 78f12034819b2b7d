"""One run of the demo, from the training to the closing table."""

import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import msgspec
import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from server.demo import replay
from server.demo.flights import load_flights
from server.demo.processes import Command, ProcessError, free_port
from server.demo.report import print_report
from server.demo.training import CHALLENGER, CHAMPION, MODEL, pack_flight_models
from server.errors import SettingsError
from server.routes.folder import DOCUMENT_FILE
from server.routing.document import Challenger, Route

MARKER = ".tiltyard-demo"
DAY_S = 86_400
CATCH_UP_S = 60.0
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_demo(
    console: Console, folder: Path, flights: int, speed: float, port: int, monitor_port: int, *, stay: bool
) -> None:
    """Trains, packs, serves, monitors, replays and reports; stays up until Ctrl-C if asked to.

    Raises:
        TiltyardError: a part failed; everything that was started has been stopped.
    """
    # Ended from outside, the demo still stops what it started.
    for number in STOPS:
        signal.signal(number, signal.default_int_handler)
    _clear(folder)
    started = time.monotonic()
    with _progress(console) as bars, ExitStack() as commands:
        bar = bars.add_task("reading the flights", total=None)
        table = load_flights()
        chosen = replay.choose_flights(table, flights)
        pack_flight_models(folder / "models", lambda stage: bars.update(bar, description=stage), table)
        _write_route(folder / "models" / MODEL / DOCUMENT_FILE)
        bars.update(bar, description="starting server and monitor")
        server, monitor, urls = _start(commands, folder, flights, free_port(port), free_port(monitor_port))
        bars.remove_task(bar)
        _replay(bars, chosen, speed, urls[0])
        with httpx.Client(base_url=urls[1], timeout=60) as client:
            _catch_up(bars, client, monitor)
            bars.stop()
            console.print()
            print_report(client, console)
        console.print(f"\n{len(chosen):,} flights in {time.monotonic() - started:.0f} s, everything in {folder}/")
        if stay:
            _stay(console, urls, server, monitor)
    console.print("server and monitor have stopped cleanly")


def _clear(folder: Path) -> None:
    """Makes the folder anew, but never deletes one that is not the demo's."""
    if folder.exists():
        if not (folder / MARKER).exists() and any(folder.iterdir()):
            raise SettingsError(f"folder {folder}: expected none or one of an earlier demo, got another one")
        shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True)
        (folder / MARKER).touch()
    except OSError as error:
        raise SettingsError(f"folder {folder}: expected a place to write to, got: {error.strerror}") from error


def _write_route(path: Path) -> None:
    route = Route(champion=CHAMPION, challengers=[Challenger(version=CHALLENGER)], salt=MODEL, revision=1)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(route)))


def _start(
    commands: ExitStack, folder: Path, flights: int, port: int, monitor_port: int
) -> tuple[Command, Command, tuple[str, str]]:
    urls = (f"http://127.0.0.1:{port}", f"http://127.0.0.1:{monitor_port}")
    files = ["--models", str(folder / "models"), "--outbox", str(folder / "outbox.db")]
    monitor = Command(
        "monitor",
        [*files, "--state", str(folder / "monitor.db"), "--port", str(monitor_port), "--pane-s", str(DAY_S)],
        # A busy second of the replay is months of the past: answers and arrivals keep their own times.
        {"TILTYARD_MONITOR_PANE__GRACE_S": "3600"},
        folder / "monitor.log",
        f"{urls[1]}/health",
    )
    commands.enter_context(monitor)
    server = Command(
        "serve",
        [*files, "--port", str(port)],
        # Nothing is shed here: a replay runs faster than life, and its comparison should miss no flight.
        {"TILTYARD_EVENTS__CLIENT_TIME": "true", "TILTYARD_LIMITS__SHADOW_QUEUE": str(flights)},
        folder / "server.log",
        f"{urls[0]}/v2/health/ready",
    )
    commands.enter_context(server)
    server.wait_until_ready()
    monitor.wait_until_ready()
    return server, monitor, urls


def _replay(bars: Progress, flights: pd.DataFrame, speed: float, url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    bar = bars.add_task("scoring flights", total=len(flights))

    def tell(progress: replay.Progress) -> None:
        text = f"{progress.moment:%d %b %Y}  {progress.labels:,} arrivals known"
        bars.update(bar, completed=progress.flights, description=text)

    with ThreadPoolExecutor(replay.CONNECTIONS, thread_name_prefix="replay") as pool:
        replay.Replayer(host, int(port), speed, pool).run(flights, tell)


def _catch_up(bars: Progress, client: httpx.Client, monitor: Command) -> None:
    """Returns once the monitor has folded the whole log."""
    bar = bars.add_task("the monitor reads on", total=None)
    deadline = time.monotonic() + CATCH_UP_S
    while time.monotonic() < deadline:
        monitor.check()
        health = client.get("/health").json()
        if health["status"] == "ok" and health["source"]["lag_events"] == 0:
            bars.remove_task(bar)
            return
        time.sleep(0.1)
    raise ProcessError(f"tiltyard monitor: expected to reach the log's end within {CATCH_UP_S:.0f} s, is still behind")


def _stay(console: Console, urls: tuple[str, str], *commands: Command) -> None:
    """Says where to look and returns at Ctrl-C; raises ProcessError when a command ends by itself before."""
    asked: list[int] = []
    # From here on a signal is an answer, not an interruption: it may come in the middle of the print.
    before = [(number, signal.signal(number, lambda number, _: asked.append(number))) for number in STOPS]
    console.print(f"server  {urls[0]}/v2/models/{MODEL}\nmonitor {urls[1]}\nCtrl-C stops both", highlight=False)
    while not asked:
        for command in commands:
            command.check()
        time.sleep(0.2)
    for number, handler in before:
        signal.signal(number, handler)


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        BarColumn(),
        TextColumn("{task.completed:,.0f}"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
    )
