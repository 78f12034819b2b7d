"""What a user of the guarded broker may do with a topic: everything, until something is denied."""

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from tests.patience import until

USER = "User:tiltyard"
TIMEOUT_S = 30.0


@contextmanager
def denied(servers: str, topic: str, operation: AclOperation) -> Iterator[None]:
    """Denies the user an operation on a topic meanwhile.

    Args:
        servers: of a listener whose clients may change permissions.
        topic: its name.
        operation: such as AclOperation.WRITE.
    """
    admin = AdminClient({"bootstrap.servers": servers})
    rule = (ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, USER, "*", operation, AclPermissionType.DENY)
    for made in admin.create_acls([AclBinding(*rule)]).values():
        made.result(TIMEOUT_S)
    until(lambda: admin.describe_acls(AclBindingFilter(*rule)).result(TIMEOUT_S), "the broker to know of the rule")
    try:
        yield
    finally:
        for gone in admin.delete_acls([AclBindingFilter(*rule)]).values():
            gone.result(TIMEOUT_S)
