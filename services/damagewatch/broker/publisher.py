"""Publishes records and knows of each that it arrived; what is under way is bounded in bytes."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Any, Self

from kafka.errors import KafkaError

from damagewatch.broker.errors import sorted_out
from damagewatch.broker.options import KafkaOptions
from damagewatch.broker.record import OutgoingRecord
from damagewatch.broker.topics import Topics
from damagewatch.broker.transaction import BoundedProducer
from damagewatch.domain import DependencyDownError, Reason, Refused

_OVERHEAD = 1024
"""Bytes around a record in its batch, generously."""


class Publisher:
    """An idempotent producer. kafka-python bounds neither the memory of what is under way nor reports losses
    unless asked: here at most `max_in_flight_bytes` are under way, and every record is asked after. A record
    that the broker refuses would spoil kafka-python's idempotent producer for all that follow, so sizes are
    checked against the topic's limit before anything is sent.

    A context manager: leaving it without an exception flushes, and raises what could not be delivered.
    """

    def __init__(self, options: KafkaOptions, *, max_in_flight_bytes: int = 64 * 1024 * 1024) -> None:
        """Connects.

        Raises:
            DependencyDownError: Kafka does not answer.
        """
        try:
            self._producer = BoundedProducer(**options.producer_arguments())
        except KafkaError as error:
            raise sorted_out(error, "connecting a producer") from error
        self._options = options
        self._limits: dict[str, int] = {}
        self._timeout = options.delivery_timeout + options.request_timeout
        self._max_bytes = max_in_flight_bytes
        self._under_way: deque[tuple[OutgoingRecord, Any]] = deque()
        self._bytes = 0
        self._delivered = 0

    @property
    def delivered(self) -> int:
        """Records that the broker has acknowledged."""
        return self._delivered

    def publish(self, record: OutgoingRecord) -> None:
        """Sends a record; waits while too much is under way.

        Raises:
            Refused: the topic does not take records of this size. Nothing was sent; others are not affected.
            DependencyDownError: this or an earlier record was not delivered, or there is no such topic; the
                text names it. The publisher is of no use any more.
        """
        limit = self._limit(record.topic)
        if record.size + _OVERHEAD > limit:
            detail = f"a record of {record.size} bytes; the topic {record.topic} takes {limit}"
            raise Refused(Reason.PHOTO_TOO_LARGE, detail, "publish")
        while self._under_way and self._bytes + record.size > self._max_bytes:
            self._settle()
        while self._under_way and self._under_way[0][1].is_done:
            self._settle()
        try:
            future = self._producer.send(
                record.topic, key=record.key, value=record.value, headers=list(record.headers)
            )
        except KafkaError as error:
            raise sorted_out(error, f"publishing to {record.topic}") from error
        self._under_way.append((record, future))
        self._bytes += record.size

    def flush(self) -> None:
        """Waits until all that was sent has arrived.

        Raises:
            DependencyDownError: as in `publish`.
        """
        while self._under_way:
            self._settle()

    def close(self) -> None:
        """Ends at once; what is still under way may be lost. `flush` first."""
        self._producer.drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self.close()

    def _limit(self, topic: str) -> int:
        if topic not in self._limits:
            described = Topics(self._options).describe(topic)
            if described is None:
                raise DependencyDownError("kafka", f"publishing to {topic}: no such topic, or no right to it")
            # Not every client may see a topic's settings.
            said = int(described.settings.get("max.message.bytes", self._options.max_message_bytes))
            self._limits[topic] = min(said, self._options.max_message_bytes)
        return self._limits[topic]

    def _settle(self) -> None:
        record, future = self._under_way.popleft()
        self._bytes -= record.size
        try:
            future.get(timeout=self._timeout)
        except KafkaError as error:
            raise sorted_out(error, f"publishing to {record.topic}") from error
        self._delivered += 1
