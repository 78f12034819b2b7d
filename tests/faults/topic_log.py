"""Kafka as the log: the outbox is shipped to a topic, which the monitor reads."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from server.eventlog.log_reader import read_log
from server.eventlog.shipped import read_shipped
from tests.faults.commands import Monitor
from tests.patience import until
from tests.server.eventlog.shipping import records

_NUMBERS = itertools.count(1)
_DRAINED_S = 120.0


class TopicLog:
    """A topic of its own on some brokers.

    Args:
        servers: where clients ask for them.
        copies: of each partition.
    """

    name = "kafka"

    def __init__(self, servers: str, copies: int = 1) -> None:
        number = next(_NUMBERS)
        self.servers = servers
        self.topic = f"faults-events-{number}"
        self.in_topic: int | None = 0
        self._copies = copies
        self._others = f"faults-{number}"
        self.group = self._others

    def server_settings(self) -> Mapping[str, str]:
        """Returns where the server ships its events."""
        return {
            "TILTYARD_KAFKA__BOOTSTRAP_SERVERS": self.servers,
            "TILTYARD_KAFKA__EVENTS_TOPIC": self.topic,
            "TILTYARD_KAFKA__EVENTS_PARTITIONS": "4",
            "TILTYARD_KAFKA__ROUTES_TOPIC": f"{self._others}-routes",
            "TILTYARD_KAFKA__REPLICATION_FACTOR": str(self._copies),
        }

    def monitor_settings(self) -> Mapping[str, str]:
        """Returns where the monitor reads them."""
        return {
            "TILTYARD_MONITOR_KAFKA__BOOTSTRAP_SERVERS": self.servers,
            "TILTYARD_MONITOR_KAFKA__EVENTS_TOPIC": self.topic,
            "TILTYARD_MONITOR_KAFKA__DEAD_LETTERS_TOPIC": f"{self._others}-dead",
            "TILTYARD_MONITOR_KAFKA__PANES_TOPIC": f"{self.group}-panes",
            "TILTYARD_MONITOR_KAFKA__GROUP": self.group,
        }

    def drain(self, outbox: Path) -> None:
        """Waits for the shipper."""
        until(lambda: self._shipped(outbox) == _end(outbox), "the topic to have everything", _DRAINED_S)

    def lines(self, outbox: Path) -> list[bytes]:
        """Returns every record of the topic."""
        found = [record.value for record in records(self.servers, self.topic)]
        self.in_topic = len(found)
        return found

    def _shipped(self, outbox: Path) -> int:
        """Returns below which offset everything was acknowledged."""
        position = read_shipped(outbox)
        return 0 if position is None else position.offset

    def read(self, monitor: Monitor, lines: Sequence[bytes]) -> bool:
        """Compares the sum of its partitions' offsets: nothing of this topic has gone."""
        partitions = monitor.health()["source"]["partitions"].values()
        return sum(place["offset"] or 0 for place in partitions) == len(lines)


def _end(outbox: Path) -> int:
    return sum(1 for _ in read_log(outbox))
