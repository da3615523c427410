"""A stream for one test: topics, a group and workers that no other test uses."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any

from kafka import KafkaAdminClient

from damagewatch.broker.options import KafkaOptions
from damagewatch.broker.publisher import Publisher
from damagewatch.broker.reader import TopicReader
from damagewatch.broker.record import OutgoingRecord, Record
from damagewatch.broker.topics import Topics, TopicSpec


class Stream:
    def __init__(self, bootstrap: str, partitions: int) -> None:
        tag = uuid.uuid4().hex[:8]
        self.input, self.output, self.dead = f"in-{tag}", f"out-{tag}", f"dead-{tag}"
        self.options = KafkaOptions(
            bootstrap_servers=(bootstrap,), group=f"group-{tag}", worker=f"worker-{tag}-0", session_timeout=10
        )
        self.topics = Topics(self.options)
        for name in (self.input, self.output, self.dead):
            self.topics.create(TopicSpec(name, partitions))

    def worker(self, number: int, **changes: Any) -> KafkaOptions:
        name = f"{self.options.worker[:-1]}{number}"
        return dataclasses.replace(self.options, worker=name, **changes)

    def publish(self, values: list[str]) -> None:
        with Publisher(self.options) as publisher:
            for value in values:
                publisher.publish(OutgoingRecord(self.input, value.encode(), value.encode()))

    def read(self, topic: str) -> list[Record]:
        return list(TopicReader(self.options, topic).read())

    def outputs(self) -> list[str]:
        return sorted((record.value or b"").decode() for record in self.read(self.output))

    def committed(self) -> int:
        return sum(self.topics.committed_offsets(self.options.group).values())

    def members(self) -> list[str]:
        """The group's members by their worker names."""
        client = KafkaAdminClient(**self.options.admin_arguments())
        try:
            group = client.describe_groups([self.options.group])[self.options.group]
            return sorted(member["group_instance_id"] for member in group["members"])
        finally:
            client.close()
