"""The traps of kafka-python's transactions, on a real broker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from broker_stream import Stream
from kafka.errors import KafkaError

from damagewatch.broker.consumer import GroupConsumer
from damagewatch.broker.errors import FencedError, OutputRefusedError
from damagewatch.broker.options import KafkaOptions
from damagewatch.broker.record import OutgoingRecord, Partition, Processed
from damagewatch.broker.topics import TopicSpec
from damagewatch.broker.transaction import Membership, TransactionSession
from damagewatch.domain import DependencyDownError

pytestmark = pytest.mark.kafka


@pytest.fixture
def join(stream: Stream) -> Iterator[Callable[[KafkaOptions], GroupConsumer]]:
    """Makes members of the stream's group that have polled until they own partitions."""
    made: list[GroupConsumer] = []

    def joined(options: KafkaOptions) -> GroupConsumer:
        consumer = GroupConsumer(options, [stream.input])
        made.append(consumer)
        deadline = time.monotonic() + 30
        while not (consumer.membership and consumer.leases):
            assert time.monotonic() < deadline
            consumer.poll(0.1)
        return consumer

    yield joined
    for consumer in made:
        consumer.close(2)


def output(stream: Stream, value: bytes, topic: str = "") -> OutgoingRecord:
    return OutgoingRecord(topic or stream.output, b"key", value)


def member(consumer: GroupConsumer) -> Membership:
    assert consumer.membership is not None
    return consumer.membership


def test_one_refused_output_and_neither_outputs_nor_offsets_become_visible(
    stream: Stream, join: Callable[[KafkaOptions], GroupConsumer]
) -> None:
    small = f"{stream.output}-small"
    stream.topics.create(TopicSpec(small, 1, max_message_bytes=1000))
    source = Partition(stream.input, 0)
    consumer = join(stream.options)
    session = TransactionSession(stream.options)
    good, bad = output(stream, b"good"), output(stream, b"x" * 5000, small)
    with pytest.raises(OutputRefusedError) as caught:
        session.commit(
            [Processed(source, 6, 1, (good,)), Processed(source, 7, 1, (bad,))], {source: 8}, member(consumer)
        )
    session.drop()
    assert caught.value.offset == 7
    TransactionSession(stream.options).close(5)
    assert stream.outputs() == []
    assert stream.committed() == 0


def test_offsets_of_a_failed_transaction_do_not_leak_into_the_next(
    stream: Stream, join: Callable[[KafkaOptions], GroupConsumer]
) -> None:
    p0, p1 = Partition(stream.input, 0), Partition(stream.input, 1)
    now = member(join(stream.options))
    stale = Membership(now.group, now.generation + 5, now.member, now.instance)
    session = TransactionSession(stream.options)
    with pytest.raises(DependencyDownError, match="IllegalGeneration"):
        session.commit([Processed(p0, 99, 1, (output(stream, b"lost"),))], {p0: 100}, stale)
    session.drop()
    session = TransactionSession(stream.options)
    session.commit([Processed(p1, 6, 1, (output(stream, b"kept"),))], {p1: 7}, now)
    session.close(5)
    assert stream.topics.committed_offsets(stream.options.group) == {p1: 7}
    assert stream.outputs() == ["kept"]


def test_a_successor_fences_its_predecessor_and_aborts_what_it_left_open(
    stream: Stream, join: Callable[[KafkaOptions], GroupConsumer]
) -> None:
    source = Partition(stream.input, 0)
    now = member(join(stream.options))
    zombie = TransactionSession(stream.options)
    zombie._producer.begin_transaction()
    zombie._producer.send(stream.output, key=b"key", value=b"half done").get(timeout=10)
    successor = TransactionSession(stream.options)
    with pytest.raises(KafkaError):
        zombie._producer.commit_within(10)
    zombie.drop()
    successor.commit([Processed(source, 0, 1, (output(stream, b"whole"),))], {source: 1}, now)
    successor.close(5)
    assert stream.outputs() == ["whole"]


def test_a_member_whose_place_was_taken_can_commit_nothing(
    stream: Stream, join: Callable[[KafkaOptions], GroupConsumer]
) -> None:
    source = Partition(stream.input, 0)
    former = join(stream.options)
    join(stream.options)
    session = TransactionSession(stream.options)
    with pytest.raises(FencedError):
        session.commit([Processed(source, 0, 1, (output(stream, b"zombie"),))], {source: 1}, member(former))
    session.drop()
    TransactionSession(stream.options).close(5)
    assert stream.outputs() == []
    assert stream.committed() == 0
