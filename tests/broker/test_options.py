from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import kafka.record.util
import pytest

from damagewatch.broker.options import KafkaOptions, OptionsError, SaslMechanism, SecurityProtocol


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"delivery_timeout": 15.0}, "delivery_timeout < transaction_timeout"),
        ({"transaction_timeout": 120.0}, "transaction_timeout < max_poll_interval"),
        ({"request_timeout": 10.0}, "request_timeout < delivery_timeout"),
        ({"max_message_bytes": 30_000_000}, "max_message_bytes <= max_partition_fetch_bytes"),
        ({"fetch_max_bytes": 1_000_000}, "fetch_max_bytes"),
        ({"bootstrap_servers": ()}, "bootstrap_servers"),
        ({"worker": "a b"}, "worker"),
        ({"group": ""}, "group"),
        ({"security_protocol": SecurityProtocol.SASL_SSL}, "username and password"),
        ({"username": "me", "password": "secret"}, "PLAINTEXT sends neither"),
        ({"ca_file": Path(__file__)}, "not encrypted"),
        ({"security_protocol": SecurityProtocol.SSL, "ca_file": Path("/nowhere/ca.pem")}, "/nowhere/ca.pem"),
        ({"security_protocol": SecurityProtocol.SSL, "key_file": Path(__file__)}, "without certificate_file"),
    ],
)
def test_options_that_contradict_each_other_are_refused_by_name(changes: dict[str, Any], names: str) -> None:
    with pytest.raises(OptionsError, match=names):
        KafkaOptions(**changes)


def test_without_the_fast_checksum_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka.record.util, "crc32c_c", None)
    with pytest.raises(OptionsError, match="crc32c"):
        KafkaOptions()


def test_secrets_are_not_shown() -> None:
    options = KafkaOptions(
        security_protocol=SecurityProtocol.SASL_PLAINTEXT, username="me", password="hunter2"
    )
    assert "hunter2" not in repr(options)


def test_tls_and_sasl_reach_every_client() -> None:
    options = KafkaOptions(
        security_protocol=SecurityProtocol.SASL_SSL,
        sasl_mechanism=SaslMechanism.SCRAM_SHA_256,
        username="me",
        password="secret",
        ca_file=Path(__file__),
        check_hostname=False,
    )
    for arguments in (
        options.group_arguments(),
        options.transaction_arguments(),
        options.admin_arguments(),
    ):
        assert arguments["security_protocol"] == "SASL_SSL"
        assert arguments["sasl_mechanism"] == "SCRAM-SHA-256"
        assert (arguments["sasl_plain_username"], arguments["sasl_plain_password"]) == ("me", "secret")
        assert arguments["ssl_cafile"] == __file__
        assert arguments["ssl_check_hostname"] is False


def test_kafka_python_never_logs_payloads_though_root_is_at_debug() -> None:
    root, ours = logging.getLogger(), logging.getLogger("kafka")
    before = root.level, ours.level
    try:
        root.setLevel(logging.DEBUG)
        ours.setLevel(logging.NOTSET)
        KafkaOptions()
        assert not logging.getLogger("kafka.producer.kafka").isEnabledFor(logging.DEBUG)
    finally:
        root.setLevel(before[0])
        ours.setLevel(before[1])
