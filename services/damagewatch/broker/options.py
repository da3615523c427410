"""How to reach Kafka and how long to wait for it: one frozen value, checked as a whole before all else."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any

import kafka.record.util

from damagewatch.broker.unpacking import bound_unpacking

MAX_MESSAGE_BYTES = 24 * 1024 * 1024
"""Largest record: a photo of 20 MB with its envelope. Brokers, topics and clients have to agree on it."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")
_RECORD_OVERHEAD = 64 * 1024


class OptionsError(ValueError):
    """The options contradict each other or name something that does not exist."""


class SecurityProtocol(StrEnum):
    """Whether the connection is encrypted (SSL) and who the client is (SASL)."""

    PLAINTEXT = "PLAINTEXT"
    SSL = "SSL"
    SASL_PLAINTEXT = "SASL_PLAINTEXT"
    SASL_SSL = "SASL_SSL"

    @property
    def uses_sasl(self) -> bool:
        """Needs a mechanism, a user name and a password."""
        return self in {SecurityProtocol.SASL_PLAINTEXT, SecurityProtocol.SASL_SSL}

    @property
    def uses_tls(self) -> bool:
        """Encrypts, and checks the broker's certificate."""
        return self in {SecurityProtocol.SSL, SecurityProtocol.SASL_SSL}


