from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from broker_stream import Stream

from damagewatch.broker.consumer import GroupConsumer
from damagewatch.broker.development import DevelopmentKafka
from damagewatch.broker.errors import FencedError
from damagewatch.broker.options import KafkaOptions
from damagewatch.broker.record import Partition, Processed, Record
from damagewatch.broker.topics import TopicSpec
from damagewatch.broker.transaction import TransactionSession
from damagewatch.domain import DependencyDownError

pytestmark = pytest.mark.kafka


@pytest.fixture
def member(stream: Stream) -> Iterator[Callable[[KafkaOptions], GroupConsumer]]:
    made: list[GroupConsumer] = []

    def make(options: KafkaOptions) -> GroupConsumer:
        made.append(GroupConsumer(options, [stream.input]))
        return made[-1]

    yield make
    for consumer in made:
        consumer.close(2)


def poll_until(true: Callable[[], bool], *consumers: GroupConsumer, seconds: float = 90) -> list[Record]:
    """Two members polled by turns on one thread make each other wait: a rebalance takes up to half a minute."""
    records: list[Record] = []
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        for consumer in consumers:
            records += consumer.poll(0.1)
    return records


def read(consumer: GroupConsumer, count: int) -> list[Record]:
    records: list[Record] = []
    deadline = time.monotonic() + 30
    while len(records) < count:
        assert time.monotonic() < deadline, f"only {len(records)} of {count}"
        records += consumer.poll(0.1)
    return records


def test_it_belongs_to_one_thread(stream: Stream, member: Callable[[KafkaOptions], GroupConsumer]) -> None:
    consumer = member(stream.options)
    consumer.poll(0.1)
    raised: list[Any] = []

    def other() -> None:
        try:
            consumer.poll(0.1)
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert len(raised) == 1


def test_records_name_their_topic_by_id_and_another_of_that_name_has_another(stream: Stream) -> None:
    seen = []
    for number in range(2):
        stream.publish(["a"])
        consumer = GroupConsumer(stream.worker(number), [stream.input])
        (record,) = read(consumer, 1)
        consumer.close(2)
        described = stream.topics.describe(stream.input)
        assert described is not None
        assert record.topic_id == described.topic_id
        seen.append(record.topic_id)
        stream.topics.delete(stream.input)
        time.sleep(0.5)
        stream.topics.create(TopicSpec(stream.input, 3))
    assert seen[0] != seen[1]


