"""The users of k8s/components/strimzi on a real Kafka that asks everybody who they are, and what they may.

TLS and SCRAM-SHA-512 as in production; the rights are those of users.yaml, and nothing beside.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from damagewatch.broker.development import DevelopmentKafka
from damagewatch.broker.options import KafkaOptions, SaslMechanism, SecurityProtocol
from damagewatch.broker.topics import Topics, TopicSpec
from damagewatch.contracts import topics

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]
USERS = list(yaml.safe_load_all((ROOT / "k8s/components/strimzi/users.yaml").read_text()))
CERTIFICATE = ROOT / "tests/pipeline/certificate.pem"
"""Key and certificate in one file; it signs itself."""
PHOTO = ROOT / "docs/alert.png"
PASSWORD = "of-every-user"
RESOURCES = {"topic": "TOPIC", "group": "GROUP", "transactionalId": "TRANSACTIONAL_ID"}


class SecuredKafka(DevelopmentKafka):
    """Beside the open listener, whose users may do all, one that nobody passes without a name and a right."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.secured = f"localhost:{free.getsockname()[1]}"

    def _write_properties(self, before):
        instance = super()._write_properties(before)
        path = self.directory / "server.properties"
        lines = dict(line.split("=", 1) for line in path.read_text().splitlines())
        for name in ("listeners", "advertised.listeners"):
            lines[name] += f",SECURED://{self.secured}"
        lines["listener.security.protocol.map"] += ",SECURED:SASL_SSL"
        module = "org.apache.kafka.common.security.scram.ScramLoginModule"
        lines |= {
            "listener.name.secured.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.secured.scram-sha-512.sasl.jaas.config": f"{module} required;",
            "listener.name.secured.ssl.keystore.type": "PEM",
            "listener.name.secured.ssl.keystore.location": str(CERTIFICATE),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }
        path.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        return instance


@pytest.fixture(scope="module")
def kafka(tmp_path_factory) -> Iterator[SecuredKafka]:
    if os.environ.get("DAMAGEWATCH_TEST_KAFKA"):
        pytest.skip("needs a broker of its own")
    kafka = SecuredKafka(tmp_path_factory.mktemp("secured"))
    bootstrap = kafka.up()
    try:
        for name in (topics.IMAGES, topics.DETECTIONS, topics.ALERTS, topics.DEAD_LETTERS):
            Topics(KafkaOptions(bootstrap_servers=(bootstrap,))).create(TopicSpec(name, partitions=2))
        client = KafkaAdminClient(bootstrap_servers=bootstrap)
        names = [user["metadata"]["name"] for user in USERS]
        client.alter_user_scram_credentials(
            [
                UserScramCredentialUpsertion(name, ScramMechanism.SCRAM_SHA_512, PASSWORD, iterations=4096)
                for name in names
            ]
        )
        told = client.create_acls(list(rights()))
        assert not told["failed"], told
        client.close()
        yield kafka
    finally:
        kafka.down()


def rights() -> Iterator[ACL]:
    """As Strimzi's user operator makes them of the users' resources."""
    for user in USERS:
        for acl in user["spec"]["authorization"]["acls"]:
            resource = acl["resource"]
            kind = resource.get("patternType", "literal")
            pattern = ResourcePattern(
                ResourceType[RESOURCES[resource["type"]]],
                resource["name"],
                ACLResourcePatternType.PREFIXED if kind == "prefix" else ACLResourcePatternType.LITERAL,
            )
            for operation in acl["operations"]:
                yield ACL(
                    f"User:{user['metadata']['name']}", "*", ACLOperation[operation.upper()],
                    ACLPermissionType.ALLOW, pattern,
                )  # fmt: skip


def environment(kafka: SecuredKafka, user: str) -> dict[str, str]:
    return {
        "DAMAGEWATCH_KAFKA__BOOTSTRAP_SERVERS": kafka.secured,
        "DAMAGEWATCH_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
        "DAMAGEWATCH_KAFKA__SASL_MECHANISM": "SCRAM-SHA-512",
        "DAMAGEWATCH_KAFKA__USERNAME": user,
        "DAMAGEWATCH_KAFKA__PASSWORD": PASSWORD,
        "DAMAGEWATCH_KAFKA__CA_FILE": str(CERTIFICATE),
        "DAMAGEWATCH_KAFKA__CONNECT_TIMEOUT": "4",
        "DAMAGEWATCH_TELEMETRY__PORT": "0",
    }


def damagewatch(kafka: SecuredKafka, user: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "damagewatch", *arguments],
        env=os.environ | environment(kafka, user),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def running_matcher(kafka: SecuredKafka, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    places = {
        "DAMAGEWATCH_INDEX__PATH": str(folder / "index"),
        "DAMAGEWATCH_EVIDENCE__URL": str(folder / "evidence"),
    }
    with (folder / "matcher.log").open("wb") as log:
        matcher = subprocess.Popen(
            [sys.executable, "-m", "damagewatch", "matcher"],
            env=os.environ | environment(kafka, "matcher") | places,
            stdout=log,
            stderr=log,
        )
    try:
        yield matcher
    finally:
        matcher.terminate()
        matcher.wait(60)


def options(kafka: SecuredKafka, user: str) -> KafkaOptions:
    return KafkaOptions(
        bootstrap_servers=(kafka.secured,),
        security_protocol=SecurityProtocol.SASL_SSL,
        sasl_mechanism=SaslMechanism.SCRAM_SHA_512,
        username=user,
        password=PASSWORD,
        ca_file=CERTIFICATE,
    )


def test_each_user_can_do_its_work(kafka, tmp_path):
    """A photo and its copy in another claim: published, matched, committed, read as an alert; the lag is seen."""
    for claim in ("one", "other"):
        sent = damagewatch(kafka, "claims-intake", "publish", str(PHOTO), "--claim", claim)
        assert sent.returncode == 0, sent.stderr
    with running_matcher(kafka, tmp_path) as matcher:
        scaler = Topics(options(kafka, "scaler"))
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and matcher.poll() is None:
            behind = sum(scaler.end_offsets(topics.IMAGES).values()) - sum(
                scaler.committed_offsets("damagewatch-matcher").values()
            )
            if behind == 0:
                break
            time.sleep(0.5)
        matcher.terminate()
        code = matcher.wait(60)
    log = (tmp_path / "matcher.log").read_text()
    assert code == 0, log
    assert behind == 0, log
    assert "left the group" in log, "leaving is a right of its own"
    assert "AuthorizationFailed" not in log
    alerts = damagewatch(kafka, "alert-reader", "alerts", "--json")
    assert alerts.returncode == 0, alerts.stderr
    assert alerts.stdout.count("DUPLICATE_PHOTO") >= 1


@pytest.mark.parametrize(
    ("user", "arguments"),
    [("alert-reader", ("publish", str(PHOTO), "--claim", "x")), ("claims-intake", ("alerts",))],
)
def test_nobody_can_do_the_work_of_another(kafka, user, arguments):
    refused = damagewatch(kafka, user, *arguments)
    assert refused.returncode == 1
    assert "no right to it" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_wrong_password_is_told_as_one(kafka, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PASSWORD", "guessed")
    refused = damagewatch(kafka, "alert-reader", "alerts")
    assert refused.returncode == 1
    assert "password" in refused.stderr
    assert "Traceback" not in refused.stderr
