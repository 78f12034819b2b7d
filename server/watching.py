"""Tasks beside the requests: those that look at routes, tokens and, in a watched repository, bundles; one that tells
the log what its events do not hold; and one that adds to the metrics what was observed."""

import asyncio
import logging
from datetime import UTC, datetime

from server.audit import audit_line
from server.bundles.watcher import Change, Watcher
from server.errors import TiltyardError
from server.metrics import FLUSH_S, Metrics
from server.protection.tokens import Tokens
from server.service import Service

logger = logging.getLogger(__name__)

# A store behind a URL is asked less often than a folder.
REMOTE_S = 10.0


async def follow_routes(service: Service) -> None:
    """Obeys changed routes, for ever."""
    while True:
        await service.routes.wait(service.settings.watch_s)
        await service.routes.follow(leading=service.control.leading)


async def follow_bundles(service: Service) -> None:
    """Loads versions whose folders are complete and unloads those whose folders have gone, for ever.

    Of several processes one does it, whichever leads at the time.
    """
    watcher: Watcher | None = None
    told: dict[tuple[str, str], str] = {}
    while True:
        if not service.control.leading:
            watcher = None
        else:
            watcher = watcher or Watcher(service.store, service.swapper.fingerprints())
            fault = watcher.fault
            changes = await asyncio.to_thread(watcher.scan)
            if watcher.fault not in (None, fault):
                logger.error("the repository cannot be watched: %s", watcher.fault)
            for change in changes:
                await _obey(service, watcher, change, told)
        await asyncio.sleep(_interval_s(service))


async def follow_tokens(tokens: Tokens, interval_s: float) -> None:
    """Obeys changes of the token file, for ever."""
    while True:
        await asyncio.sleep(interval_s)
        tokens.reload_if_changed()


async def flush_metrics(metrics: Metrics) -> None:
    """Adds to the metrics what was observed, for ever."""
    while True:
        await asyncio.sleep(FLUSH_S)
        metrics.flush()


async def tell_events(service: Service) -> None:
    """Tells the log of every model whose columns are hidden, or all of them where it is a sample, and returns.

    Of several processes the one that leads does it, and again whichever comes to lead after it.
    """
    every = service.settings.events.sample_every
    hidden = {model: _hidden(service, model) for model in service.repository.models()}
    told = {model: columns for model, columns in hidden.items() if columns or every != 1}
    while told:
        if service.control.leading:
            for model, columns in told.items():
                after = {"columns": columns, "sample_every": every}
                service.metrics.audits.inc()
                service.log.append(audit_line("events", "settings", model, after, datetime.now(UTC)))
            return
        await asyncio.sleep(service.settings.watch_s)


def _hidden(service: Service, model: str) -> dict[str, str]:
    """Returns what becomes of the columns of a model that are hidden, of all its versions together."""
    redactors = [service.repository.get(model, version).redactor for version in service.repository.versions(model)]
    return {name: how for redactor in redactors if redactor for name, how in redactor.columns.items()}


def _interval_s(service: Service) -> float:
    settings = service.settings
    return max(settings.watch_s, REMOTE_S) if "://" in settings.models else settings.watch_s


async def _obey(service: Service, watcher: Watcher, change: Change, told: dict[tuple[str, str], str]) -> None:
    model, version = change.model, change.version
    try:
        if change.action == "load":
            await service.control.load(model, version)
        else:
            await service.control.unload(model, version)
    except TiltyardError as error:
        if told.get((model, version)) != str(error):
            logger.error("could not %s %s version %s: %s", change.action, model, version, error)
        told[model, version] = str(error)
        watcher.failed(model, version)
    else:
        watcher.loaded(model, version)
        after = {"version": version, "serving": service.serving(model)}
        service.metrics.audits.inc()
        service.log.append(audit_line(change.action, "watcher", model, after, datetime.now(UTC)))
