"""Laws that every stage keeps: order, bounds, one result an item, and errors that come out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damagewatch.pipeline.batched import BatchedStage
from damagewatch.pipeline.parallel import ParallelStage
from damagewatch.pipeline.stage import Stage, StageFull

MakeStage = Callable[[Callable[[int], int]], Stage[int, int]]


def parallel(work: Callable[[int], int]) -> Stage[int, int]:
    return ParallelStage(work, threads=3, max_items=8, max_bytes=1_000_000, size_of=lambda item: 1)


def batched(work: Callable[[int], int]) -> Stage[int, int]:
    return BatchedStage(
        lambda items: [work(item) for item in items],
        max_items=4,
        max_bytes=100,
        max_age=0.0,
        size_of=lambda item: 1,
    )


def drive(stage: Stage[int, int], items: list[int]) -> list[int]:
    """Submits all, polling whenever the stage is full, then closes and joins."""
    results: list[int] = []
    for item in items:
        while True:
            try:
                stage.submit(item)
                break
            except StageFull:
                results.extend(stage.poll())
                time.sleep(0.0005)
    stage.close()
    results.extend(stage.join(10))
    return results


@pytest.mark.parametrize("make", [parallel, batched])
@given(items=st.lists(st.integers(0, 50), max_size=40))
@settings(max_examples=25)
def test_every_item_gives_one_result_in_order(make: MakeStage, items: list[int]) -> None:
    def work(item: int) -> int:
        time.sleep((item % 3) * 0.0005)
        return item * 2

    assert drive(make(work), items) == [item * 2 for item in items]


@pytest.mark.parametrize("make", [parallel, batched])
def test_what_the_work_raises_comes_out_of_the_stage(make: MakeStage) -> None:
    def work(item: int) -> int:
        raise ZeroDivisionError(item)

    stage = make(work)
    stage.submit(1)
    stage.close()
    with pytest.raises(ZeroDivisionError):
        stage.join(5)


@pytest.mark.parametrize("make", [parallel, batched])
def test_a_stage_is_bounded(make: MakeStage) -> None:
    release = threading.Event()

    def work(item: int) -> int:
        release.wait(10)
        return item

    stage = make(work)
    with pytest.raises(StageFull):
        for item in range(100):
            stage.submit(item)
            stage.poll()
    release.set()
    stage.terminate()


@pytest.mark.parametrize("make", [parallel, batched])
def test_join_gives_up_at_its_deadline_and_drops_the_rest(make: MakeStage) -> None:
    release = threading.Event()

    def work(item: int) -> int:
        release.wait(10)
        return item

    stage = make(work)
    stage.submit(1)
    stage.close()
    assert stage.join(0.05) == []
    release.set()


def test_a_photo_larger_than_the_limit_is_taken_alone() -> None:
    stage: ParallelStage[int, int] = ParallelStage(
        lambda item: item, threads=1, max_items=8, max_bytes=10, size_of=lambda item: item
    )
    stage.submit(100)
    with pytest.raises(StageFull):
        stage.submit(1)
    stage.close()
    assert stage.join(5) == [100]


def test_a_batch_waits_for_company_only_as_long_as_it_may_and_is_full_by_bytes_too() -> None:
    now = [0.0]
    batches: list[int] = []

    def work(items: object) -> list[int]:
        assert isinstance(items, tuple)
        batches.append(len(items))
        return [0] * len(items)

    stage: BatchedStage[int, int] = BatchedStage(
        work, max_items=9, max_bytes=50, max_age=1.0, size_of=lambda item: item, clock=lambda: now[0]
    )
    stage.submit(1)
    stage.submit(2)
    assert stage.poll() == ()
    assert not batches
    now[0] = 1.0
    stage.poll()
    stage.submit(60)
    with pytest.raises(StageFull):
        stage.submit(1)
    stage.close()
    stage.join(5)
    assert batches == [2, 1]
