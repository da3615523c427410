"""The loop: take records, hand them to the strategy, commit what it made of them. One thread, step by step.

A step never waits long, so the group always hears from us. Full, paused or waiting for a dependency: the loop
goes on polling at least once a second. Whatever fails, the answer is the same: drop all that is in hand, wait
with full jitter, go back to the committed offsets and begin again with a new strategy. That is safe because
nothing becomes visible before its transaction, and all that is written elsewhere is idempotent.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from damagewatch.broker.consumer import GroupConsumer
from damagewatch.broker.deadletter import Breaker, DeadLetters
from damagewatch.broker.errors import FencedError, OutputRefusedError
from damagewatch.broker.ledger import Ledger
from damagewatch.broker.observer import SILENCE, Observer
from damagewatch.broker.record import Partition, Processed, Record
from damagewatch.broker.strategy import Backpressure, Strategy
from damagewatch.broker.transaction import TransactionSession
from damagewatch.domain import DependencyDownError, Reason, Refused

_log = logging.getLogger(__name__)

_FOR_DRAINING = 0.6
"""Share of the time to shut down that the strategy gets; the rest is for the commit and the goodbyes."""


@dataclass(frozen=True, slots=True)
class Pace:
    """When the processor acts. Times in seconds.

    A transaction is committed when `max_results` results are ready, or `max_bytes` of their outputs, or the
    first has been ready for `max_age`. While records wait for room, the loop looks again every `busy_wait`
    and polls every `full_poll`; with nothing to do it waits for records up to `idle_wait`.
    """

    max_results: int = 64
    max_bytes: int = 8 * 1024 * 1024
    max_age: float = 0.1
    idle_wait: float = 0.2
    busy_wait: float = 0.01
    full_poll: float = 0.5
    backoff_first: float = 0.5
    backoff_last: float = 30.0
    lag_every: float = 5.0


class State(StrEnum):
    """What the stream is doing."""

    RUNNING = "running"
    BACKING_OFF = "backing_off"
    """Something does not answer. Goes on by itself."""
    TRIPPED = "tripped"
    """Too many dead letters. Stays so until a person has looked and restarts it."""
    STOPPED = "stopped"


class StreamProcessor:
    """Consumes, processes and produces exactly once. `run` it, or take it step by step with `run_once`.

    A strategy lives as long as an assignment: `make_strategy` is called when the first record of one is at
    hand, and again after every rebalance and failure, `open_session` after every failure; both may raise
    DependencyDownError. `random_fraction` gives 0 <= x < 1, for the jitter.
    """

    def __init__(
        self,
        consumer: GroupConsumer,
        make_strategy: Callable[[], Strategy],
        open_session: Callable[[], TransactionSession],
        *,
        dead_letters: DeadLetters,
        breaker: Breaker,
        pace: Pace = Pace(),
        observer: Observer = SILENCE,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        random_fraction: Callable[[], float] = random.random,
    ) -> None:
        self._consumer = consumer
        self._make_strategy = make_strategy
        self._open_session = open_session
        self._dead_letters = dead_letters
        self._breaker = breaker
        self._pace = pace
        self._observer = observer
        self._clock = clock
        self._wall_clock = wall_clock
        self._sleep = sleep
        self._random_fraction = random_fraction

        self._strategy: Strategy | None = None
        self._session: TransactionSession | None = None
        self._ledger = Ledger()
        self._leases: dict[Partition, int] = {}
        self._waiting: deque[Record] = deque()
        self._never_taken: dict[tuple[Partition, int], str] = {}
        self._state = State.RUNNING
        self._detail = ""
        self._failures = 0
        self._resume_at = 0.0
        self._ready_since: float | None = None
        self._last_poll = clock()
        self._last_lag = -math.inf
        self._oldest_ms: int | None = None

    @property
    def state(self) -> State:
        """What it is doing."""
        return self._state

    @property
    def detail(self) -> str:
        """Why it is not running, in one line; empty while it is."""
        return self._detail

    def run(self, stop: threading.Event, drain_timeout: float = 20.0) -> None:
        """Steps until `stop` is set, then ends in good order within `drain_timeout` seconds.

        A signal handler does nothing but set `stop`.

        Raises:
            FencedError: another worker took our place.
            Exception: a bug, ours or the strategy's. Nothing half done was committed.
        """
        try:
            while not stop.is_set():
                self.run_once()
        except BaseException as error:
            self._abandon()
            # Who was fenced must not take its successor out of the group; who crashed comes back soon.
            self._consumer.close(1.0, leave=False)
            self._state, self._detail = State.STOPPED, str(error)
            raise
        self.shut_down(drain_timeout)

    def run_once(self) -> None:
        """One step: collect results, commit if due, take records. Returns within about a second, mostly at
        once; a commit or a new session may take up to the transaction timeout.

        Raises:
            FencedError: another worker took our place.
        """
        if self._state is State.TRIPPED:
            self._idle()
            return
        trying_again = self._state is State.BACKING_OFF
        if trying_again:
            self._idle()
            if self._clock() < self._resume_at:
                return
            self._consumer.resume()
            self._state, self._detail = State.RUNNING, ""
        try:
            self._step()
        except DependencyDownError as error:
            self._observer.waiting_for(error.dependency)
            self._back_off(str(error))
        except OutputRefusedError as error:
            self._never_taken[error.source, error.offset] = error.detail
            self._back_off(str(error))
        else:
            if trying_again:  # not told before: against a broker that is down this step takes ten seconds
                self._observer.resumed()

    def shut_down(self, timeout: float = 20.0) -> None:
        """Ends in good order: takes nothing more, drains the strategy, commits, leaves the group.

        What is not finished within `timeout` seconds is dropped; it will be read again by whoever comes next.
        """
        deadline = self._clock() + timeout
        if self._state is State.RUNNING and self._strategy is not None and self._session is not None:
            try:
                self._strategy.close()
                self._book(self._strategy.join(_FOR_DRAINING * timeout))
                while self._ledger.ready()[0] and self._commit():
                    pass
            except (DependencyDownError, OutputRefusedError, FencedError) as error:
                _log.warning("not all could be finished before the end: %s", error)
            else:
                self._strategy = None
        if self._session is not None and not self._session.dead:
            self._session.close(max(1.0, deadline - self._clock()))
            self._session = None
        self._abandon()
        self._consumer.close(max(1.0, deadline - self._clock()))
        self._state, self._detail = State.STOPPED, ""

    def _step(self) -> None:
        if self._session is None:
            # First of all: it settles what a former session or a former self left open.
            self._session = self._open_session()
            self._consumer.rewind()
        if self._strategy is not None:
            self._book(self._strategy.poll())
        if self._commit_due():
            self._commit()
        if not self._tripped():
            self._take()
            self._tell_lag()

    def _book(self, results: Sequence[Processed]) -> None:
        stale = sum(not self._ledger.finish(result) for result in results)
        if stale:
            self._observer.stale(stale)
        if self._ready_since is None and self._ledger.ready()[0]:
            self._ready_since = self._clock()

    def _commit_due(self) -> bool:
        count, size = self._ledger.ready()
        if not count:
            self._ready_since = None
            return False
        age = self._clock() - (self._ready_since if self._ready_since is not None else self._clock())
        return count >= self._pace.max_results or size >= self._pace.max_bytes or age >= self._pace.max_age

    def _commit(self) -> bool:
        """Commits one batch and returns whether it did: not while the group is unstable, nor once tripped."""
        membership = self._consumer.membership
        if membership is None:
            return False
        batch = self._ledger.take(self._pace.max_results, self._pace.max_bytes)
        outcomes = [result.refused for result in batch.results]
        if self._breaker.trips(outcomes):
            return False
        assert self._session is not None
        began = self._clock()
        try:
            self._session.commit(batch.results, batch.offsets, membership)
        except (DependencyDownError, OutputRefusedError) as error:
            self._observer.aborted(str(error))
            raise
        self._breaker.count(outcomes)
        self._consumer.committed(batch.offsets)
        self._failures = 0
        self._ready_since = self._clock() if self._ledger.ready()[0] else None
        for result in batch.results:
            self._never_taken.pop((result.source, result.offset), None)
        outputs = Counter(output.topic for result in batch.results for output in result.outputs)
        self._observer.committed(len(batch.results), outputs, self._clock() - began)
        if refused := Counter(result.refused for result in batch.results if result.refused is not None):
            self._observer.dead_lettered(refused)
        self._oldest_ms = self._ledger.oldest_timestamp_ms
        return True

    def _take(self) -> None:
        """Fills the strategy, first from what waits, then from the broker."""
        if self._waiting and not self._submit_waiting():
            if self._clock() - self._last_poll < self._pace.full_poll:
                self._sleep(self._pace.busy_wait)
                return
            self._consumer.pause()
            records = self._poll(self._pace.busy_wait)
            self._consumer.resume()
        else:
            busy = self._ledger.in_flight > 0 or self._ledger.ready()[0] > 0
            records = self._poll(self._pace.busy_wait if busy else self._pace.idle_wait)
        if records:
            self._observer.records_in(len(records), sum(record.size for record in records))
        self._waiting.extend(record for record in records if self._ledger.deliver(record))
        self._submit_waiting()
        self._observer.in_flight(self._ledger.in_flight, self._ledger.in_flight_bytes)
        if self._oldest_ms is None:
            self._oldest_ms = self._ledger.oldest_timestamp_ms

    def _submit_waiting(self) -> bool:
        """Hands over what waits, and returns whether all of it was taken."""
        while self._waiting:
            record = self._waiting[0]
            if letter := self._dead_on_arrival(record):
                self._waiting.popleft()
                self._book([letter])
                continue
            if self._strategy is None:
                self._strategy = self._make_strategy()
            try:
                self._strategy.submit(record)
            except Backpressure:
                return False
            self._waiting.popleft()
        return True

    def _dead_on_arrival(self, record: Record) -> Processed | None:
        """The result of a record that must not be given to the strategy, or None."""
        if record.defect:
            return Processed.of(
                record, (self._dead_letters.unreadable(record),), refused=Reason.MESSAGE_UNREADABLE
            )
        if detail := self._never_taken.get((record.source, record.offset)):
            refused = Refused(Reason.PROCESSING_FAILED, f"Kafka refuses {detail}", "publish")
            return Processed.of(record, (self._dead_letters.of(record, refused),), refused=refused.reason)
        return None

    def _poll(self, timeout: float) -> list[Record]:
        # Told beforehand: a poll that raises is a loop that lives, a poll that never returns is not.
        self._last_poll = self._clock()
        self._observer.polled()
        records = self._consumer.poll(timeout)
        leases = dict(self._consumer.leases)
        if leases != self._leases:
            self._ledger.lease(leases)
            self._waiting = deque(r for r in self._waiting if leases.get(r.source) == r.lease)
            others = leases.keys() != self._leases.keys()
            self._leases = leases
            if self._strategy is not None:
                self._strategy.terminate()
                self._strategy = None
            self._oldest_ms = self._ledger.oldest_timestamp_ms
            if others:  # a rewind gives the same partitions new leases
                self._observer.assigned(len(leases))
        return records

    def _idle(self) -> None:
        """Polls without taking anything, so that the group does not give us up."""
        try:
            self._poll(self._pace.idle_wait)
        except DependencyDownError as error:
            _log.debug("polling while paused: %s", error)
            self._sleep(self._pace.idle_wait)
        self._tell_lag()

    def _back_off(self, detail: str) -> None:
        self._abandon()
        self._consumer.pause()
        self._failures += 1
        ceiling = min(self._pace.backoff_last, self._pace.backoff_first * 2 ** min(self._failures - 1, 16))
        delay = ceiling * self._random_fraction()
        self._resume_at = self._clock() + delay
        self._state, self._detail = State.BACKING_OFF, detail
        self._observer.paused(detail, delay)

    def _tripped(self) -> bool:
        if not self._breaker.tripped:
            return False
        self._abandon()
        self._consumer.pause()
        self._state, self._detail = State.TRIPPED, self._breaker.tripped
        self._observer.paused(self._detail, math.inf)
        return True

    def _abandon(self) -> None:
        """Drops all that is in hand. The next step begins at the committed offsets, under new leases."""
        if self._strategy is not None:
            self._strategy.terminate()
            self._strategy = None
        if self._session is not None:
            self._session.drop()
            self._session = None
        self._waiting.clear()
        self._ledger.clear()
        self._ready_since = None

    def _tell_lag(self) -> None:
        now = self._clock()
        if now - self._last_lag < self._pace.lag_every:
            return
        self._last_lag = now
        lags = self._consumer.lag()
        oldest = 0.0
        if self._oldest_ms is not None and self._oldest_ms >= 0:
            oldest = max(0.0, self._wall_clock() - self._oldest_ms / 1000)
        self._observer.lag({source.number: lag for source, lag in lags.items()}, oldest)
