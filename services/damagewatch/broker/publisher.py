"""Publishes records and knows of each that it arrived; what is under way is bounded in bytes."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Any, Self

from kafka.errors import KafkaError

from damagewatch.broker.errors import NEVER_TAKEN, sorted_out
from damagewatch.broker.options import KafkaOptions
from damagewatch.broker.record import OutgoingRecord
from damagewatch.broker.transaction import BoundedProducer
from damagewatch.domain import Reason, Refused


class Publisher:
    """An idempotent producer. kafka-python bounds neither the memory of what is under way nor reports losses
    unless asked: here at most `max_in_flight_bytes` are under way, and every record is asked after.

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
            Refused: Kafka never takes this record (too large). Others are not affected.
            DependencyDownError: this or an earlier record was not delivered; the text names its topic.
        """
        while self._under_way and self._bytes + record.size > self._max_bytes:
            self._settle()
        while self._under_way and self._under_way[0][1].is_done:
            self._settle()
        try:
            future = self._producer.send(
                record.topic, key=record.key, value=record.value, headers=list(record.headers)
            )
        except KafkaError as error:
            raise _explained(error, record) from error
        self._under_way.append((record, future))
        self._bytes += record.size

    def flush(self) -> None:
        """Waits until all that was sent has arrived.

        Raises:
            Refused: as in `publish`.
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

    def _settle(self) -> None:
        record, future = self._under_way.popleft()
        self._bytes -= record.size
        try:
            future.get(timeout=self._timeout)
        except KafkaError as error:
            raise _explained(error, record) from error
        self._delivered += 1


def _explained(error: KafkaError, record: OutgoingRecord) -> Exception:
    if isinstance(error, NEVER_TAKEN):
        detail = f"a record of {record.size} bytes is too large for the topic {record.topic}"
        return Refused(Reason.PHOTO_TOO_LARGE, detail, "publish")
    return sorted_out(error, f"publishing to {record.topic}")
