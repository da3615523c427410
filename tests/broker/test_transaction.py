from __future__ import annotations

from typing import Any

import pytest
from kafka.errors import (
    FencedInstanceIdError,
    IllegalGenerationError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
)

from damagewatch.broker.errors import FencedError, OutputRefusedError
from damagewatch.broker.options import KafkaOptions
from damagewatch.broker.record import OutgoingRecord, Partition, Processed
from damagewatch.broker.transaction import Membership, TransactionSession
from damagewatch.domain import DependencyDownError

P0 = Partition("in", 0)
MEMBERSHIP = Membership("group", 1, "member", "worker")
RESULTS = [
    Processed(P0, 1, 1, (OutgoingRecord("out", b"k", b"a"), OutgoingRecord("out", b"k", b"b"))),
    Processed(P0, 2, 1, (OutgoingRecord("out", b"k", b"c"),)),
]


class Future:
    def __init__(self, producer: Producer) -> None:
        self.producer = producer

    def get(self, timeout: float) -> None:
        self.producer.do("acknowledged")


class Producer:
    """Notes what is asked of it, and raises `failing[verb]`."""

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.calls: list[str] = []
        self.failing: dict[str, Exception] = {}

    def do(self, verb: str) -> None:
        self.calls.append(verb)
        if verb in self.failing:
            raise self.failing[verb]

    def init_transactions(self) -> None:
        self.do("init")

    def begin_transaction(self) -> None:
        self.do("begin")

    def send(self, topic: str, **record: Any) -> Future:
        self.do("send")
        return Future(self)

    def send_offsets_within(self, offsets: Any, membership: Any, timeout: float) -> None:
        self.do("offsets")

    def commit_within(self, timeout: float) -> None:
        self.do("commit")

    def drop(self) -> None:
        self.calls.append("drop")

    def close(self, timeout: float) -> None:
        self.calls.append("close")


def opened(**failing: Exception) -> tuple[TransactionSession, Producer]:
    session = TransactionSession(KafkaOptions(), make_producer=Producer)  # type: ignore[arg-type]
    producer: Any = session._producer
    producer.failing = failing
    return session, producer


def test_every_output_is_acknowledged_before_offsets_and_commit() -> None:
    session, producer = opened()
    session.commit(RESULTS, {P0: 3}, MEMBERSHIP)
    session.commit(RESULTS, {P0: 4}, MEMBERSHIP)
    one = ["begin", *["send"] * 3, *["acknowledged"] * 3, "offsets", "commit"]
    assert producer.calls == ["init", *one, *one]
    assert not session.dead


@pytest.mark.parametrize("verb", ["begin", "send", "acknowledged", "offsets", "commit"])
def test_after_any_error_nothing_follows_and_the_session_is_dead(verb: str) -> None:
    session, producer = opened(**{verb: KafkaTimeoutError("no answer")})
    with pytest.raises(DependencyDownError, match="no answer"):
        session.commit(RESULTS, {P0: 3}, MEMBERSHIP)
    assert producer.calls[-1] == verb
    assert session.dead
    with pytest.raises(RuntimeError):
        session.commit(RESULTS, {P0: 3}, MEMBERSHIP)
    session.close(1)
    assert producer.calls[-1] == "drop"


@pytest.mark.parametrize("verb", ["send", "acknowledged"])
def test_an_output_too_large_is_told_with_the_record_that_made_it(verb: str) -> None:
    session, producer = opened(**{verb: MessageSizeTooLargeError()})
    with pytest.raises(OutputRefusedError) as caught:
        session.commit(RESULTS, {P0: 3}, MEMBERSHIP)
    assert (caught.value.source, caught.value.offset) == (P0, 1)
    assert "offsets" not in producer.calls
    assert session.dead


@pytest.mark.parametrize(
    ("error", "expected"),
    [(FencedInstanceIdError(), FencedError), (IllegalGenerationError(), DependencyDownError)],
)
def test_fencing_is_told_from_what_passes(error: KafkaError, expected: type[Exception]) -> None:
    session, _ = opened(offsets=error)
    with pytest.raises(expected):
        session.commit(RESULTS, {P0: 3}, MEMBERSHIP)


@pytest.mark.parametrize(("generation", "member"), [(0, "m"), (-1, "m"), (1, "")])
def test_there_is_no_membership_that_kafka_would_not_check(generation: int, member: str) -> None:
    with pytest.raises(ValueError, match="stable"):
        Membership("group", generation, member, "worker")


def test_a_session_that_cannot_be_opened_leaves_nothing_behind() -> None:
    made: list[Producer] = []

    def failing(**arguments: Any) -> Producer:
        made.append(Producer())
        made[0].failing = {"init": KafkaTimeoutError("no coordinator")}
        return made[0]

    with pytest.raises(DependencyDownError, match="no coordinator"):
        TransactionSession(KafkaOptions(), make_producer=failing)  # type: ignore[arg-type]
    assert made[0].calls == ["init", "drop"]
