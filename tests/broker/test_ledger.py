from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from damagewatch.broker.ledger import Ledger
from damagewatch.broker.record import OutgoingRecord, Partition, Processed, Record

P0, P1 = Partition("t", 0), Partition("t", 1)


def record(source: Partition, offset: int, lease: int, timestamp_ms: int = 0) -> Record:
    return Record(source.topic, source.number, offset, timestamp_ms, None, b"", (), lease)


def test_offset_after_a_gap_is_the_next_delivery_and_at_the_end_one_past_the_last() -> None:
    ledger = Ledger()
    ledger.lease({P0: 1})
    for offset in (3, 7, 20):  # 4..6 and 8..19 are markers, aborted or compacted
        ledger.deliver(record(P0, offset, 1))
    ledger.finish(Processed(P0, 3, 1))
    assert ledger.take(9, 9).offsets == {P0: 7}
    ledger.finish(Processed(P0, 7, 1))
    ledger.finish(Processed(P0, 20, 1))
    assert ledger.take(9, 9).offsets == {P0: 21}
    assert ledger.take(9, 9).offsets == {}


def test_a_result_waits_for_those_delivered_before_it() -> None:
    ledger = Ledger()
    ledger.lease({P0: 1, P1: 2})
    ledger.deliver(record(P0, 1, 1))
    ledger.deliver(record(P0, 2, 1))
    ledger.deliver(record(P1, 9, 2))
    ledger.finish(Processed(P0, 2, 1))
    ledger.finish(Processed(P1, 9, 2))
    assert [r.offset for r in ledger.take(9, 9).results] == [9]
    ledger.finish(Processed(P0, 1, 1))
    assert [r.offset for r in ledger.take(9, 9).results] == [1, 2]


def test_a_batch_is_bounded_in_results_and_bytes_but_never_empty() -> None:
    ledger = Ledger()
    ledger.lease({P0: 1})
    for offset in range(5):
        ledger.deliver(record(P0, offset, 1))
        ledger.finish(Processed(P0, offset, 1, (OutgoingRecord("o", None, b"x" * 10),)))
    assert len(ledger.take(2, 1000).results) == 2
    batch = ledger.take(9, 5)
    assert (len(batch.results), batch.offsets) == (1, {P0: 3})
    assert len(ledger.take(9, 20).results) == 2


def test_a_batch_holds_what_was_finished_first_whatever_its_partition() -> None:
    ledger = Ledger()
    ledger.lease({P0: 1, P1: 2})
    for source, offset, lease in ((P1, 7, 2), (P0, 5, 1), (P1, 8, 2)):
        ledger.deliver(record(source, offset, lease))
        ledger.finish(Processed(source, offset, lease))
    batch = ledger.take(2, 1000)
    assert [(r.source, r.offset) for r in batch.results] == [(P1, 7), (P0, 5)]
    assert batch.offsets == {P1: 8, P0: 6}
    assert ledger.take(2, 1000).offsets == {P1: 9}


def test_what_contradicts_itself_is_refused() -> None:
    ledger = Ledger()
    ledger.lease({P0: 1})
    ledger.deliver(record(P0, 5, 1))
    with pytest.raises(ValueError, match="delivered after"):
        ledger.deliver(record(P0, 5, 1))
    with pytest.raises(ValueError, match="not open"):
        ledger.finish(Processed(P0, 6, 1))
    ledger.finish(Processed(P0, 5, 1))
    with pytest.raises(ValueError, match="not open"):
        ledger.finish(Processed(P0, 5, 1))


def test_the_oldest_is_the_first_that_is_not_taken() -> None:
    ledger = Ledger()
    ledger.lease({P0: 1})
    ledger.deliver(record(P0, 1, 1, timestamp_ms=500))
    ledger.deliver(record(P0, 2, 1, timestamp_ms=700))
    assert ledger.oldest_timestamp_ms == 500
    ledger.finish(Processed(P0, 1, 1))
    ledger.take(9, 9)
    assert ledger.oldest_timestamp_ms == 700


class Group(RuleBasedStateMachine):
    """A partition that comes and goes, with gaps, results in any order, batches of any size.

    The model knows the whole log; whatever the ledger lets us commit, no record before the committed offset
    may be unpublished, and no record at or after it published, or it would come twice.
    """

    deliveries: Bundle[Any] = Bundle("deliveries")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.lease = 0
        self.log: list[int] = []  # offsets that hold a record
        self.end = 0
        self.position = 0
        self.committed = 0
        self.published: list[int] = []
        self.stale = 0

    @rule(gap=st.integers(0, 3))
    def write(self, gap: int) -> None:
        self.log.append(self.end + gap)
        self.end = self.log[-1] + 1

    @rule()
    def assign(self) -> None:
        self.lease += 1
        self.ledger.lease({P0: self.lease})
        self.position = self.committed

    @rule()
    def revoke(self) -> None:
        self.lease += 1
        self.ledger.lease({})

    @rule()
    def seek_back(self) -> None:
        self.lease += 1
        self.ledger.clear()
        self.ledger.lease({P0: self.lease})
        self.position = self.committed

    @rule(target=deliveries)
    def deliver(self) -> Any:
        ahead = [offset for offset in self.log if offset >= self.position]
        if not ahead or not self.ledger.deliver(record(P0, ahead[0], self.lease)):
            return None
        self.position = ahead[0] + 1
        return Processed(P0, ahead[0], self.lease)

    @rule(result=consumes(deliveries))
    def finish(self, result: Any) -> None:
        if result is not None and not self.ledger.finish(result):
            self.stale += 1
            assert result.lease < self.lease

    @rule(most=st.integers(1, 3))
    def commit(self, most: int) -> None:
        batch = self.ledger.take(most, 0)
        assert len(batch.results) <= most
        self.published += [result.offset for result in batch.results]
        self.committed = batch.offsets.get(P0, self.committed)

    @rule()
    def abort(self) -> None:
        self.ledger.take(3, 0)
        self.seek_back()

    @invariant()
    def exactly_what_lies_before_the_committed_offset_is_published(self) -> None:
        assert self.published == [offset for offset in self.log if offset < self.committed]


TestGroup = Group.TestCase
TestGroup.settings = settings(max_examples=150, stateful_step_count=40)
