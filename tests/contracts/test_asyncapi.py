"""docs/asyncapi.yaml says what the code does."""

import re
from pathlib import Path

import pytest
from google.protobuf.descriptor import EnumDescriptor

from damagewatch import domain
from damagewatch.broker import deadletter
from damagewatch.contracts import codec, topics
from damagewatch.contracts.v1 import alert_pb2, damage_pb2
from damagewatch.contracts.wire import ContentType

CHECKOUT = Path(__file__).parents[2]
DOCUMENT = (CHECKOUT / "docs" / "asyncapi.yaml").read_text(encoding="utf-8")


def test_topics() -> None:
    ours = {topics.IMAGES, topics.DETECTIONS, topics.ALERTS, topics.DEAD_LETTERS}
    assert set(re.findall(r"^    address: (\S+)$", DOCUMENT, re.MULTILINE)) == ours


def test_dead_letter_headers() -> None:
    ours = {
        value for value in vars(deadletter).values() if isinstance(value, str) and value.startswith("dlq-")
    }
    assert set(re.findall(r"^          (dlq-[a-z0-9-]+):", DOCUMENT, re.MULTILINE)) == ours


def test_message_types() -> None:
    ours = {message.DESCRIPTOR.full_name for message in codec._MESSAGES.values()}
    published = set(re.findall(r"message-type: \{const: (\S+)\}", DOCUMENT))
    assert published == ours - {"damagewatch.v1.ClaimImage"}


@pytest.mark.parametrize("name", [topics.CONTENT_TYPE, topics.MESSAGE_TYPE, topics.ALERT_ID, topics.TENANT])
def test_headers(name: str) -> None:
    assert re.search(rf"^          {name}:", DOCUMENT, re.MULTILINE)


def test_content_types() -> None:
    assert f"enum: [{', '.join(ContentType)}]" in DOCUMENT
    assert f"maxLength: {codec.MAX_NAME}" in DOCUMENT


def test_every_schema_exists() -> None:
    referred = dict(re.findall(r"x-protobuf: \{message: (\S+), file: (\S+)\}", DOCUMENT))
    assert referred.keys() == {message.DESCRIPTOR.full_name for message in codec._MESSAGES.values()}
    for message, file in referred.items():
        assert f"message {message.rpartition('.')[2]} {{" in (CHECKOUT / file).read_text(encoding="utf-8")


def test_kinds_of_the_contract_are_those_of_the_domain() -> None:
    def names(enum: EnumDescriptor) -> set[str]:
        return {name for name in enum.values_by_name if not name.endswith("_UNSPECIFIED")}

    assert names(alert_pb2.Alert.Kind.DESCRIPTOR) == {kind.name for kind in domain.AlertKind}
    assert names(damage_pb2.Damage.Type.DESCRIPTOR) == {type_.name for type_ in domain.DamageType}
    assert names(damage_pb2.Damage.Severity.DESCRIPTOR) == {severity.name for severity in domain.Severity} - {
        "UNKNOWN"
    }
