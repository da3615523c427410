"""The matcher's strategy: one result a record, in order; bad photos and erasures harm nobody else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

import pytest

from damagewatch.broker.record import OutgoingRecord, Partition, Processed, Record
from damagewatch.broker.strategy import Backpressure
from damagewatch.contracts import codec
from damagewatch.domain import (
    ClaimImage,
    DependencyDownError,
    Detections,
    Erasure,
    Origin,
    PhotoRef,
    Reason,
    Refused,
)
from damagewatch.matcher.strategy import Bounds, Done, MatcherStrategy
from damagewatch.pipeline.intake import Seen
from damagewatch.pipeline.recognition import Decided, Positions

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BOUNDS = Bounds(threads=3, photos=6, bytes=1_000_000, batch_photos=4, batch_bytes=1_000, batch_age=0.0)


def record(
    offset: int, *, claim: str = "claim", content: bytes | None = b"photo", key: str = "claim"
) -> Record:
    value = None if content is None else codec.encode(ClaimImage("t", claim, f"p{offset}", content))
    return Record("images", 0, offset, 0, key.encode(), value, (), 1, "topic-id")


def seen(image: ClaimImage) -> Seen:
    """What stands for a photo that was looked at: the recognition below is a fake too."""
    return cast(Seen, image)


def decided(content: Seen) -> Decided:
    image = cast(ClaimImage, content)
    ref = PhotoRef(image.tenant, image.claim_id, image.photo_id, "0" * 64)
    return Decided(Detections(ref, 1, 1, (), {}, NOW), ())


class Fakes:
    """Intake, recognition and eraser that write down what happened."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.look: Callable[[ClaimImage], Seen | Refused] = seen
        self.judge: Callable[[Seen], Decided | Refused] = decided

    def strategy(self, bounds: Bounds = BOUNDS) -> MatcherStrategy:
        return MatcherStrategy(
            intake=self.intake,
            recognition=self.recognition,
            erase=self.erase,
            outputs=self.outputs,
            starts={Partition("images", 0): 0},
            bounds=bounds,
            tenant="t",
        )

    def intake(self, image: ClaimImage, origin: Origin | None = None) -> Seen | Refused:
        assert origin is not None
        time.sleep((origin.offset % 3) * 0.002)
        self.events.append(f"look {image.photo_id}")
        return self.look(image)

    def recognition(
        self, batch: Sequence[Seen | Refused], positions: Positions | None = None
    ) -> list[Decided | Refused]:
        return [item if isinstance(item, Refused) else self.judge(item) for item in batch]

    def erase(self, tenant: str, claim_id: str) -> Erasure:
        self.events.append(f"erase {claim_id}")
        return Erasure(tenant, claim_id, 3, 2, NOW)

    def outputs(self, done: Done) -> tuple[OutgoingRecord, ...]:
        return (OutgoingRecord("out", None, type(done.verdict).__name__.encode()),)


def drive(strategy: MatcherStrategy, records: Sequence[Record]) -> list[Processed]:
    results: list[Processed] = []
    deadline = time.monotonic() + 20
    for each in records:
        while True:
            assert time.monotonic() < deadline
            try:
                strategy.submit(each)
                break
            except Backpressure:
                results.extend(strategy.poll())
                time.sleep(0.001)
    strategy.close()
    results.extend(strategy.join(10))
    return results


def test_one_result_a_record_in_order() -> None:
    results = drive(Fakes().strategy(), [record(offset) for offset in (0, 1, 2, 5, 9, 10, 11, 30, 31)])
    assert [result.offset for result in results] == [0, 1, 2, 5, 9, 10, 11, 30, 31]
    assert all(result.refused is None for result in results)


def test_a_refused_photo_keeps_its_place_and_its_reason() -> None:
    fakes = Fakes()

    def look(image: ClaimImage) -> Seen | Refused:
        broken = image.photo_id == "p2"
        return Refused(Reason.TRUNCATED, "short", "decode") if broken else seen(image)

    fakes.look = look
    results = drive(fakes.strategy(), [record(offset) for offset in range(5)])
    assert [(r.offset, r.refused) for r in results] == [
        (0, None),
        (1, None),
        (2, Reason.TRUNCATED),
        (3, None),
        (4, None),
    ]


def test_a_message_that_does_not_parse_is_refused() -> None:
    garbled = Record("images", 0, 1, 0, b"claim", b"\xff\xff\xff", (), 1)
    results = drive(Fakes().strategy(), [record(0), garbled, record(2)])
    assert [r.refused for r in results] == [None, Reason.MESSAGE_UNREADABLE, None]


def test_a_photo_on_which_a_batch_fails_is_refused_alone() -> None:
    fakes = Fakes()

    def judge(content: Seen) -> Decided:
        if cast(ClaimImage, content).photo_id == "p1":
            raise ZeroDivisionError("a bug")
        return decided(content)

    fakes.judge = judge
    results = drive(fakes.strategy(), [record(offset) for offset in range(4)])
    assert [r.refused for r in results] == [None, Reason.PROCESSING_FAILED, None, None]


