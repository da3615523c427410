"""Topics: making them, what they are, where they end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from kafka import IsolationLevel, KafkaAdminClient, OffsetSpec, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError, RetriableError, TopicAlreadyExistsError

from damagewatch.broker.errors import sorted_out
from damagewatch.broker.options import MAX_MESSAGE_BYTES, KafkaOptions
from damagewatch.broker.record import Partition

DAY_MS = 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic to create. `replication` -1 and `retention_ms` None leave it to the broker; -1 keeps for ever.

    Deleted by age, never compacted: compaction would drop all but the last photo of a claim.
    """

    name: str
    partitions: int = 6
    replication: int = -1
    retention_ms: int | None = 7 * DAY_MS
    max_message_bytes: int = MAX_MESSAGE_BYTES

    def __post_init__(self) -> None:
        if not self.name or self.partitions < 1 or self.max_message_bytes < 1:
            raise ValueError(f"topic out of range: {self}")

    @property
    def settings(self) -> dict[str, str]:
        """The topic's own settings, as Kafka calls them."""
        settings = {"cleanup.policy": "delete", "max.message.bytes": str(self.max_message_bytes)}
        if self.retention_ms is not None:
            settings["retention.ms"] = str(self.retention_ms)
        return settings


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """A topic as it is. `topic_id` is the broker's UUID of it (KIP-516): a topic deleted and made anew has
    another."""

    name: str
    topic_id: str
    partitions: int
    replication: int
    settings: Mapping[str, str]


class Topics:
    """Administers topics; connects anew for each call.

    All methods raise DependencyDownError where Kafka does not answer.
    """

    def __init__(self, options: KafkaOptions) -> None:
        self._options = options

    def create(self, spec: TopicSpec) -> bool:
        """Makes a topic, waits until it is usable, and returns False where there already is one."""
        with self._client("creating a topic") as client:
            wanted = {
                spec.name: {
                    "num_partitions": spec.partitions,
                    "replication_factor": spec.replication,
                    "configs": spec.settings,
                }
            }
            try:
                client.create_topics(wanted, wait_for_metadata=True)
            except TopicAlreadyExistsError:
                return False
            return True

    def delete(self, name: str) -> None:
        """Removes a topic with all its records."""
        with self._client("deleting a topic") as client:
            client.delete_topics([name])

    def describe(self, name: str) -> TopicDescription | None:
        """A topic as it is, or None where there is none."""
        with self._client("describing a topic") as client:
            found = client.describe_topics([name])[0]
            if found["error_code"]:
                return None
            resource = ConfigResource(ConfigResourceType.TOPIC, name)
            settings = client.describe_configs([resource], config_filter="all")["topic"][name]
            return TopicDescription(
                name=name,
                topic_id=str(found["topic_id"]),
                partitions=len(found["partitions"]),
                replication=len(found["partitions"][0]["replica_nodes"]),
                settings={key: str(entry["value"]) for key, entry in settings.items()},
            )

    def end_offsets(self, name: str, *, committed: bool = True) -> dict[Partition, int]:
        """Where each partition ends: the offset of the next record.

        With `committed` as a read_committed reader sees it: before the first open transaction.
        """
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        with self._client("reading end offsets") as client:
            found = client.describe_topics([name])[0]
            wanted = {
                TopicPartition(name, p["partition_index"]): OffsetSpec.LATEST for p in found["partitions"]
            }
            offsets = client.list_partition_offsets(wanted, isolation_level=level)
            return {Partition(*tp): at.offset for tp, at in offsets.items()}

    def committed_offsets(self, group: str) -> dict[Partition, int]:
        """What a group has committed."""
        deadline = time.monotonic() + self._options.delivery_timeout
        with self._client("reading committed offsets") as client:
            while True:
                try:
                    groups = client.list_group_offsets({group: None})
                except RetriableError:  # a broker that was just started has no coordinators yet
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.2)
                    continue
                return {Partition(*tp): at.offset for tp, at in groups[group].items()}

    @contextmanager
    def _client(self, doing: str) -> Iterator[KafkaAdminClient]:
        try:
            client = KafkaAdminClient(**self._options.admin_arguments())
            try:
                yield client
            finally:
                client.close()
        except KafkaError as error:
            raise sorted_out(error, doing) from error
