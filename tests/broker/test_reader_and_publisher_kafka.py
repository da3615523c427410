from __future__ import annotations

import dataclasses
import threading
import time

import pytest
from broker_stream import Stream

from damagewatch.broker.publisher import Publisher
from damagewatch.broker.reader import TopicReader
from damagewatch.broker.record import OutgoingRecord, Partition
from damagewatch.broker.topics import TopicSpec
from damagewatch.broker.transaction import BoundedProducer
from damagewatch.domain import DependencyDownError, Refused

pytestmark = pytest.mark.kafka


def test_what_is_published_is_read_with_key_headers_and_time(stream: Stream) -> None:
    before = time.time_ns() // 1_000_000
    sent = [
        OutgoingRecord(stream.input, b"claim", b"photo", (("content-type", b"a"), ("content-type", b"b"))),
        OutgoingRecord(stream.input, b"claim", None),
        OutgoingRecord(stream.input, b"claim", b""),
    ]
    with Publisher(stream.options) as publisher:
        for record in sent:
            publisher.publish(record)
        publisher.flush()
        assert publisher.delivered == 3
    read = stream.read(stream.input)
    assert [(r.key, r.value, r.headers) for r in read] == [(r.key, r.value, r.headers) for r in sent]
    assert read[0].header("content-type") == b"b"
    assert all(before <= r.timestamp_ms <= time.time_ns() // 1_000_000 for r in read)


def test_reading_begins_at_a_time_and_finds_single_records(stream: Stream) -> None:
    stream.publish(["early"])
    time.sleep(0.05)
    middle = time.time_ns() // 1_000_000
    time.sleep(0.05)
    stream.publish(["late"])
    reader = TopicReader(stream.options, stream.input)
    late = list(reader.read(since_ms=middle))
    assert [record.value for record in late] == [b"late"]
    assert list(reader.read(since_ms=middle + 3_600_000)) == []
    assert reader.at(late[0].source, late[0].offset) == late[0]
    assert reader.at(late[0].source, late[0].offset + 1) is None
    assert reader.at(Partition(stream.output, 0), 0) is None


def test_aborted_and_open_transactions_are_not_read_and_reading_ends_all_the_same(stream: Stream) -> None:
    options = dataclasses.replace(stream.options, worker=f"{stream.options.worker}-producer")
    producer = BoundedProducer(**options.transaction_arguments())
    producer.init_transactions()
    for value, verb in ((b"kept", "commit"), (b"aborted", "abort"), (b"open", "")):
        producer.begin_transaction()
        producer.send(stream.output, key=b"k", value=value).get(timeout=10)
        if verb:
            getattr(producer, f"{verb}_transaction")()
    assert stream.outputs() == ["kept"]
    producer.drop()


def test_followed_it_reads_on_until_stopped(stream: Stream) -> None:
    stop = threading.Event()
    seen: list[bytes | None] = []

    def follow() -> None:
        for record in TopicReader(stream.options, stream.input).read(follow=True, stop=stop):
            seen.append(record.value)

    thread = threading.Thread(target=follow)
    thread.start()
    for value in ("one", "two"):
        stream.publish([value])
        deadline = time.monotonic() + 20
        while value.encode() not in seen:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
    assert seen == [b"one", b"two"]


def test_a_record_too_large_is_refused_and_the_next_goes_through(stream: Stream) -> None:
    small = f"{stream.input}-small"
    stream.topics.create(TopicSpec(small, 1, max_message_bytes=3000))
    with Publisher(stream.options) as publisher:
        for size in (30_000_000, 5000):
            with pytest.raises(Refused, match=f"{size + 1} bytes; the topic {small} takes 3000"):
                publisher.publish(OutgoingRecord(small, b"k", b"x" * size))
        publisher.publish(OutgoingRecord(small, b"k", b"fits"))
    assert [record.value for record in stream.read(small)] == [b"fits"]


def test_a_photo_of_20_mb_goes_all_the_way(stream: Stream) -> None:
    value = bytes(20_000_000)
    with Publisher(stream.options) as publisher:
        publisher.publish(OutgoingRecord(stream.input, b"k", value))
    (record,) = stream.read(stream.input)
    assert record.value == value


def test_no_more_bytes_are_under_way_than_allowed(stream: Stream) -> None:
    with Publisher(stream.options, max_in_flight_bytes=300_000) as publisher:
        for _ in range(40):
            publisher.publish(OutgoingRecord(stream.input, b"k", bytes(100_000)))
            assert publisher._bytes <= 300_100
    assert len(stream.read(stream.input)) == 40


def test_a_topic_or_broker_that_is_not_there_is_named(stream: Stream) -> None:
    options = dataclasses.replace(
        stream.options, connect_timeout=1.0, request_timeout=0.5, delivery_timeout=1.0
    )
    with pytest.raises(DependencyDownError, match="no-such-topic"):
        list(TopicReader(options, "no-such-topic").read())
    with Publisher(options) as publisher, pytest.raises(DependencyDownError, match="no-such-topic"):
        publisher.publish(OutgoingRecord("no-such-topic", b"k", b"v"))
    nowhere = dataclasses.replace(options, bootstrap_servers=("127.0.0.1:1",))
    with pytest.raises(DependencyDownError, match="kafka"):
        Publisher(nowhere)
    with pytest.raises(DependencyDownError, match="kafka"):
        list(TopicReader(nowhere, stream.input).read())


def test_topics_are_made_once_as_asked(stream: Stream) -> None:
    spec = TopicSpec(f"{stream.input}-made", 2, retention_ms=60_000, max_message_bytes=2_000_000)
    assert stream.topics.describe(spec.name) is None
    assert stream.topics.create(spec)
    assert not stream.topics.create(spec)
    made = stream.topics.describe(spec.name)
    assert made is not None
    assert (made.partitions, made.replication) == (2, 1)
    assert made.settings["retention.ms"] == "60000"
    assert made.settings["max.message.bytes"] == "2000000"
    assert made.settings["cleanup.policy"] == "delete"
    assert stream.topics.end_offsets(spec.name) == {Partition(spec.name, 0): 0, Partition(spec.name, 1): 0}
