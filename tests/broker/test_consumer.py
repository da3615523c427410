"""What the client raises, told apart: a record's fault, or Kafka's. Without a broker; the client is a fake."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.errors import CorruptRecordError, KafkaStorageError, TopicAuthorizationFailedError
from kafka.structs import MemberState

from damagewatch.broker.consumer import GroupConsumer
from damagewatch.broker.options import KafkaOptions
from damagewatch.broker.record import Partition, Record
from damagewatch.domain import DependencyDownError

SOURCE = Partition("images", 0)
TP = TopicPartition(*SOURCE)
END = 200

Trouble = Callable[[int], Exception | None]
"""What a fetch at an offset raises."""


class Client:
    """As much of a `KafkaConsumer` as is used here: one partition with a record at each offset below END."""

    def __init__(self, trouble: Trouble) -> None:
        self.trouble = trouble
        self.position = 0
        self.paused: set[Any] = set()
        self.listener: Any = None
        self._coordinator = SimpleNamespace(_heartbeat_enabled=True)
        self._cluster = SimpleNamespace(partitions_for_topic=lambda _: {0}, topic_id=lambda _: "id")

    def subscribe(self, topics: list[str], listener: Any) -> None:
        self.listener = listener

    def assign(self, partitions: list[Any]) -> None:
        pass

    def group_metadata(self) -> Any:
        return SimpleNamespace(
            state=MemberState.STABLE, generation_id=1, member_id="m", group_id="g", group_instance_id="i"
        )

    def committed(self, _: Any, timeout_ms: int) -> int:
        return 0

    def end_offsets(self, _: Any, timeout_ms: int) -> dict[Any, int]:
        return {TP: END}

    def seek(self, _: Any, offset: int) -> None:
        self.position = offset

    def pause(self, *partitions: Any) -> None:
        self.paused.update(partitions)

    def resume(self, *partitions: Any) -> None:
        self.paused.difference_update(partitions)

    def poll(self, timeout_ms: int, max_records: int = 1) -> dict[Any, list[Any]]:
        if self.listener is not None and not self.listener.assigned:
            self.listener.on_partitions_assigned({TP})
        if self.paused or self.position >= END:
            return {}
        if error := self.trouble(self.position):
            raise error
        message = SimpleNamespace(offset=self.position, timestamp=0, key=b"", value=b"", headers=[])
        self.position += 1
        return {TP: [message]}

    def close(self, **_: Any) -> None:
        pass


def reading(trouble: Trouble) -> GroupConsumer:
    return GroupConsumer(KafkaOptions(), ["images"], make_consumer=lambda **_: Client(trouble))


def read(consumer: GroupConsumer, count: int) -> dict[int, Record]:
    """Records by offset: after a new client they come again."""
    records: dict[int, Record] = {}
    for _ in range(4 * END):
        records |= {record.offset: record for record in consumer.poll(0)}
        if len(records) >= count:
            return records
    raise AssertionError(f"only {len(records)} of {count}")


def test_what_kafka_refuses_is_no_records_fault() -> None:
    for error in (TopicAuthorizationFailedError({"images"}), KafkaStorageError()):
        refusing = [True]
        consumer = reading(lambda offset, e=error, on=refusing: e if on[0] and offset == 3 else None)  # type: ignore[misc]
        with pytest.raises(DependencyDownError):
            read(consumer, 10)
        refusing[0] = False
        assert {record.defect for record in read(consumer, END).values()} == {""}


def test_a_spoiled_stretch_is_passed_over_however_long_it_is() -> None:
    spoiled = range(2, 152)
    consumer = reading(lambda offset: CorruptRecordError() if offset in spoiled else None)
    records = read(consumer, END)
    assert {offset for offset, record in records.items() if record.defect} == set(spoiled)
