"""Every fault there is a test for: what is done, how often, and what it needs."""

import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec

from server.eventlog.log_reader import read_log
from tests.faults import brokers, crashes, disks, orders, pages
from tests.faults.balance import Balance
from tests.faults.faulty_libc import FaultyLibc
from tests.faults.kafkas import Kafkas, Reached
from tests.faults.log_part import EmbeddedLog, LogPart
from tests.faults.small_disk import small_disk
from tests.faults.stage import Stage
from tests.faults.topic_log import TopicLog
from tests.faults.undisturbed import findings_over
from tests.kafka.broker import Broker

_DISK_BYTES = 64 * 1024 * 1024
_THREE_WORKERS = {"TILTYARD_WORKERS": "3"}
_COMMIT = {"TILTYARD_EVENTS__DURABILITY": "commit"}
_SMALL_QUEUE = {"TILTYARD_EVENTS__QUEUE_BYTES": str(1024 * 1024)}
_SHED = {"TILTYARD_EVENTS__WHEN_FULL": "shed"}
_BLOCK = {"TILTYARD_EVENTS__WHEN_FULL": "block"}


class Past(NamedTuple):
    """A log that was served, and to which nothing happened."""

    outbox: Path
    lines: list[bytes]
    balance: Balance


@dataclass(frozen=True)
class Scene:
    """What a fault is played with."""

    folder: Path
    models: Path
    rounds: int
    seed: int
    kafkas: Kafkas
    past: list[Past]
    """What one fault had served and the others may use as well; empty until then."""
    stack: ExitStack = field(default_factory=ExitStack)
    """Ends what the fault has started."""

    @property
    def chance(self) -> random.Random:
        """The source of everything that is left to chance."""
        return random.Random(self.seed)

    def embedded(self, **changes: object) -> Stage:
        """Returns a running stage on the embedded log."""
        return self.stage(EmbeddedLog(), **changes)

    def stage(self, log: LogPart, **changes: object) -> Stage:
        """Returns a running stage on a log."""
        stage = Stage(self.folder, self.models, log, self.seed, **changes)  # type: ignore[arg-type]
        return self.stack.enter_context(stage)


@dataclass(frozen=True)
class Fault:
    """One row of the table."""

    name: str
    play: "Play"
    few: int = 0
    """Rounds in `make test`; without any it is left to `make faults`."""
    many: int = 50
    """Rounds in `make faults`."""


Play = Callable[[str, Scene], Balance]


def _crash(act: Callable[[Stage, int, random.Random], None], **server: str) -> Play:
    def play(name: str, scene: Scene) -> Balance:
        stage = scene.embedded(server=server)
        act(stage, scene.rounds, scene.chance)
        return stage.settle(name, scene.rounds)

    return play


def _disk(act: Callable[..., None], rows: int = 1, **server: str) -> Play:
    def play(name: str, scene: Scene) -> Balance:
        disk = scene.stack.enter_context(small_disk(scene.folder / "disk", _DISK_BYTES))
        stage = scene.embedded(server=server, outbox=disks.outbox_on(disk), rows=rows)
        act(stage, disk, scene.rounds, scene.chance)
        return stage.settle(name, scene.rounds)

    return play


def _libc(act: Callable[[Stage, FaultyLibc, int, random.Random], None]) -> Play:
    def play(name: str, scene: Scene) -> Balance:
        libc = FaultyLibc(scene.folder, scene.folder / "outbox.db")
        stage = scene.embedded(server=libc.settings())
        act(stage, libc, scene.rounds, scene.chance)
        return stage.settle(name, scene.rounds)

    return play


def _served(scene: Scene) -> Past:
    """Returns a log of a few hundred requests, the first time after it was served."""
    if not scene.past:
        stage = scene.embedded()
        stage.load.more(300)
        balance = stage.settle("served", 1)
        outbox = pages.copied(stage.outbox, scene.models.with_name("served.db"))
        assert list(read_log(outbox)) == stage.lines
        scene.past.append(Past(outbox, stage.lines, balance))
    return scene.past[0]


def _damaged(name: str, scene: Scene) -> Balance:
    """Each round damages a copy of the log anew, and lets monitor, commands and server open it."""
    past = _served(scene)
    chance = scene.chance
    for number in range(scene.rounds):
        copy = scene.folder / f"damaged-{number}.db"
        where = pages.damage(past.outbox, copy, chance)
        try:
            pages.check_monitor(copy, past.lines)
            pages.check_reader(copy, past.lines)
            pages.check_writer(copy, past.lines)
        except AssertionError as error:
            raise AssertionError(f"round {number}, {where}: {error}") from error
    return msgspec.structs.replace(past.balance, fault=name, rounds=scene.rounds)


