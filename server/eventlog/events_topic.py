"""The topic of all events: created where there is none, and held against what was shipped before. Needs ``kafka``."""

import asyncio

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import NoError, TopicAlreadyExistsError, TopicAuthorizationFailedError, for_code

from server.errors import TopicError, TopicRefusedError
from server.kafka_clients import administering
from server.settings import KafkaSettings

_AGAIN_S = 0.1
_KNOWN_S = 10.0
# An event tells of its own time, which replays and clocks may put far from the broker's.
_ANY_TIME = {"message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": str(2**63 - 1)}


async def ensure_events_topic(settings: KafkaSettings) -> str:
    """Returns the id of the cluster, once its topic of events is there with as many partitions as are wanted.

    Raises:
        TopicRefusedError: it has another number of partitions: keys would move between them.
        TopicError: it cannot be created or described.
        KafkaError: no broker answers.
        SettingsError: a file of the credentials cannot be used.
    """
    topic = settings.events_topic
    async with administering(settings) as admin:
        # Asked for by name, a topic that is not there would be made by brokers that do so unasked, with their defaults.
        if topic not in await admin.list_topics():
            await _create(admin, settings)
        partitions = await _partitions(admin, topic)
        cluster = str((await admin.describe_cluster())["cluster_id"])
    check_partitions(settings, partitions)
    return cluster


def check_partitions(settings: KafkaSettings, partitions: int) -> None:
    """Passes a topic that has as many partitions as are wanted.

    Raises:
        TopicRefusedError: it has more or fewer.
    """
    if partitions != settings.events_partitions:
        raise TopicRefusedError(
            f"topic {settings.events_topic!r}: expected {settings.events_partitions} partitions "
            f"(kafka.events_partitions), got {partitions}: events of a request would be in two of them"
        )


async def _create(admin: AIOKafkaAdminClient, settings: KafkaSettings) -> None:
    copies = -1 if settings.replication_factor is None else settings.replication_factor
    # aiokafka takes the brokers' default only beside an assignment of replicas, be it an empty one.
    assignment: dict[int, list[int]] | None = {} if settings.replication_factor is None else None
    configs = dict(_ANY_TIME)
    if settings.events_retention_s is not None:
        kept_ms = -1 if settings.events_retention_s < 0 else int(settings.events_retention_s * 1000)
        configs["retention.ms"] = str(kept_ms)
    wanted = NewTopic(settings.events_topic, settings.events_partitions, copies, assignment, configs)
    reply = await admin.create_topics([wanted])
    for _, code, *message in reply.topic_errors:
        error = for_code(code)
        if error not in (NoError, TopicAlreadyExistsError):  # another server may have been quicker
            reason = " ".join(filter(None, [error.__name__, *message]))
            raise TopicError(f"topic {settings.events_topic!r}: expected to create it, got: {reason}")


async def _partitions(admin: AIOKafkaAdminClient, topic: str) -> int:
    until_s = asyncio.get_running_loop().time() + _KNOWN_S
    while True:
        [found] = await admin.describe_topics([topic])
        error = for_code(found["error_code"])
        if error is NoError:
            return len(found["partitions"])
        if not error.retriable or error is TopicAuthorizationFailedError or asyncio.get_running_loop().time() > until_s:
            raise TopicError(f"topic {topic!r}: expected to read its description, got: {error.__name__}")
        await asyncio.sleep(_AGAIN_S)  # a new topic is known to every broker a moment later
