"""Faults of Kafka: of its brokers, of the way to them, of the topic, and of those who share it."""

import os
import random
import signal
from collections.abc import Callable

from server.eventlog.ship_status import read_status
from tests.faults.kafkas import Reached
from tests.faults.stage import Stage
from tests.faults.topic_log import TopicLog
from tests.kafka.broker import Broker
from tests.kafka.cluster import Brokers
from tests.patience import until
from tests.server.eventlog.shipping import drop_topic

_MOST_ANSWERS = 200
_SUCCEEDED_S = 5.0
_NOTICED_S = 90.0
_RARELY = 0.1


def shipper_killed(stage: Stage, rounds: int, chance: random.Random) -> None:
    """The process that ships is killed; another takes its place within five seconds."""
    for _ in range(rounds):
        stage.load.more(chance.randrange(1, _MOST_ANSWERS))
        until(lambda: read_status(stage.outbox).pid, "a shipper")
        killed = read_status(stage.outbox).pid
        os.kill(killed, signal.SIGKILL)
        until(lambda killed=killed: read_status(stage.outbox).pid != killed, "another shipper", _SUCCEEDED_S)


def broker_away(
    stage: Stage, broker: Broker, end: Callable[[Broker], None], rounds: int, chance: random.Random
) -> None:
    """The only broker is stopped or killed, and started again; the server answers all the while."""
    for _ in range(rounds):
        stage.load.more(chance.randrange(1, _MOST_ANSWERS))
        end(broker)
        stage.load.more(chance.randrange(1, _MOST_ANSWERS))
        broker.start()
        stage.load.more(1)


def broker_frozen(stage: Stage, broker: Broker, rounds: int, chance: random.Random) -> None:
    """The only broker stands still, now and then until its clients have noticed, and goes on."""
    for _ in range(rounds):
        stage.load.more(chance.randrange(1, _MOST_ANSWERS))
        broker.freeze()
        try:
            stage.load.more(chance.randrange(1, _MOST_ANSWERS))
            if chance.random() < _RARELY:
                until(lambda: read_status(stage.outbox).state != "connected", "the shipper to notice", _NOTICED_S)
        finally:
            broker.thaw()


def network_cut(stage: Stage, reached: Reached, rounds: int, chance: random.Random) -> None:
    """Connections to the broker are reset, or bytes on them held back."""
    for _ in range(rounds):
        stage.load.more(chance.randrange(1, _MOST_ANSWERS))
        chance.choice((reached.proxy.cut, reached.proxy.stall))()
        try:
            stage.load.more(chance.randrange(1, _MOST_ANSWERS))
        finally:
            reached.proxy.mend()


def leader_moved(stage: Stage, brokers: Brokers, topic: str, rounds: int, chance: random.Random) -> None:
    """The broker that leads a partition is stopped, killed or frozen, until others lead; then it comes back."""
    for _ in range(rounds):
        stage.load.more(chance.randrange(1, _MOST_ANSWERS))
        leader = brokers.leader(topic, 0)
        end = chance.choice((Broker.stop, Broker.kill, Broker.freeze))
        end(leader)
        try:
            brokers.until_led_without(topic, leader)
            stage.load.more(chance.randrange(1, _MOST_ANSWERS))
        finally:
            if end is Broker.freeze:
                leader.thaw()
            else:
                leader.start()
        brokers.until_whole(topic)


def rebalanced(stage: Stage, rounds: int, chance: random.Random) -> None:
    """Another monitor of the group comes, takes partitions, and goes: orderly, killed, or before it has any."""
    for number in range(rounds):
        stage.load.more(chance.randrange(1, _MOST_ANSWERS))
        other = stage.another_monitor(f"other-{number}")
        if chance.random() < 0.7:
            until(lambda other=other: other.health()["source"]["partitions"], "partitions to be shared")
        stage.load.more(chance.randrange(1, _MOST_ANSWERS))
        if chance.random() < 0.5:
            other.stop()
        else:
            other.kill()


def topic_deleted(stage: Stage, log: TopicLog, rounds: int, chance: random.Random) -> None:
    """The topic is deleted under load; the shipper makes it again, and the monitor says that it is another one."""
    for _ in range(rounds):
        stage.load.more(chance.randrange(1, _MOST_ANSWERS))
        log.drain(stage.outbox)
        drop_topic(log.servers, log.topic)
        stage.load.more(chance.randrange(1, _MOST_ANSWERS))
        log.drain(stage.outbox)
    until(lambda: stage.monitor.health()["status"] == "failing", "the monitor to say that it stands still")
    assert log.topic in stage.monitor.health()["reason"]
    log.group += "-anew"
