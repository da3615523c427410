from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from damagewatch.broker.deadletter import Breaker, BreakerPolicy, DeadLetters
from damagewatch.broker.record import Record
from damagewatch.domain import Reason, Refused

RECORD = Record(
    topic="claims",
    partition=3,
    offset=42,
    timestamp_ms=1700000000000,
    key=b"claim-7",
    value=b"no photo at all",
    headers=(("content-type", b"application/json"),),
    lease=1,
    topic_id="an-id",
)


def test_a_dead_letter_says_why_and_whence_but_holds_no_photo() -> None:
    letter = DeadLetters("dlq", "1.2.3").of(
        RECORD,
        Refused(Reason.NOT_AN_IMAGE, "starts with\nno picture", "decode"),
        lambda record, refused, sha256: (f"a message of {sha256[:7]}".encode(), (("a", b"b"),)),
    )
    told = dict(letter.headers)
    assert (letter.topic, letter.key, letter.value) == (
        "dlq",
        b"claim-7",
        f"a message of {hashlib.sha256(RECORD.value or b'').hexdigest()[:7]}".encode(),
    )
    assert told == {
        "a": b"b",
        "dlq-reason": b"not_an_image",
        "dlq-detail": b"starts with no picture",
        "dlq-stage": b"decode",
        "dlq-origin-topic": b"claims",
        "dlq-origin-topic-id": b"an-id",
        "dlq-origin-partition": b"3",
        "dlq-origin-offset": b"42",
        "dlq-origin-timestamp-ms": b"1700000000000",
        "dlq-origin-content-type": b"application/json",
        "dlq-value-sha256": hashlib.sha256(b"no photo at all").hexdigest().encode(),
        "dlq-value-bytes": b"15",
        "dlq-damagewatch-version": b"1.2.3",
    }


@given(
    key=st.none() | st.binary(max_size=5000),
    value=st.none() | st.binary(max_size=50),
    detail=st.text(max_size=3000),
    content_type=st.binary(max_size=1000),
)
def test_hostile_fields_make_a_small_dead_letter(
    key: bytes | None, value: bytes | None, detail: str, content_type: bytes
) -> None:
    record = Record("t", 0, 1, -1, key, value, (("content-type", content_type),), 1)
    letter = DeadLetters("dlq", "1").of(record, Refused(Reason.FIELD_INVALID, detail, "parse"))
    assert letter.size < 6000
    assert len(letter.key or b"") <= 1024
    assert ("dlq-value-sha256" in dict(letter.headers)) == (value is not None)
    for _, header in letter.headers:
        header.decode()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def counted(breaker: Breaker, outcomes: list[Reason | None]) -> bool:
    """Whether it trips; where not, the outcomes are committed."""
    if breaker.trips(outcomes):
        return True
    breaker.count(outcomes)
    return False


POLICY = BreakerPolicy(window=60, ratio=0.8, limit=20, failed_limit=5)


@pytest.mark.parametrize(
    ("outcomes", "trips"),
    [
        ([Reason.PROCESSING_FAILED] * 5, False),
        ([Reason.PROCESSING_FAILED] * 6, True),
        ([Reason.PROCESSING_FAILED] * 6 + [None] * 3, False),
        ([Reason.TRUNCATED] * 20, False),
        ([Reason.TRUNCATED] * 21, True),
        ([Reason.TRUNCATED] * 100 + [None] * 25, False),
        ([Reason.TRUNCATED] * 100 + [None] * 24, True),
        ([None] * 1000, False),
        ([], False),
    ],
)
def test_it_trips_above_the_limit_and_the_ratio(outcomes: list[Reason | None], trips: bool) -> None:
    assert counted(Breaker(POLICY, Clock()), outcomes) is trips


def test_old_outcomes_do_not_count_and_a_trip_is_for_good() -> None:
    clock = Clock()
    breaker = Breaker(POLICY, clock)
    for _ in range(10):
        assert not counted(breaker, [Reason.TRUNCATED] * 11)
        clock.now += 61
    assert not counted(breaker, [Reason.TRUNCATED] * 11)
    assert counted(breaker, [Reason.TRUNCATED] * 11)
    assert "22 of 22 records" in breaker.tripped
    clock.now += 1000
    assert counted(breaker, [None] * 1000)


def test_the_default_lets_a_bad_batch_through_and_stops_a_broken_deployment() -> None:
    assert not counted(Breaker(BreakerPolicy(), Clock()), [Reason.TRUNCATED] * 300)
    assert counted(Breaker(BreakerPolicy(), Clock()), [Reason.PROCESSING_FAILED] * 60)


def test_outcomes_that_were_not_committed_are_not_counted() -> None:
    breaker = Breaker(POLICY, Clock())
    for _ in range(10):
        assert not breaker.trips([Reason.TRUNCATED] * 15)
    assert not counted(breaker, [Reason.TRUNCATED] * 15)
    assert breaker.trips([Reason.TRUNCATED] * 15)