class SaslMechanism(StrEnum):
    """How user name and password are shown to the broker."""

    PLAIN = "PLAIN"
    SCRAM_SHA_256 = "SCRAM-SHA-256"
    SCRAM_SHA_512 = "SCRAM-SHA-512"


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaOptions:
    """Where Kafka is, who we are to it, and every bound on size and time.

    The times have an order: a record's delivery ends before its transaction, and that before the group gives
    up on a member that does not poll. The sizes as well: what is fetched at once holds at least one largest
    message a partition. `worker` names one slot among the workers of a group (a pod's stable name): it is the
    member's `group.instance.id` and the producer's `transactional.id`, so a restarted worker takes its own
    place back at once, fences what is left of its former self and aborts its open transaction.

    Times are seconds, sizes bytes.
    """

    bootstrap_servers: tuple[str, ...] = ("127.0.0.1:9092",)
    security_protocol: SecurityProtocol = SecurityProtocol.PLAINTEXT
    sasl_mechanism: SaslMechanism = SaslMechanism.SCRAM_SHA_512
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    key_password: str = field(default="", repr=False)
    check_hostname: bool = True

    group: str = "damagewatch-matcher"
    worker: str = "damagewatch-0"

    max_message_bytes: int = MAX_MESSAGE_BYTES
    max_partition_fetch_bytes: int = MAX_MESSAGE_BYTES + _RECORD_OVERHEAD
    fetch_max_bytes: int = 2 * MAX_MESSAGE_BYTES
    max_poll_records: int = 16

    connect_timeout: float = 10.0
    request_timeout: float = 5.0
    delivery_timeout: float = 10.0
    transaction_timeout: float = 15.0
    session_timeout: float = 30.0
    max_poll_interval: float = 120.0

    def __post_init__(self) -> None:
        if kafka.record.util.crc32c_c is None:
            raise OptionsError(
                "the C implementation of CRC-32C is missing: pip install 'kafka-python[crc32c]' (without it "
                "every megabyte costs 150 ms)"
            )
        if not self.bootstrap_servers or not all(self.bootstrap_servers):
            raise OptionsError("bootstrap_servers is empty")
        for name in ("group", "worker"):
            if not _NAME.fullmatch(getattr(self, name)):
                raise OptionsError(f"{name} must be 1 to 200 of A-Z a-z 0-9 . _ -: {getattr(self, name)!r}")
        self._check_security()
        self._check_order(
            ("delivery_timeout", "transaction_timeout", "max_poll_interval"),
            "a record's delivery must end before its transaction, and that before the group gives up on us",
        )
        self._check_order(
            ("request_timeout", "delivery_timeout"), "a delivery must outlast one request, to try it again"
        )
        if not self.max_message_bytes <= self.max_partition_fetch_bytes <= self.fetch_max_bytes:
            raise OptionsError(
                "max_message_bytes <= max_partition_fetch_bytes <= fetch_max_bytes does not hold: "
                f"{self.max_message_bytes}, {self.max_partition_fetch_bytes}, {self.fetch_max_bytes}"
            )
        if min(self.max_message_bytes, self.max_poll_records) < 1:
            raise OptionsError("max_message_bytes and max_poll_records must be positive")
        if min(self.connect_timeout, self.request_timeout) <= 0:
            raise OptionsError("connect_timeout and request_timeout must be positive")
        keep_payloads_out_of_logs()
        bound_unpacking()

    def _check_order(self, names: tuple[str, ...], why: str) -> None:
        values = [getattr(self, name) for name in names]
        if not all(a < b for a, b in pairwise(values)):
            raise OptionsError(f"{' < '.join(names)} does not hold ({values}): {why}")

    def _check_security(self) -> None:
        if self.security_protocol.uses_sasl and not (self.username and self.password):
            raise OptionsError(f"{self.security_protocol} needs username and password")
        if not self.security_protocol.uses_sasl and (self.username or self.password):
            raise OptionsError(f"username and password are given, but {self.security_protocol} sends neither")
        files = {
            "ca_file": self.ca_file,
            "certificate_file": self.certificate_file,
            "key_file": self.key_file,
        }
        for name, path in files.items():
            if path is None:
                continue
            if not self.security_protocol.uses_tls:
                raise OptionsError(f"{name} is given, but {self.security_protocol} is not encrypted")
            if not path.is_file():
                raise OptionsError(f"{name} is no file: {path}")
        if self.key_file and not self.certificate_file:
            raise OptionsError("key_file is given without certificate_file")

    def consumer_arguments(self) -> dict[str, Any]:
        """For `kafka.KafkaConsumer`, without a group: committed records, from the start, offsets by hand."""
        return self._client_arguments() | {
            "auto_offset_reset": "earliest",
            "check_crcs": True,
            "enable_auto_commit": False,
            # Also what makes the fetch of committed offsets wait for open transactions (KIP-447).
            "isolation_level": "read_committed",
            "fetch_max_bytes": self.fetch_max_bytes,
            "max_partition_fetch_bytes": self.max_partition_fetch_bytes,
            "max_poll_records": self.max_poll_records,
            "allow_auto_create_topics": False,
        }

    def group_arguments(self) -> dict[str, Any]:
        """For `kafka.KafkaConsumer` as a member of the group."""
        from kafka.coordinator.assignors.range import RangePartitionAssignor

        return self.consumer_arguments() | {
            "group_id": self.group,
            "group_instance_id": self.worker,
            "session_timeout_ms": _ms(self.session_timeout),
            "heartbeat_interval_ms": _ms(min(3.0, self.session_timeout / 4)),
            "max_poll_interval_ms": _ms(self.max_poll_interval),
            "partition_assignment_strategy": (RangePartitionAssignor,),
        }

    def producer_arguments(self) -> dict[str, Any]:
        """For `kafka.KafkaProducer`: idempotent, acknowledged by all replicas."""
        return self._client_arguments() | {
            "acks": "all",
            "enable_idempotence": True,
            "delivery_timeout_ms": _ms(self.delivery_timeout),
            "max_block_ms": _ms(self.delivery_timeout),
            "max_request_size": self.max_message_bytes + _RECORD_OVERHEAD,
            "linger_ms": 0,
            "allow_auto_create_topics": False,
        }

    def transaction_arguments(self) -> dict[str, Any]:
        """For a transactional `kafka.KafkaProducer`."""
        return self.producer_arguments() | {
            "transactional_id": f"{self.group}-{self.worker}",
            "transaction_timeout_ms": _ms(self.transaction_timeout),
        }

    def admin_arguments(self) -> dict[str, Any]:
        """For `kafka.KafkaAdminClient`."""
        return self._client_arguments()

    def _client_arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "bootstrap_servers": list(self.bootstrap_servers),
            "client_id": self.worker,
            "security_protocol": self.security_protocol.value,
            "request_timeout_ms": _ms(self.request_timeout),
            "bootstrap_timeout_ms": _ms(self.connect_timeout),
            "reconnect_backoff_max_ms": 1000,
        }
        if self.security_protocol.uses_tls:
            arguments |= {
                "ssl_cafile": _text(self.ca_file),
                "ssl_certfile": _text(self.certificate_file),
                "ssl_keyfile": _text(self.key_file),
                "ssl_password": self.key_password or None,
                "ssl_check_hostname": self.check_hostname,
            }
        if self.security_protocol.uses_sasl:
            arguments |= {
                "sasl_mechanism": self.sasl_mechanism.value,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        return arguments


def keep_payloads_out_of_logs() -> None:
    """Holds the logger "kafka" at INFO or above: at DEBUG kafka-python formats every value, photos too."""
    logger = logging.getLogger("kafka")
    if logger.getEffectiveLevel() < logging.INFO:
        logger.setLevel(logging.INFO)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