def _order(change: Callable[[list[bytes], random.Random], tuple[list[bytes], list[bytes]]]) -> Play:
    """change: returns two logs of the same facts from the one that was served."""

    def play(name: str, scene: Scene) -> Balance:
        past = _served(scene)
        balance = msgspec.structs.replace(past.balance, fault=name, rounds=scene.rounds)
        chance = scene.chance
        for number in range(scene.rounds):
            plain, changed = change(past.lines, chance)
            once, again = (
                findings_over(scene.folder / f"{kind}-{number}", scene.models, order)
                for kind, order in (("served", plain), ("changed", changed))
            )
            balance.findings_equal = balance.findings_equal and once == again
            balance.doubled_in_log += len(changed) - len(plain)
        return balance

    return play


def _delivered_again(lines: list[bytes], chance: random.Random) -> tuple[list[bytes], list[bytes]]:
    return lines, orders.delivered_again(lines, chance)


def _labels_first(lines: list[bytes], chance: random.Random) -> tuple[list[bytes], list[bytes]]:
    return lines, orders.labels_first(lines)


def _labels_a_year_late(lines: list[bytes], chance: random.Random) -> tuple[list[bytes], list[bytes]]:
    return [*lines, orders.a_year_later(lines)], orders.labels_a_year_late(lines)


def _kafka(act: Callable[[Stage, Reached, int, random.Random], None], **server: str) -> Play:
    def play(name: str, scene: Scene) -> Balance:
        reached = scene.kafkas.one()
        stage = scene.stage(TopicLog(reached.bootstrap_servers), server=server)
        act(stage, reached, scene.rounds, scene.chance)
        return stage.settle(name, scene.rounds)

    return play


def _leader_moved(name: str, scene: Scene) -> Balance:
    three = scene.kafkas.three()
    log = TopicLog(three.bootstrap_servers, copies=3)
    stage = scene.stage(log)
    brokers.leader_moved(stage, three, log.topic, scene.rounds, scene.chance)
    return stage.settle(name, scene.rounds)


def _topic_deleted(name: str, scene: Scene) -> Balance:
    log = TopicLog(scene.kafkas.one().bootstrap_servers)
    stage = scene.stage(log)
    brokers.topic_deleted(stage, log, scene.rounds, scene.chance)
    return stage.settle(name, scene.rounds, anew=True)


def _anywhere(act: Callable[[Stage, int, random.Random], None]) -> Callable[..., None]:
    """Returns an act that does not care which log it is."""
    return lambda stage, _, rounds, chance: act(stage, rounds, chance)


def _away(end: Callable[[Broker], None]) -> Callable[..., None]:
    return lambda stage, reached, rounds, chance: brokers.broker_away(stage, reached.broker, end, rounds, chance)


def _frozen(stage: Stage, reached: Reached, rounds: int, chance: random.Random) -> None:
    brokers.broker_frozen(stage, reached.broker, rounds, chance)


FAULTS = (
    Fault("server killed", _crash(crashes.server_killed), few=2),
    Fault("server killed, `durability = commit`", _crash(crashes.server_killed, **_COMMIT)),
    Fault("one of three workers killed", _crash(crashes.worker_killed, **_THREE_WORKERS)),
    Fault("supervisor of three workers killed", _crash(crashes.server_killed, **_THREE_WORKERS)),
    Fault("supervisor killed, `commit`", _crash(crashes.server_killed, **_THREE_WORKERS, **_COMMIT), few=1),
    Fault("monitor killed", _crash(crashes.monitor_killed), few=2),
    Fault("server and monitor killed", _crash(crashes.both_killed)),
    Fault("disk full, then freed", _disk(disks.disk_filled), few=1),
    Fault("outbox at its limit, `when_full = shed`", _disk(disks.limit_met, rows=20, **_SMALL_QUEUE, **_SHED), few=1),
    Fault("outbox at its limit, `when_full = block`", _disk(disks.limit_met, rows=20, **_SMALL_QUEUE, **_BLOCK)),
    Fault("disk slow", _libc(disks.disk_slowed), few=1),
    Fault("disk failing", _libc(disks.disk_failing)),
    Fault("clock jumping", _libc(disks.clock_moved), few=5),
    Fault("page of the outbox damaged", _damaged, few=20, many=500),
    Fault("every event delivered again", _order(_delivered_again), few=1),
    Fault("labels before predictions", _order(_labels_first), few=1, many=1),
    Fault("labels a year late", _order(_labels_a_year_late), few=1, many=1),
    Fault("shipper killed", _kafka(_anywhere(brokers.shipper_killed)), few=2),
    Fault("server killed, Kafka", _kafka(_anywhere(crashes.server_killed))),
    Fault("monitor killed, Kafka", _kafka(_anywhere(crashes.monitor_killed))),
    Fault("broker stopped", _kafka(_away(Broker.stop)), many=20),
    Fault("broker killed", _kafka(_away(Broker.kill)), many=20),
    Fault("broker standing still", _kafka(_frozen)),
    Fault("network cut or stalled", _kafka(brokers.network_cut), few=2),
    Fault("leader stopped, killed or standing still, three brokers", _leader_moved, few=1, many=20),
    Fault("topic deleted", _topic_deleted, many=20),
    Fault("monitors coming and going", _kafka(_anywhere(brokers.rebalanced)), many=20),
)
