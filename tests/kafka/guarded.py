"""A broker that wants to know who asks: a listener of every kind, and the files that clients need."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from tests.kafka.broker import Broker, Cluster, Node, free_ports
from tests.server.certificates import Authority

PASSWORD = "s3cret of events"
JAAS = "listener.name.{listener}.{mechanism}.sasl.jaas.config"
PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"
BEARER = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"
UNSECURED = (
    "org.apache.kafka.common.security.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"
)


class Guarded:
    """A broker with a listener of every kind, and the files that its clients need."""

    def __init__(self, broker: Broker, folder: Path, ports: dict[str, int], authority: Authority) -> None:
        self.broker = broker
        self.folder = folder
        self.ports = ports
        self.ca = authority.certificate
        self.client = authority.sign("client")
        self.password = folder / "password"
        self.password.write_text(PASSWORD + "\n")

    def address(self, listener: str) -> str:
        """Returns where a listener is reached, as clients take it."""
        return f"127.0.0.1:{self.ports[listener]}"


@contextmanager
def guarded_broker(folder: Path) -> Iterator[Guarded]:
    """Gives a broker with the listeners SASLPLAIN, SASLSSL and MUTUAL, which asks for certificates.

    Args:
        folder: takes its data and the files.

    Raises:
        BrokerUnavailableError: Java, Maven or the jars are missing here.
    """
    authority = Authority(folder)
    signed = authority.sign("broker")
    store = folder / "store.pem"
    store.write_bytes(signed.key.read_bytes() + signed.certificate.read_bytes())
    names = ("SASLPLAIN", "SASLSSL", "MUTUAL")
    own, controller, *others = free_ports(2 + len(names))
    ports = dict(zip(names, others, strict=True))
    listeners = f"PLAINTEXT://127.0.0.1:{own},CONTROLLER://127.0.0.1:{controller}," + ",".join(
        f"{name}://127.0.0.1:{port}" for name, port in ports.items()
    )
    settings = {
        "listeners": listeners,
        "advertised.listeners": listeners,
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASLPLAIN:SASL_PLAINTEXT,"
        "SASLSSL:SASL_SSL,MUTUAL:SSL",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(store),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.certificate),
        "listener.name.mutual.ssl.client.auth": "required",
        # Whoever is known may do everything until a rule says otherwise; rules are made over PLAINTEXT.
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "allow.everyone.if.no.acl.found": "true",
    }
    for listener in ("saslplain", "saslssl"):
        settings[JAAS.format(listener=listener, mechanism="plain")] = f'{PLAIN} required user_tiltyard="{PASSWORD}";'
        for mechanism in ("scram-sha-256", "scram-sha-512"):
            settings[JAAS.format(listener=listener, mechanism=mechanism)] = f"{SCRAM} required;"
        settings[JAAS.format(listener=listener, mechanism="oauthbearer")] = (
            f'{BEARER} required unsecuredLoginStringClaim_sub="broker";'
        )
        settings[f"listener.name.{listener}.oauthbearer.sasl.server.callback.handler.class"] = UNSECURED
    cluster = Cluster([Node(1, own, controller)], settings=tuple(settings.items()))
    (folder / "broker").mkdir()
    with Broker(cluster, cluster.nodes[0], folder / "broker") as broker_:
        _add_scram_user(cluster.bootstrap_servers)
        yield Guarded(broker_, folder, ports, authority)


def _add_scram_user(servers: str) -> None:
    admin = AdminClient({"bootstrap.servers": servers})
    for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
        wanted = UserScramCredentialUpsertion("tiltyard", ScramCredentialInfo(mechanism, 4096), PASSWORD.encode())
        for done in admin.alter_user_scram_credentials([wanted]).values():
            done.result(30)
