"""Three brokers of one cluster: any of them may go, and the others go on with every topic."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from confluent_kafka.admin import AdminClient, PartitionMetadata

from tests.kafka.broker import Broker, Cluster, Node, free_ports
from tests.patience import until

SIZE = 3


class Brokers:
    """The brokers of a cluster, each with its own process; a topic's records are on all, and safe once on two."""

    def __init__(self, brokers: Sequence[Broker]) -> None:
        self.brokers = brokers

    @property
    def bootstrap_servers(self) -> str:
        """Where they answer, as clients take it."""
        return self.brokers[0].bootstrap_servers

    def leader(self, topic: str, partition: int) -> Broker:
        """Returns the broker that leads a partition."""
        number = self._partitions(topic)[partition].leader
        return next(broker for broker in self.brokers if broker.node.number == number)

    def until_led_without(self, topic: str, away: Broker) -> None:
        """Returns once other brokers than this one lead every partition of a topic."""
        others = {broker.node.number for broker in self.brokers if broker is not away}
        until(
            lambda: all(each.leader in others for each in self._partitions(topic, away).values()),
            f"leaders of {topic} other than broker {away.node.number}",
        )

    def until_whole(self, topic: str) -> None:
        """Returns once every broker has all of a topic."""
        until(
            lambda: all(len(each.isrs) == len(self.brokers) for each in self._partitions(topic).values()),
            f"all copies of {topic}",
        )

    def _partitions(self, topic: str, away: Broker | None = None) -> dict[int, PartitionMetadata]:
        """Asks those that are not away: one that stands still would not answer."""
        ports = [broker.node.port for broker in self.brokers if broker is not away]
        admin = AdminClient({"bootstrap.servers": ",".join(f"127.0.0.1:{port}" for port in ports)})
        return admin.list_topics(topic, timeout=30).topics[topic].partitions


@contextmanager
def running_brokers(folder: Path, settings: Sequence[tuple[str, str]] = ()) -> Iterator[Brokers]:
    """Gives three brokers that are usable; their processes end with the context.

    Args:
        folder: takes their data.
        settings: laid over a broker's usual ones.

    Raises:
        BrokerUnavailableError: Java, Maven or the jars are missing here.
    """
    ports = free_ports(2 * SIZE)
    nodes = [Node(number + 1, ports[2 * number], ports[2 * number + 1]) for number in range(SIZE)]
    cluster = Cluster(nodes, settings=(("min.insync.replicas", "2"), *settings))
    with ExitStack() as stack:
        brokers = []
        for node in nodes:
            place = folder / str(node.number)
            place.mkdir()
            brokers.append(Broker(cluster, node, place))
        for broker in brokers:
            stack.callback(broker.kill)
            broker.launch()
        for broker in brokers:  # none is usable before a majority is there
            broker.wait()
        yield Brokers(brokers)
