from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from damagewatch.broker.deadletter import Breaker, BreakerPolicy, DeadLetters
from damagewatch.broker.errors import FencedError, OutputRefusedError
from damagewatch.broker.processor import Pace, State, StreamProcessor
from damagewatch.broker.record import OutgoingRecord, Partition, Processed, Record
from damagewatch.broker.strategy import Backpressure
from damagewatch.broker.transaction import Membership
from damagewatch.domain import DependencyDownError, Reason

P0 = Partition("in", 0)
DOWN = DependencyDownError("index", "no answer")


class World:
    """A log of one partition, its committed offset and outputs, and a clock: what outlives every failure."""

    def __init__(self, size: int = 0) -> None:
        self.log = [str(n).encode() for n in range(size)]
        self.committed = 0
        self.outputs: list[OutgoingRecord] = []
        self.now = 1000.0
        self.events: list[Any] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    @property
    def values(self) -> list[bytes | None]:
        return [output.value for output in self.outputs if output.topic == "out"]


class FakeConsumer:
    """Reads the world's log in fours. Rewinds as the real one does: at the next poll, under a new lease."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.leases: Mapping[Partition, int] = {}
        self.membership: Membership | None = None
        self.lease = 0
        self.position = 0
        self.paused = False
        self.closed: bool | None = None
        self.polls = 0
        self.failing: Exception | None = None
        self.defects: set[int] = set()

    def rewind(self) -> None:
        self.lease += 1
        self.leases = {P0: self.lease}
        self.position = self.world.committed

    def poll(self, timeout: float) -> list[Record]:
        self.polls += 1
        self.world.now += timeout
        if self.failing:
            raise self.failing
        if not self.leases:
            self.rewind()
        self.membership = Membership("group", 1, "member", "worker")
        if self.paused:
            return []
        begin, self.position = self.position, min(self.position + 4, len(self.world.log))
        return [self.record(offset) for offset in range(begin, self.position)]

    def record(self, offset: int) -> Record:
        defect = "bad checksum" if offset in self.defects else ""
        value = None if defect else self.world.log[offset]
        return Record("in", 0, offset, 1_000_000, None, value, (), self.lease, "id", defect)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        pass

    def lag(self, timeout: float = 1.0) -> dict[Partition, int]:
        return {P0: len(self.world.log) - self.world.committed}

    def close(self, timeout: float, *, leave: bool = True) -> None:
        self.closed = leave


class FakeSession:
    def __init__(self, world: World) -> None:
        self.world = world
        self.failing: Exception | None = None
        self.failing_after_commit = False
        self.dead = False
        self.ended = ""

    def commit(
        self, results: Sequence[Processed], offsets: Mapping[Partition, int], membership: Membership
    ) -> None:
        assert not self.dead, "a session that met an error was used again"
        self.dead = True
        if self.failing and not self.failing_after_commit:
            raise self.failing
        for result in results:
            for output in result.outputs:
                if output.value == b"refused":
                    raise OutputRefusedError(result.source, result.offset, "too large")
        self.world.outputs += [output for result in results for output in result.outputs]
        self.world.committed = offsets.get(P0, self.world.committed)
        if self.failing:
            raise self.failing
        self.dead = False

    def drop(self) -> None:
        self.dead, self.ended = True, "dropped"

    def close(self, timeout: float) -> None:
        self.ended = "closed"


class FakeStrategy:
    """Gives every record back as its output at the next poll; holds at most `room`."""

    def __init__(self) -> None:
        self.inside: list[Record] = []
        self.room = 100
        self.stuck = False
        self.failing: Exception | None = None
        self.refusing: Reason | None = None
        self.verbs: list[str] = []
        self.seen: list[int] = []

    def submit(self, record: Record) -> None:
        if len(self.inside) >= self.room:
            raise Backpressure
        self.inside.append(record)
        self.seen.append(record.offset)

    def poll(self) -> Sequence[Processed]:
        if self.failing:
            raise self.failing
        if self.stuck:
            return []
        done, self.inside = self.inside, []
        return [
            Processed.of(record, (OutgoingRecord("out", None, record.value),), self.refusing)
            for record in done
        ]

    def close(self) -> None:
        self.verbs.append("close")

    def join(self, timeout: float) -> Sequence[Processed]:
        self.verbs.append("join")
        self.stuck = False
        return self.poll()

    def terminate(self) -> None:
        self.verbs.append("terminate")
        self.inside = []


class Bench:
    """A processor on fakes. `strategies` and `sessions` hold all that were ever made."""

    def __init__(self, world: World, **pace: Any) -> None:
        self.world = world
        self.consumer = FakeConsumer(world)
        self.strategies: list[FakeStrategy] = []
        self.sessions: list[FakeSession] = []
        self.opening: Exception | None = None
        self.observed: list[tuple[Any, ...]] = []
        self.processor = StreamProcessor(
            self.consumer,  # type: ignore[arg-type]
            self.make_strategy,
            self.open_session,  # type: ignore[arg-type]
            dead_letters=DeadLetters("dlq", "1"),
            breaker=Breaker(BreakerPolicy(failed_limit=5), world.clock),
            pace=Pace(**pace),
            observer=self,  # type: ignore[arg-type]
            clock=world.clock,
            wall_clock=world.clock,
            sleep=world.sleep,
            random_fraction=lambda: 0.5,
        )

    def __getattr__(self, name: str) -> Any:
        return lambda *told: self.observed.append((name, *told))

    def make_strategy(self) -> FakeStrategy:
        self.strategies.append(FakeStrategy())
        return self.strategies[-1]

    def open_session(self) -> FakeSession:
        if self.opening:
            raise self.opening
        self.sessions.append(FakeSession(self.world))
        return self.sessions[-1]

    def steps(self, count: int = 60) -> None:
        for _ in range(count):
            self.processor.run_once()

    def told(self, name: str) -> list[tuple[Any, ...]]:
        return [event[1:] for event in self.observed if event[0] == name]


def test_everything_comes_out_once_and_in_order() -> None:
    world = World(50)
    bench = Bench(world)
    bench.steps()
    assert world.values == world.log
    assert world.committed == 50
    assert (len(bench.strategies), len(bench.sessions)) == (1, 1)
    assert sum(records for records, *_ in bench.told("committed")) == 50


def test_a_transaction_holds_many_results_but_does_not_wait_for_long() -> None:
    world = World(20)
    bench = Bench(world, max_results=16, max_age=0.1)
    bench.steps()
    sizes = [records for records, *_ in bench.told("committed")]
    assert max(sizes) <= 16
    assert len(sizes) < 10
    before = world.now
    world.log.append(b"late")
    while world.committed < 21:
        bench.steps(1)
    assert world.now - before < 0.6  # two idle polls of 0.2 and the age of 0.1


def test_full_it_keeps_polling_takes_nothing_and_goes_on() -> None:
    world = World(40)
    bench = Bench(world)
    bench.steps(3)
    strategy = bench.strategies[0]
    strategy.room, strategy.stuck = 2, True
    bench.steps(3)
    polls, began, inside = bench.consumer.polls, world.now, len(strategy.inside)
    bench.steps(400)
    assert bench.consumer.polls - polls >= world.now - began, "polled less than once a second"
    assert len(strategy.inside) == inside
    assert bench.processor.state is State.RUNNING
    strategy.stuck = False
    bench.steps(200)
    assert world.values == world.log


@pytest.mark.parametrize("where", ["strategy", "commit", "unclear commit"])
def test_after_a_failure_it_backs_off_and_begins_again_at_the_committed_offset(where: str) -> None:
    world = World(30)
    bench = Bench(world)
    bench.steps(4)
    if where == "strategy":
        bench.strategies[0].failing = DOWN
    else:
        bench.sessions[0].failing = DOWN
        bench.sessions[0].failing_after_commit = where == "unclear commit"
    world.log += [b"more"]
    while bench.processor.state is State.RUNNING:
        bench.steps(1)
    assert bench.processor.state is State.BACKING_OFF
    assert "no answer" in bench.processor.detail
    assert bench.consumer.paused
    assert bench.strategies[0].verbs == ["terminate"]
    assert bench.sessions[0].ended == "dropped"
    bench.steps()
    # A commit whose answer was lost leaves nothing to do again, and so nothing to make a strategy for.
    assert (len(bench.strategies), len(bench.sessions)) == (1 if where == "unclear commit" else 2, 2)
    assert world.values == world.log
    assert bench.processor.state is State.RUNNING
    assert bench.processor.detail == ""


def test_a_long_outage_polls_on_and_waits_longer_each_time() -> None:
    world = World(10)
    bench = Bench(world)
    bench.opening = DependencyDownError("kafka", "gone")
    polls, began = bench.consumer.polls, world.now
    while world.now - began < 120:
        bench.steps(1)
    assert bench.consumer.polls - polls > 120
    delays = [seconds for _, seconds in bench.told("paused")]
    assert delays[:5] == [0.25, 0.5, 1.0, 2.0, 4.0]
    assert max(delays) == 15.0
    assert bench.told("resumed") == [], "it is not over before an attempt has succeeded"
    bench.opening = None
    bench.steps(200)
    assert len(bench.told("resumed")) == 1
    assert world.values == world.log


def test_a_success_forgets_former_failures() -> None:
    world = World(4)
    bench = Bench(world)
    for _ in range(3):
        bench.steps(20)
        bench.strategies[-1].failing = DOWN
        bench.steps(1)
        world.log.append(b"next")
        bench.steps(20)
    assert [seconds for _, seconds in bench.told("paused")] == [0.25, 0.25, 0.25]


def test_work_from_before_a_rebalance_is_dropped_with_its_strategy() -> None:
    world = World(8)
    bench = Bench(world)
    bench.steps(1)
    bench.strategies[0].stuck = True
    bench.steps(2)
    bench.consumer.rewind()  # what a rebalance does to a partition that is kept
    bench.steps(1)
    assert bench.strategies[0].verbs == ["terminate"]
    bench.steps()
    assert len(bench.strategies) == 2
    assert world.values == world.log


def test_nothing_is_committed_while_the_group_is_unstable() -> None:
    world = World(4)
    bench = Bench(world)
    poll = bench.consumer.poll

    def unstable(timeout: float) -> list[Record]:
        records = poll(timeout)
        bench.consumer.membership = None
        return records

    bench.consumer.poll = unstable  # type: ignore[method-assign]
    bench.steps()
    assert world.outputs == []
    bench.consumer.poll = poll  # type: ignore[method-assign]
    bench.steps()
    assert world.values == world.log


def test_an_output_that_kafka_never_takes_becomes_a_dead_letter_and_harms_no_other() -> None:
    world = World(10)
    world.log[5] = b"refused"
    bench = Bench(world)
    bench.steps(100)
    assert world.values == [value for value in world.log if value != b"refused"]
    (letter,) = [output for output in world.outputs if output.topic == "dlq"]
    assert dict(letter.headers)["dlq-origin-offset"] == b"5"
    assert dict(letter.headers)["dlq-reason"] == b"processing_failed"
    assert b"too large" in dict(letter.headers)["dlq-detail"]


def test_an_unreadable_record_becomes_a_dead_letter_in_its_place() -> None:
    world = World(6)
    bench = Bench(world)
    bench.consumer.defects = {0, 3}
    bench.steps()
    letters = [dict(output.headers) for output in world.outputs if output.topic == "dlq"]
    assert [letter["dlq-origin-offset"] for letter in letters] == [b"0", b"3"]
    assert {letter["dlq-reason"] for letter in letters} == {b"message_unreadable"}
    assert len(world.values) == 4
    assert bench.told("dead_lettered")
    assert 3 not in bench.strategies[0].seen


def test_too_many_failures_stop_it_for_good_with_nothing_of_them_committed() -> None:
    world = World(40)
    bench = Bench(world, max_results=4)
    bench.steps(1)
    bench.strategies[0].refusing = Reason.PROCESSING_FAILED
    bench.steps()
    assert bench.processor.state is State.TRIPPED
    assert "failed in our own code" in bench.processor.detail
    assert world.committed <= 5
    assert ("paused", bench.processor.detail, math.inf) in bench.observed
    before = bench.consumer.polls
    bench.steps(20)
    assert bench.consumer.polls == before + 20
    assert bench.consumer.paused
    assert world.committed <= 5


def test_dead_letters_that_could_not_be_committed_are_not_counted_twice() -> None:
    world = World(4)
    bench = Bench(world)
    bench.steps(1)
    bench.strategies[0].refusing = Reason.PROCESSING_FAILED
    for _ in range(5):  # the limit is 5: three of the 4 aborted dead letters would already be too many
        bench.sessions[-1].failing = DOWN
        while bench.processor.state is State.RUNNING:
            bench.steps(1)
        while bench.processor.state is State.BACKING_OFF:
            bench.steps(1)
        while not bench.strategies[-1].seen:
            bench.steps(1)
        bench.strategies[-1].refusing = Reason.PROCESSING_FAILED
    bench.steps()
    assert bench.processor.state is State.RUNNING
    assert world.committed == 4


def test_stopped_it_drains_commits_and_leaves() -> None:
    world = World(10)
    bench = Bench(world)
    bench.steps(2)
    bench.strategies[0].stuck = True
    bench.steps(1)
    stop = threading.Event()
    stop.set()
    bench.processor.run(stop)
    assert bench.strategies[0].verbs == ["close", "join"]
    assert world.values == world.log[: world.committed]
    assert world.committed > 0
    assert bench.sessions[0].ended == "closed"
    assert bench.consumer.closed is True
    assert bench.processor.state is State.STOPPED


def test_stopped_while_something_is_down_it_ends_without_loss() -> None:
    world = World(10)
    bench = Bench(world)
    bench.steps(2)
    bench.strategies[0].failing = DOWN
    bench.processor.shut_down()
    assert bench.sessions[0].ended in {"closed", "dropped"}
    assert bench.consumer.closed is True
    assert world.values == world.log[: world.committed]


@pytest.mark.parametrize("error", [FencedError("replaced"), ZeroDivisionError("a bug")])
def test_what_cannot_be_mended_ends_it_without_leaving_the_group(error: Exception) -> None:
    world = World(10)
    bench = Bench(world)
    bench.steps(2)
    bench.consumer.failing = error
    with pytest.raises(type(error)):
        bench.processor.run(threading.Event())
    assert bench.consumer.closed is False
    assert bench.strategies[0].verbs == ["terminate"]


def test_a_consumer_that_cannot_connect_is_tried_again() -> None:
    world = World(10)
    bench = Bench(world)
    bench.consumer.failing = DependencyDownError("kafka", "gone")
    bench.steps(10)
    assert bench.processor.state is State.BACKING_OFF
    assert len(bench.told("polled")) >= 9, "the loop lives, though Kafka does not"
    bench.consumer.failing = None
    bench.steps()
    assert world.values == world.log


def test_lag_and_age_are_told_now_and_then() -> None:
    world = World(10)
    bench = Bench(world)
    bench.steps(1)
    bench.strategies[0].stuck = True
    world.now = 1200.0  # the records were written at 1000
    bench.steps(300)
    (first, *_, last) = bench.told("lag")
    assert first[0] == {0: 10}
    assert last == ({0: 10}, pytest.approx(world.now - 1000, abs=6))
