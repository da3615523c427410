"""Reads committed records of one topic, from a point in time to the end or on and on, outside any group."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from damagewatch.broker.errors import sorted_out
from damagewatch.broker.options import KafkaOptions
from damagewatch.broker.record import Headers, Partition, Record
from damagewatch.domain import DependencyDownError

_NO_LEASE = 0


@dataclass(frozen=True, slots=True)
class TopicReader:
    """Reads `topic` as every reader outside sees it: aborted and open transactions do not exist."""

    options: KafkaOptions
    topic: str

    def read(
        self,
        *,
        since_ms: int | None = None,
        follow: bool = False,
        stop: threading.Event | None = None,
    ) -> Iterator[Record]:
        """Yields records: all, or those written since `since_ms` (milliseconds since 1970 UTC).

        Ends at the end that the topic had when reading began, or with `follow` only once `stop` is set (or
        the iterator is closed). Order holds within a partition. Records have lease 0.

        Raises:
            DependencyDownError: Kafka does not answer, or there is no such topic.
        """
        stop = stop or threading.Event()
        try:
            consumer = KafkaConsumer(**self.options.consumer_arguments())
        except KafkaError as error:
            raise sorted_out(error, f"reading {self.topic}") from error
        try:
            partitions = self._partitions(consumer)
            consumer.assign(partitions)
            timeout_ms = round(self.options.delivery_timeout * 1000)
            ends = consumer.end_offsets(partitions, timeout_ms=timeout_ms)
            starts = _starts(consumer, partitions, since_ms, ends, timeout_ms)
            for partition, offset in starts.items():
                consumer.seek(partition, offset)
            open_partitions = {p for p in partitions if starts[p] < ends[p]}
            while not stop.is_set() and (follow or open_partitions):
                polled = consumer.poll(timeout_ms=200, max_records=100)
                for partition, messages in polled.items():
                    for message in messages:
                        if follow or message.offset < ends[partition]:
                            yield _record(message)
                # The position also passes markers, which are no records.
                open_partitions = {p for p in open_partitions if consumer.position(p, timeout_ms) < ends[p]}
        except KafkaError as error:
            raise sorted_out(error, f"reading {self.topic}") from error
        finally:
            consumer.close(autocommit=False)

    def at(self, source: Partition, offset: int) -> Record | None:
        """The one record at `offset`, or None where it is gone or not a committed record.

        Raises:
            DependencyDownError: Kafka does not answer.
        """
        partition = TopicPartition(*source)
        try:
            consumer = KafkaConsumer(**self.options.consumer_arguments())
            try:
                consumer.assign([partition])
                consumer.seek(partition, offset)
                deadline = time.monotonic() + self.options.request_timeout
                end = consumer.end_offsets([partition])[partition]
                while offset < end and time.monotonic() < deadline:
                    for messages in consumer.poll(timeout_ms=200, max_records=1).values():
                        return _record(messages[0]) if messages[0].offset == offset else None
            finally:
                consumer.close(autocommit=False)
        except KafkaError as error:
            raise sorted_out(error, f"reading {source.topic}") from error
        return None

    def _partitions(self, consumer: Any) -> list[TopicPartition]:
        cluster = consumer._cluster
        deadline = time.monotonic() + self.options.connect_timeout
        cluster.set_topics([self.topic])
        while not (numbers := cluster.partitions_for_topic(self.topic)):
            if time.monotonic() > deadline:
                raise DependencyDownError("kafka", f"no such topic, or no right to it: {self.topic}")
            cluster.request_update()
            time.sleep(0.05)
        return [TopicPartition(self.topic, number) for number in sorted(numbers)]


def _starts(
    consumer: Any, partitions: list[Any], since_ms: int | None, ends: dict[Any, int], timeout_ms: int
) -> dict[Any, int]:
    if since_ms is None:
        return dict(consumer.beginning_offsets(partitions, timeout_ms=timeout_ms))
    found = consumer.offsets_for_times(dict.fromkeys(partitions, since_ms), timeout_ms=timeout_ms)
    return {p: found[p].offset if found.get(p) is not None else ends[p] for p in partitions}


def _record(message: Any) -> Record:
    headers: Headers = tuple((name, value or b"") for name, value in message.headers)
    return Record(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        timestamp_ms=message.timestamp,
        key=message.key,
        value=message.value,
        headers=headers,
        lease=_NO_LEASE,
    )
