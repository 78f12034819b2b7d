"""A topic that keeps the last record of every key for ever, in one order: created where there is none, else checked."""

import asyncio

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import NoError, TopicAlreadyExistsError, for_code

from server.errors import RouteStoreError
from server.kafka_clients import administering
from server.settings import KafkaSettings

_POLICY = "cleanup.policy"
_AGAIN_S = 0.1


async def ensure_compacted_topic(settings: KafkaSettings) -> None:
    """Returns once there is a topic of one partition that is compacted and nothing else.

    Args:
        settings: name the topic, its brokers and how many copies they keep.

    Raises:
        RouteStoreError: it cannot be created, or is of another kind.
        KafkaError: no broker answers.
    """
    topic = settings.routes_topic
    async with administering(settings) as admin:
        # Asked for by name, a topic that is not there would be made by brokers that do so unasked, with their defaults.
        if topic not in await admin.list_topics():
            await _create(admin, topic, settings.replication_factor)
        faults = [*await _partition_faults(admin, topic), *await _policy_faults(admin, topic)]
    if faults:
        raise RouteStoreError("; ".join(faults))


async def _create(admin: AIOKafkaAdminClient, topic: str, replication_factor: int | None) -> None:
    copies = -1 if replication_factor is None else replication_factor
    # aiokafka takes the brokers' default only beside an assignment of replicas, be it an empty one.
    assignment: dict[int, list[int]] | None = {} if replication_factor is None else None
    reply = await admin.create_topics([NewTopic(topic, 1, copies, assignment, {_POLICY: "compact"})])
    for _, code, *message in reply.topic_errors:
        error = for_code(code)
        if error not in (NoError, TopicAlreadyExistsError):  # another server may have been quicker
            reason = " ".join(filter(None, [error.__name__, *message]))
            raise RouteStoreError(f"expected to create it, got: {reason}")


async def _partition_faults(admin: AIOKafkaAdminClient, topic: str) -> list[str]:
    while True:
        [found] = await admin.describe_topics([topic])
        error = for_code(found["error_code"])
        if error is NoError:
            count = len(found["partitions"])
            return [] if count == 1 else [f"expected 1 partition, which gives one order, got {count}"]
        if not error.retriable:
            raise RouteStoreError(f"expected to read its description, got: {error.__name__}")
        await asyncio.sleep(_AGAIN_S)  # a new topic is known to every broker a moment later


async def _policy_faults(admin: AIOKafkaAdminClient, topic: str) -> list[str]:
    [reply] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {_POLICY: None})])
    for code, _, _, _, entries in reply.resources:
        if for_code(code) is not NoError:
            return []  # who may not see the policy may still read and write
        found = {name: value for name, value, *_ in entries}.get(_POLICY)
        if found != "compact":
            return [f"expected {_POLICY} compact, which loses no route, got {found}"]
    return []
