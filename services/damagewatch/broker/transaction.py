"""Outputs and offsets in one Kafka transaction (KIP-98, KIP-447), on a producer that is trusted only once.

kafka-python's transactional producer is of no use after an error: offsets of a transaction that failed stay
in its memory and are committed with the next one, an EndTxn that got no answer may still arrive and end a
later transaction (KAFKA-17754), and a record that timed out does not fail its transaction. So a session that
met any error is thrown away, with its connections. Its successor has the same `transactional.id`: the broker
raises the epoch, which aborts what the old one left open and fences what of it is still on the wire.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata

from damagewatch.broker.errors import NEVER_TAKEN, OutputRefusedError, sorted_out
from damagewatch.broker.options import KafkaOptions
from damagewatch.broker.record import OutgoingRecord, Partition, Processed
from damagewatch.domain import DependencyDownError


@dataclass(frozen=True, slots=True)
class Membership:
    """Who we are in the group at this moment: what lets the broker refuse offsets of a member it put out."""

    group: str
    generation: int
    member: str
    instance: str | None

    def __post_init__(self) -> None:
        # Kafka checks no generation of anonymous offsets (ClassicGroup.validateOffsetCommit).
        if self.generation <= 0 or not self.member:
            raise ValueError(f"not a member of a stable group: {self}")


class BoundedProducer(KafkaProducer):  # type: ignore[misc]
    """KafkaProducer whose waits end, and that can be dropped without waiting at all.

    `commit_transaction` and `send_offsets_to_transaction` of kafka-python 3.0 wait for ever; these do the
    same with a timeout, in seconds.
    """

    def send_offsets_within(self, offsets: Any, membership: Any, timeout: float) -> None:
        """`send_offsets_to_transaction`, or KafkaTimeoutError after `timeout`."""
        self._finish(self._transaction_manager.send_offsets_to_transaction(offsets, membership), timeout)

    def commit_within(self, timeout: float) -> None:
        """`commit_transaction`, or KafkaTimeoutError after `timeout`: then it may or may not be committed."""
        self._finish(self._transaction_manager.begin_commit(), timeout)

    def _finish(self, result: Any, timeout: float) -> None:
        self._sender.wakeup()
        if not result.wait(timeout_ms=max(0.0, timeout) * 1000):
            raise _timeout("no answer from the transaction coordinator")

    def drop(self) -> None:
        """Ends the sender thread and its connections at once. Nothing more is sent, nothing is aborted."""
        self._unregister_cleanup()
        self._closed = True
        self._sender.force_close()
        self._sender.wakeup()

    def __del__(self) -> None:
        # KafkaProducer's own would silence the library's log for the whole process.
        pass


class TransactionSession:
    """One transactional producer: good for one transaction after the other, until the first error.

    Not for several threads. After any exception out of `commit` the session is dead: `drop` it, open another,
    and read on from the committed offsets, which alone say whether the transaction was committed.
    """

    def __init__(
        self, options: KafkaOptions, *, make_producer: Callable[..., BoundedProducer] = BoundedProducer
    ) -> None:
        """Opens the session: aborts or completes what a former worker of this name left open.

        Waits for `connect_timeout` and `delivery_timeout` at most.

        Raises:
            DependencyDownError: Kafka does not answer.
        """
        self._timeout = options.transaction_timeout
        self._dead = False
        producer: BoundedProducer | None = None
        try:
            producer = make_producer(**options.transaction_arguments())
            producer.init_transactions()
        except KafkaError as error:
            if producer is not None:
                producer.drop()
            raise sorted_out(error, "opening a transactional producer") from error
        self._producer = producer

    @property
    def dead(self) -> bool:
        """Whether an error made it useless."""
        return self._dead

    def commit(
        self, results: Sequence[Processed], offsets: Mapping[Partition, int], membership: Membership
    ) -> None:
        """Publishes all outputs of `results` and commits `offsets`: both become visible, or neither.

        Every output is acknowledged before the offsets are sent, and those before the transaction is
        committed. Waits for the transaction timeout at most.

        Raises:
            DependencyDownError: something went wrong; it may even be committed.
            OutputRefusedError: this output will never be taken. Nothing was committed.
            FencedError: another worker took our place.
        """
        if self._dead:
            raise RuntimeError("this session met an error and must not be used again")
        self._dead = True
        deadline = time.monotonic() + self._timeout
        try:
            self._producer.begin_transaction()
            sent = [
                (result, output, self._send(result, output))
                for result in results
                for output in result.outputs
            ]
            for result, output, future in sent:
                try:
                    future.get(timeout=_left(deadline))
                except NEVER_TAKEN as error:
                    raise _refused(result, output, error) from error
            self._producer.send_offsets_within(
                {
                    TopicPartition(*source): OffsetAndMetadata(offset, "", -1)
                    for source, offset in offsets.items()
                },
                ConsumerGroupMetadata(
                    membership.group, membership.generation, membership.member, membership.instance
                ),
                _left(deadline),
            )
            self._producer.commit_within(_left(deadline))
        except KafkaError as error:
            raise sorted_out(error, "committing a transaction") from error
        self._dead = False

    def _send(self, result: Processed, output: OutgoingRecord) -> Any:
        try:
            return self._producer.send(
                output.topic, key=output.key, value=output.value, headers=list(output.headers)
            )
        except NEVER_TAKEN as error:
            raise _refused(result, output, error) from error

    def drop(self) -> None:
        """Forgets the session at once. An open transaction is aborted by its successor, or times out."""
        self._dead = True
        self._producer.drop()

    def close(self, timeout: float) -> None:
        """Ends a healthy session, which has nothing under way, within `timeout` seconds."""
        if self._dead:
            self.drop()
            return
        self._dead = True
        try:
            self._producer.close(timeout=timeout)
        except KafkaError:
            self._producer.drop()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise DependencyDownError("kafka", "committing a transaction: it took longer than its timeout")
    return left


def _timeout(text: str) -> KafkaError:
    from kafka.errors import KafkaTimeoutError

    return KafkaTimeoutError(text)


def _refused(result: Processed, output: OutgoingRecord, error: KafkaError) -> OutputRefusedError:
    what = f"an output of {output.size} bytes for {output.topic}: {type(error).__name__}"
    return OutputRefusedError(result.source, result.offset, what)