@pytest.mark.parametrize("where", ["look", "judge"])
def test_a_dependency_that_is_down_comes_out_and_refuses_nobody(where: str) -> None:
    fakes = Fakes()

    def down(_: object) -> Seen:
        raise DependencyDownError("index", "gone")

    setattr(fakes, where, down)
    strategy = fakes.strategy()
    with pytest.raises(DependencyDownError):
        drive(strategy, [record(0)])
    strategy.terminate()


def test_an_erasure_waits_for_what_came_before_and_holds_what_comes_after() -> None:
    fakes = Fakes()
    records = [record(0), record(1), record(2, content=None), record(3), record(4)]
    results = drive(fakes.strategy(), records)
    assert [result.offset for result in results] == [0, 1, 2, 3, 4]
    at = fakes.events.index("erase claim")
    assert set(fakes.events[:at]) == {"look p0", "look p1"}
    assert set(fakes.events[at + 1 :]) == {"look p3", "look p4"}
    assert results[2].outputs[0].value == b"Erasure"


def test_a_tombstone_without_a_key_does_not_hold_up_the_stream() -> None:
    results = drive(Fakes().strategy(), [record(0, content=None, key=""), record(1)])
    assert [r.refused for r in results] == [Reason.FIELD_MISSING, None]


def test_what_is_in_work_is_bounded() -> None:
    release = threading.Event()
    fakes = Fakes()

    def look(image: ClaimImage) -> Seen:
        release.wait(10)
        return seen(image)

    fakes.look = look
    strategy = fakes.strategy()
    assert taken(strategy) == BOUNDS.photos
    release.set()
    strategy.terminate()


def test_photos_that_wait_for_their_batch_are_in_work_too() -> None:
    release = threading.Event()
    fakes = Fakes()

    def judge(content: Seen) -> Decided:
        release.wait(10)
        return decided(content)

    fakes.judge = judge
    strategy = fakes.strategy()
    accepted = 0
    for _ in range(20):  # the index is slow: what was looked at must not pile up before it
        accepted += taken(strategy, accepted)
        time.sleep(0.01)
        assert strategy.poll() == []
    assert accepted == BOUNDS.photos
    release.set()
    strategy.terminate()


def test_bytes_in_work_are_bounded_but_one_photo_always_fits() -> None:
    size = record(0).size
    strategy = Fakes().strategy(replace(BOUNDS, bytes=3 * size))
    assert taken(strategy) == 3
    strategy.terminate()
    narrow = Fakes().strategy(replace(BOUNDS, bytes=1))
    assert taken(narrow) == 1
    narrow.terminate()


def taken(strategy: MatcherStrategy, first: int = 0) -> int:
    """How many records the strategy takes before it is full."""
    for offset in range(first, first + 100):
        try:
            strategy.submit(record(offset))
        except Backpressure:
            return offset - first
    raise AssertionError("it takes without end")


@pytest.mark.parametrize("content", [b"photo", None])
def test_our_own_failure_is_the_dead_letter_of_one_record(
    content: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes = Fakes()

    def bug(*_: object) -> Erasure:
        raise ZeroDivisionError("a bug")

    fakes.erase = bug  # type: ignore[method-assign]
    monkeypatch.setattr(codec, "decode_claim_image", bug)
    results = drive(fakes.strategy(), [record(0, content=content)])
    assert [r.refused for r in results] == [Reason.PROCESSING_FAILED]


def test_after_a_failed_batch_each_photo_has_its_turn_again() -> None:
    """Or the first would find the second, and the second the first: one pair alerted twice."""
    ahead: list[bool] = []

    def recognition(
        batch: Sequence[Seen | Refused], positions: Positions | None = None
    ) -> list[Decided | Refused]:
        assert positions is not None
        if len(batch) > 1:
            positions.advance(Origin("topic-id", 0, 1))
            raise ZeroDivisionError("a bug")
        ahead.append(positions.is_ahead(Origin("topic-id", 0, 1)))
        offset = int(cast(ClaimImage, batch[0]).photo_id.removeprefix("p"))
        positions.advance(Origin("topic-id", 0, offset))
        return [decided(cast(Seen, batch[0]))]

    fakes = Fakes()
    fakes.recognition = recognition  # type: ignore[method-assign]
    strategy = fakes.strategy(replace(BOUNDS, batch_age=5.0))
    results = drive(strategy, [record(0), record(1)])
    assert [r.refused for r in results] == [None, None]
    assert ahead == [True, True]


def test_a_verdict_that_cannot_be_written_becomes_a_dead_letter() -> None:
    fakes = Fakes()
    write = fakes.outputs

    def outputs(done: Done) -> tuple[OutgoingRecord, ...]:
        if isinstance(done.verdict, Decided) and done.record.offset == 1:
            raise ValueError("a bug")
        return write(done)

    fakes.outputs = outputs  # type: ignore[method-assign]
    results = drive(fakes.strategy(), [record(offset) for offset in range(3)])
    assert [r.refused for r in results] == [None, Reason.PROCESSING_FAILED, None]