def test_a_rebalance_gives_new_leases_and_goes_back_to_the_committed_offsets(
    stream: Stream, member: Callable[[KafkaOptions], GroupConsumer]
) -> None:
    values = [f"{n:03}" for n in range(60)]
    stream.publish(values)
    one, two = member(stream.worker(1)), member(stream.worker(2))
    before = read(one, 60)
    old = dict(one.leases)
    kept_before = {source: [r.offset for r in before if r.source == source] for source in old}
    assert len(old) == 3
    # Half of each partition is committed; what was read beyond must come again, to whoever has it then.
    half = {source: len(offsets) // 2 for source, offsets in kept_before.items()}
    session = TransactionSession(stream.worker(1))
    assert one.membership is not None
    session.commit([], half, one.membership)
    session.close(5)
    again = poll_until(
        lambda: len(one.leases) + len(two.leases) == 3 and bool(one.leases) and bool(two.leases), one, two
    )
    expected = sum(len(offsets) - half[source] for source, offsets in kept_before.items())
    deadline = time.monotonic() + 20
    while len(again) < expected and time.monotonic() < deadline:
        again += one.poll(0.1) + two.poll(0.1)
    assert not set(one.leases.values()) & set(old.values())
    for source, offsets in kept_before.items():
        assert [r.offset for r in again if r.source == source] == offsets[half[source] :]
    for record in again:
        leases = one.leases if record.source in one.leases else two.leases
        assert leases[record.source] == record.lease


def test_paused_beyond_the_poll_interval_it_is_still_a_member(
    stream: Stream, member: Callable[[KafkaOptions], GroupConsumer]
) -> None:
    options = stream.worker(
        1,
        request_timeout=1.0,
        delivery_timeout=2.0,
        transaction_timeout=3.0,
        max_poll_interval=4.0,
        session_timeout=6.0,
    )
    consumer = member(options)
    poll_until(lambda: bool(consumer.leases), consumer)
    generation, leases = consumer.membership, dict(consumer.leases)
    consumer.pause()
    stream.publish(["a", "b", "c"])
    began = time.monotonic()
    while time.monotonic() - began < 6:
        assert consumer.poll(0.5) == []
    assert (consumer.membership, dict(consumer.leases)) == (generation, leases)
    consumer.resume()
    assert len(read(consumer, 3)) == 3


def test_closed_it_has_left_and_crashed_it_comes_back_at_once(
    stream: Stream, member: Callable[[KafkaOptions], GroupConsumer]
) -> None:
    crashed = member(stream.worker(1))
    poll_until(lambda: bool(crashed.leases), crashed)
    crashed.close(2, leave=False)
    assert stream.members() == [stream.worker(1).worker]
    back = member(stream.worker(1))
    began = time.monotonic()
    poll_until(lambda: bool(back.leases), back)
    assert time.monotonic() - began < stream.options.session_timeout / 2
    back.close(2)
    assert stream.members() == []


def test_lag_is_what_is_written_and_not_committed(
    stream: Stream, member: Callable[[KafkaOptions], GroupConsumer]
) -> None:
    stream.publish([str(n) for n in range(9)])
    consumer = member(stream.options)
    read(consumer, 9)
    assert sum(consumer.lag().values()) == 9
    consumer.committed(stream.topics.end_offsets(stream.input))
    assert sum(consumer.lag().values()) == 0


def test_a_topic_that_is_not_there_is_named(stream: Stream) -> None:
    consumer = GroupConsumer(stream.worker(1, connect_timeout=1.0), ["no-such-topic"])
    with pytest.raises(DependencyDownError, match="no-such-topic"):
        consumer.poll(0.1)
    consumer.close(1)


def test_an_unreadable_record_is_delivered_as_such_and_blocks_nothing(
    stream: Stream,
    member: Callable[[KafkaOptions], GroupConsumer],
    development_kafka: DevelopmentKafka | None,
) -> None:
    if development_kafka is None:
        pytest.skip("needs the broker's files")
    stream.publish([f"value-{n:02}" for n in range(30)])
    spoil(development_kafka.directory / "data", stream.input, b"value-13")
    consumer = member(stream.options)
    records: dict[tuple[Partition, int], Record] = {}
    deadline = time.monotonic() + 40
    while len(records) < 30:
        assert time.monotonic() < deadline, f"only {len(records)} of 30"
        records |= {(r.source, r.offset): r for r in consumer.poll(0.1)}
    defects = [record for record in records.values() if record.defect]
    # Records that were sent as one batch share a checksum, and the fate of the spoiled one.
    good = {record.value for record in records.values() if not record.defect}
    assert 1 <= len(defects) < 20
    assert len({record.source for record in defects}) == 1
    assert len(good) == 30 - len(defects)
    assert b"value-13" not in good
    assert all("CorruptRecord" in record.defect and record.value is None for record in defects)
    # And from where it is committed on, it does not come up again.
    session = TransactionSession(stream.options)
    assert consumer.membership is not None
    ends = stream.topics.end_offsets(stream.input)
    session.commit([Processed(source, 0, 1) for source in ends], ends, consumer.membership)
    session.close(5)
    consumer.rewind()
    stream.publish(["after"])
    assert [record.value for record in read(consumer, 1)] == [b"after"]


def spoil(data: Path, topic: str, value: bytes) -> None:
    """Turns a bit of `value` in the broker's files over: it serves them without looking inside."""
    for log in data.glob(f"{topic}-*/*.log"):
        content = log.read_bytes()
        if value in content:
            with log.open("r+b") as file:
                file.seek(content.index(value))
                file.write(bytes([value[0] ^ 1]))
            return
    raise AssertionError("the record is not in the broker's files")


def test_who_was_replaced_is_told_even_on_an_idle_stream(
    stream: Stream, member: Callable[[KafkaOptions], GroupConsumer]
) -> None:
    replaced, successor = member(stream.options), member(stream.options)
    poll_until(lambda: bool(replaced.starts), replaced)
    poll_until(lambda: bool(successor.starts), successor)
    with pytest.raises(FencedError):
        poll_until(lambda: False, successor, replaced)
    replaced.close(1, leave=False)
    poll_until(lambda: successor.membership is not None, successor)
